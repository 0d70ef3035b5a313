"""What a person sees of `qkatlas status --watch`: a live picture in a terminal, else lines.

Separate from `flows.watch`, which finds the figures out.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flows.dashboards import show_dashboards
from flows.quantities import format_bytes, format_seconds
from flows.watch import Look, Watch

SHOWN = 5
"""Most reasons, and most workers, that are shown."""


def watch_atlas(uri: str, console: Console, every_s: float = 2.0, until_done: bool = False) -> None:
    """Show how an atlas grows until Ctrl-C, which is no error.

    Args:
        uri: of the atlas.
        console: a live picture where it is a terminal, else a line a look.
        every_s: seconds between looks.
        until_done: end as soon as no planned shard waits for capture.

    Raises:
        AtlasError: there is no atlas, or it cannot be read.
    """
    show_dashboards(console)
    try:
        looks = _look_again(Watch(uri), every_s, until_done)
        if console.is_terminal:
            with Live(console=console, auto_refresh=False, transient=False) as live:
                for look in looks:
                    live.update(draw_look(look), refresh=True)
        else:
            for look in looks:
                print_line(look, console)
    except KeyboardInterrupt:
        return


def _look_again(watch: Watch, every_s: float, until_done: bool) -> Iterator[Look]:
    while True:
        started = time.monotonic()
        look = watch.look()
        yield look
        if until_done and not look.contents.n_waiting and not look.lost_sight:
            return
        time.sleep(max(0.0, every_s - (time.monotonic() - started)))


def print_line(look: Look, console: Console) -> None:
    """Print a look as one line, with the time in UTC before it."""
    line = f"{datetime.now(UTC):%H:%M:%S} {describe_look(look)}"
    console.print(line, soft_wrap=True, highlight=False, markup=False)
    console.file.flush()


def describe_look(look: Look) -> str:
    """A look in words, the same ones in the same order each time; nothing that is nought."""
    contents = look.contents
    parts = [_amount(look), _speed(look)]
    parts.append(f"{contents.n_waiting:,} shards waiting")
    parts.append(f"{contents.n_shards.get('done', 0):,} done, {format_bytes(contents.bytes)}")
    if contents.n_rejects:
        parts.append(f"{contents.n_rejects:,} rejects")
    if contents.n_given_up:
        parts.append(f"{contents.n_given_up:,} given up: {contents.troubles[0].reason[:120]}")
    parts += [f"{part.what} {part.done:,}/{part.total:,}" for part in contents.parts]
    parts.append(f"{len(look.active):,} workers seen at work")
    if look.lost_sight:
        parts.append(f"not read: {look.lost_sight[:200]}")
    return "; ".join(parts)


def _amount(look: Look) -> str:
    contents = look.contents
    return f"{contents.done:,} of {contents.done + contents.waiting:,} tokens"


def _speed(look: Look) -> str:
    """Throughput and time left in words."""
    if not look.contents.waiting:
        return "nothing waits"
    if look.rate is None:
        return "no shard done since this began"
    left = "–" if look.time_left_s is None else format_seconds(look.time_left_s)
    return f"{look.rate:,.0f} tokens/s, {left} left"


def draw_look(look: Look) -> RenderableType:
    """A look as a picture of at most 80 columns."""
    contents = look.contents
    total = max(1, contents.done + contents.waiting)
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row("tokens", _amount(look))
    facts.add_row("speed", _speed(look))
    facts.add_row("shards", _shards(look))
    facts.add_row("on disk", format_bytes(contents.bytes))
    facts.add_row("rejects", f"{contents.n_rejects:,} rows")
    for part in contents.parts:
        facts.add_row("", escape(f"{part.what}: {part.done:,} of {part.total:,} heads"))
    for name, rate in _shown_workers(look):
        facts.add_row("", f"{escape(name)}: {rate:,.0f} tokens/s")
    troubles = [
        Text(f"{trouble.n:,} × {trouble.what} given up: {trouble.reason[:300]}", style="red")
        for trouble in contents.troubles[:SHOWN]
    ]
    if len(contents.troubles) > SHOWN:
        troubles.append(Text(f"and {len(contents.troubles) - SHOWN:,} more reasons", style="red"))
    if look.lost_sight:
        troubles.append(Text(f"the newest look failed: {look.lost_sight[:300]}", style="yellow"))
    return Group(ProgressBar(total=total, completed=contents.done, width=60), facts, *troubles)


def _shards(look: Look) -> str:
    counts = look.contents.n_shards
    words = {"done": "done", "planned": "waiting", "quarantined": "given up"}
    return ", ".join(f"{counts.get(status, 0):,} {word}" for status, word in words.items())


def _shown_workers(look: Look) -> list[tuple[str, float]]:
    """The first workers, and how many more there are with what they do together."""
    workers = sorted(look.active.items())
    rest = workers[SHOWN:]
    shown = workers[:SHOWN]
    if rest:
        shown.append((f"{len(rest):,} more workers", sum(rate for _, rate in rest)))
    return shown
