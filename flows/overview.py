"""What a person sees of an atlas: its contents in tables, and the demonstration's answers.

Tables fit a terminal of 80 columns.
"""

import os
import shlex
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table

from flows.config import RunConfig
from flows.demo import QUERIES
from flows.growth import find_due_fits
from store.atlas import Atlas

Row = dict[str, Any]

_MODELS = """
SELECT model, architecture, n_layers AS layers, n_heads AS heads, n_kv_heads AS kv_heads, d_head,
    precision, attention_stored_max_abs_error AS error
FROM models ORDER BY model
"""

_CAPTURED = """
SELECT model, corpus,
    sum(n_sequences) FILTER (status = 'done')::BIGINT AS sequences,
    sum(n_tokens) FILTER (status = 'done')::BIGINT AS tokens,
    sum(bytes) FILTER (status = 'done')::BIGINT AS bytes,
    count(*) FILTER (status = 'done') AS done,
    count(*) FILTER (status = 'planned') AS waiting,
    count(*) FILTER (status = 'quarantined') AS given_up,
    sum(n_rejects) FILTER (status = 'done')::BIGINT AS rejects,
    sum(n_truncated) FILTER (status = 'done')::BIGINT AS truncated
FROM shards WHERE status <> 'dropped' GROUP BY ALL ORDER BY ALL
"""

_MAPS = """
WITH parts AS (
    SELECT map_id, sum(n_queries + n_keys)::BIGINT AS added FROM maps
    WHERE part > 0 AND status = 'ok' GROUP BY map_id)
SELECT model, method || ' ' || dims || '-D' AS map, count(*) AS heads,
    any_value(n_queries + n_keys) AS points, max(added) AS added,
    avg(score_spearman) AS "score\nspearman",
    avg(heldout_score_spearman) AS "held-out\nspearman",
    avg(top_key_recall_3) AS "top key\nrecall 3",
    avg(trustworthiness) AS "trust-\nworthiness", avg(continuity) AS "contin-\nuity"
FROM current_maps LEFT JOIN parts USING (map_id)
GROUP BY model, method, dims ORDER BY model, method <> 'attention', method, dims
"""

_TROUBLE = """
SELECT 'shard ' || shard_id AS what, reason FROM shards WHERE status = 'quarantined'
UNION ALL SELECT 'map ' || map_id, reason FROM maps WHERE status = 'failed' LIMIT 20
"""

_ECHO_HEAD = """
SELECT layer, head, kv_head FROM heads JOIN head_measures USING (model, layer, head)
WHERE model = ? ORDER BY same_token DESC NULLS LAST, layer, head LIMIT 1
"""


def show_status(uri: str, console: Console) -> None:
    """Print what an atlas holds, what waits, and what went wrong."""
    with Atlas(uri) as atlas:
        show_contents(atlas, console)
        trouble = atlas.sql(_TROUBLE).to_pylist()
        for row in trouble:
            console.print(f"[red]{escape(row['what'])}[/]: {escape(row['reason'] or '')}")
        for note in find_due_fits(atlas.snapshot.newest_maps()):
            console.print(f"[yellow]{escape(note)}", highlight=False)
        for source in find_vanished_files(atlas):
            console.print(f"[yellow]gone, its sequences stay:[/] {escape(source)}")


def show_contents(atlas: Atlas, console: Console) -> None:
    """Print the models, what was captured of which corpus, and the maps."""
    models = atlas.sql(_MODELS)
    if not len(models):
        console.print("the atlas holds no captured sequence yet")
    captured = [_captured_row(row) for row in atlas.sql(_CAPTURED).to_pylist()]
    _print_rows("Models", models.to_pylist(), console)
    _print_rows("Captured", captured, console)
    for model, rows in groupby(atlas.sql(_MAPS).to_pylist(), itemgetter("model")):
        _print_rows(f"Maps of {model}", [_map_row(row) for row in rows], console, gap=0)


def _map_row(row: Row) -> Row:
    """A series of maps, with what was added to them behind what was fitted."""
    points = f"{row['points']:,}" + (f" + {row['added']:,}" if row["added"] else "")
    hidden = ("model", "added")
    return {name: value for name, value in row.items() if name not in hidden} | {"points": points}


def _captured_row(row: Row) -> Row:
    """A corpus of a model, with what is unusual about it in words."""
    names = ("model", "corpus", "sequences", "tokens", "bytes")
    return {name: row[name] for name in names} | {"shards": ", ".join(_shard_words(row))}


def _shard_words(row: Row) -> Iterator[str]:
    yield f"{row['done']:,}"
    for name in ("waiting", "given_up", "rejects", "truncated"):
        if row[name]:
            yield f"{row[name]:,} {name.replace('_', ' ')}"


def find_vanished_files(atlas: Atlas) -> list[str]:
    """Local corpus files in the atlas that are no longer on the disk."""
    sources = atlas.sql("SELECT DISTINCT source FROM files ORDER BY source")["source"].to_pylist()
    return [source for source in sources if "://" not in source and not os.path.exists(source)]


def show_demo(config: RunConfig, path: Path, console: Console) -> None:
    """Print the demonstration's summary, three questions with answers, and what to try next."""
    model = config.model.key
    with Atlas(config.atlas) as atlas:
        console.rule(f"The atlas in {os.path.relpath(config.atlas)}", align="left")
        show_contents(atlas, console)
        found = atlas.sql(_ECHO_HEAD, [model]).to_pylist()
        head = found[0] if found else {"layer": 0, "head": 0, "kv_head": 0}
        for number, (question, query) in enumerate(QUERIES, start=1):
            filled = query.strip().format(model=model, **head)
            console.print()
            console.rule(f"{number}. {question.format(**head)}", align="left")
            console.print(Syntax(filled, "sql", background_color="default", word_wrap=True))
            _print_rows("", atlas.sql(filled).to_pylist(), console)
    _show_commands(config, path, console)


def _show_commands(config: RunConfig, path: Path, console: Console) -> None:
    """Print commands to try, ready to be pasted."""
    model, uri = config.model.key, shlex.quote(os.path.relpath(config.atlas))
    configuration = shlex.quote(os.path.relpath(path))
    commands = {
        "what the atlas holds, and its views for SQL": (
            f"status --atlas {uri}",
            f"sql --atlas {uri} 'SHOW TABLES'",
        ),
        "your own question, as table, json, csv, arrow or parquet": (
            f"sql --atlas {uri} --format csv \\\n      "
            f"\"SELECT layer, head, entropy FROM head_measures WHERE model = '{model}'\"",
        ),
        "the atlas against the model's own attention": (f"verify {configuration}",),
        "one more map of every head, in 3-D": (
            f"run {configuration} \\\n      "
            "--set 'maps=[{method: umap, dims: 3, max_tokens: 1000}]'",
        ),
        "a run of your own: copy and change an example": ("plan examples/encoder_on_text.yaml",),
        "the atlas in your browser, at http://127.0.0.1:8765/": (f"serve --atlas {uri}",),
    }
    console.print()
    console.rule("Try next", align="left")
    for purpose, lines in commands.items():
        console.print(f"  [dim]# {purpose}[/]")
        for line in lines:
            console.print(f"  .venv/bin/qkatlas {escape(line)}", soft_wrap=True, highlight=False)


def _print_rows(title: str, rows: list[Row], console: Console, gap: int = 1) -> None:
    """Print rows as a table, `gap` more spaces between columns; nothing where there are none."""
    if not rows:
        return
    table = Table(
        title=escape(title) or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, gap, 0, 0),
    )
    for name, value in rows[0].items():
        is_text = isinstance(value, str)
        header = name.replace("_", " ") if title else name
        side: Literal["left", "right"] = "left" if is_text else "right"
        table.add_column(header, justify=side, overflow="fold", no_wrap=name == "map")
    for row in rows:
        table.add_row(*(_cell(name, value) for name, value in row.items()))
    console.print(table)


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if name == "bytes":
        return f"{value / 1e6:,.1f} MB"
    if name == "error":
        return f"{value:.1e}"
    if isinstance(value, float):
        return f"{value:.3f}"
    is_count = isinstance(value, int) and name not in ("layer", "head")
    return f"{value:,}" if is_count else escape(str(value))
