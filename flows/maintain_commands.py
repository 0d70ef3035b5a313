"""`qkatlas maintain`: commands that keep an atlas small, fast and sound.

Apart from `qkatlas.py`, which lists the commands; none of these loads torch or Ray.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from json import dumps
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from store.errors import ConfigError

if TYPE_CHECKING:
    from flows.progress import Bars

commands = typer.Typer(
    no_args_is_help=True,
    help="Merge, clean and check the files of an atlas.\n\n"
    "Example: `qkatlas maintain compact --atlas build/demo-atlas`",
)

AtlasOption = Annotated[
    str | None,
    typer.Option(
        "--atlas", metavar="URI", envvar="QKATLAS_ATLAS", help="Folder or URI of the atlas."
    ),
]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Files at a time.")]

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_SHOWN = 20

_console = Console(highlight=False, soft_wrap=True)


@commands.command()
def compact(
    atlas: AtlasOption = None,
    target_size: Annotated[
        str, typer.Option(metavar="SIZE", help="Of an output; half of it is left as it is.")
    ] = "128MB",
    threads: ThreadsOption = None,
) -> None:
    """Merge small files, so that reading a head opens fewer; runs and readers go on beside it.

    Example: `qkatlas maintain compact --atlas build/demo-atlas --target-size 64MB`
    """
    from flows.config_values import parse_size
    from flows.log import log_event
    from store.compaction import compact as compact_atlas
    from store.upkeep import DEFAULT_THREADS

    uri = _uri(atlas)
    try:
        target = parse_size(target_size)
    except ValueError as error:
        raise ConfigError(f"--target-size: {error}") from error
    with _bars() as bars:
        done = compact_atlas(uri, target, threads or DEFAULT_THREADS, bars)
    for row in done:
        log_event("compacted", **(asdict(row) | {"failures": len(row.failures)}))
        if row.n_before:
            _say(
                f"{row.table}: {row.n_before:,} files became {row.n_after:,} "
                f"({_megabytes(row.bytes_before)} became {_megabytes(row.bytes_after)})"
            )
    if not done:
        _say("nothing to merge")
    failures = [f"{row.table}: {line}" for row in done for line in row.failures]
    if failures:
        for line in failures:
            _say(f"left as it is: {line}")
        raise typer.Exit(1)


@commands.command()
def vacuum(
    atlas: AtlasOption = None,
    retention: Annotated[
        str, typer.Option(metavar="AGE", help="What is younger stays; at least 24h.")
    ] = "24h",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would go, and delete nothing.")
    ] = False,
) -> None:
    """Delete what no reader sees: dropped data, merged files, what killed runs left.

    Example: `qkatlas maintain vacuum --atlas build/demo-atlas --dry-run`
    """
    from flows.log import log_event
    from store.vacuum import vacuum as vacuum_atlas

    uri, age = _uri(atlas), parse_age(retention)
    with _bars() as bars:
        done = vacuum_atlas(uri, age, dry_run, bars)
    if dry_run:
        for path in (*done.unlisted, *done.deleted, *done.uploads):
            _say(path)
    counts = {"n_unlisted": len(done.unlisted), "n_deleted": len(done.deleted)}
    log_event("vacuumed", **counts, n_bytes=done.n_bytes, dry_run=dry_run)
    would = "would be " if dry_run else ""
    _say(
        f"{len(done.deleted):,} files {would}deleted ({_megabytes(done.n_bytes)}), "
        f"{len(done.unlisted):,} hidden files {would}taken out of the logs (a vacuum a day later "
        f"deletes them), {len(done.uploads):,} unfinished uploads {would}ended"
    )


@commands.command()
def check(
    atlas: AtlasOption = None,
    threads: ThreadsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Read every file again and name what is damaged, missing or miscounted; exit code 1 then.

    Example: `qkatlas maintain check --atlas build/demo-atlas`
    """
    from flows.log import log_event
    from store.check import check as check_atlas
    from store.upkeep import DEFAULT_THREADS

    uri = _uri(atlas)
    with _bars() as bars:
        report = check_atlas(uri, threads or DEFAULT_THREADS, bars)
    counts = {"n_files": report.n_files, "n_rows": report.n_rows, "n_bytes": report.n_bytes}
    log_event("checked", n_problems=len(report.problems), **counts)
    if as_json:
        sys.stdout.write(dumps(asdict(report), ensure_ascii=False) + "\n")
    else:
        for problem in report.problems:
            _say(f"{problem.where}: {problem.what}")
        for path in report.orphans[:_SHOWN]:
            _say(f"note: {path}: no log lists it; `qkatlas maintain vacuum` deletes it in time")
        if len(report.orphans) > _SHOWN:
            _say(f"note: {len(report.orphans) - _SHOWN:,} more files that no log lists")
        found = f"{len(report.problems):,} problems" if report.problems else "no problem"
        _say(
            f"{found} in {report.n_files:,} files with {report.n_rows:,} rows "
            f"({_megabytes(report.n_bytes)})"
        )
    if report.problems:
        raise typer.Exit(1)


@commands.command()
def checkpoint(atlas: AtlasOption = None) -> None:
    """Write a checkpoint of each table's log, so that the atlas opens fast, and tidy the logs.

    Example: `qkatlas maintain checkpoint --atlas build/demo-atlas`
    """
    from flows.log import log_event
    from store.checkpoint import checkpoint as write_checkpoints

    uri = _uri(atlas)
    with _bars() as bars:
        done = write_checkpoints(uri, bars)
    for row in done:
        log_event("checkpointed", **asdict(row))
        _say(
            f"{row.table}: checkpoint of version {row.version}; {row.n_deleted:,} expired log "
            f"entries deleted, {row.n_entries:,} kept"
        )


def parse_age(text: str) -> timedelta:
    """The time that text such as `36h` or `7d` stands for.

    Raises:
        ConfigError: it is none.
    """
    found = re.fullmatch(r"\s*(\d{1,6})\s*([mhd])\s*", text)
    if found is None:
        raise ConfigError(f"--retention: expected hours or days such as 24h or 7d, got {text!r}")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _uri(atlas: str | None) -> str:
    if atlas is None:
        raise ConfigError("which atlas? name it with --atlas URI, or set QKATLAS_ATLAS")
    return atlas


@contextmanager
def _bars() -> Iterator["Bars"]:
    """Progress on stderr, so that what a command prints can be piped."""
    from flows.progress import show_bars

    with show_bars(Console(stderr=True)) as bars:
        yield bars


def _say(line: str) -> None:
    _console.print(line, markup=False)


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB"
