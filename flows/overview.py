"""What a person sees of an atlas: its contents in tables, and the demonstration's answers."""

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table

from flows.config import RunConfig
from flows.demo import QUERIES
from store.atlas import Atlas

_CONTENTS = """
SELECT s.model, s.corpus, count(*) FILTER (status = 'done') AS shards,
    count(*) FILTER (status = 'planned') AS planned,
    count(*) FILTER (status = 'quarantined') AS quarantined,
    sum(n_sequences) FILTER (status = 'done') AS sequences,
    sum(n_tokens) FILTER (status = 'done') AS tokens,
    sum(n_rejects) FILTER (status = 'done') AS rejects,
    sum(n_truncated) FILTER (status = 'done') AS truncated,
    sum(bytes) FILTER (status = 'done') AS bytes
FROM shards s WHERE status <> 'dropped' GROUP BY ALL ORDER BY ALL
"""

_MODELS = """
SELECT model, architecture, n_layers AS layers, n_heads AS heads, n_kv_heads AS kv_heads, d_head,
    precision, attention_stored_max_abs_error AS attention_error
FROM models ORDER BY model
"""

_MAPS = """
SELECT model, method, dims, count(*) AS heads, any_value(n_queries) AS queries,
    any_value(n_keys) AS keys, avg(score_spearman) AS score_spearman,
    avg(top_key_recall_3) AS top_key_recall_3
FROM current_maps GROUP BY ALL ORDER BY ALL
"""

_TROUBLE = """
SELECT 'shard ' || shard_id AS what, reason FROM shards WHERE status = 'quarantined'
UNION ALL SELECT 'map ' || map_id, reason FROM maps WHERE status = 'failed' LIMIT 20
"""


def show_status(uri: str, console: Console) -> None:
    """Print what an atlas holds, what waits, and what went wrong."""
    with Atlas(uri) as atlas:
        for title, query in (("Models", _MODELS), ("Captured", _CONTENTS), ("Maps", _MAPS)):
            console.print(_table(title, atlas.sql(query)))
        trouble = atlas.sql(_TROUBLE)
        if len(trouble):
            console.print(_table("Failed", trouble))
        for source in find_vanished_files(atlas):
            console.print(f"[yellow]gone, its sequences stay:[/] {source}")


def find_vanished_files(atlas: Atlas) -> list[str]:
    """Local corpus files in the atlas that are no longer on the disk."""
    sources = atlas.sql("SELECT DISTINCT source FROM files ORDER BY source")["source"].to_pylist()
    return [source for source in sources if "://" not in source and not os.path.exists(source)]


def show_demo(config: RunConfig, path: Path, console: Console) -> None:
    """Print the demonstration's summary, three questions with answers, and what to try next."""
    uri = os.path.relpath(config.atlas)
    with Atlas(config.atlas) as atlas:
        console.print(_table("Atlas", atlas.sql(_MODELS)))
        console.print(_table("Captured", atlas.sql(_CONTENTS)))
        head = _strongest_content_head(atlas, config.model.key)
        for question, query in QUERIES:
            filled = query.strip().format(model=config.model.key, **head)
            console.rule(question.format(**head), align="left")
            console.print(Syntax(filled, "sql", background_color="default", word_wrap=True))
            console.print(_table("", atlas.sql(filled)))
    console.rule("Try next", align="left")
    for command in (
        f"qkatlas status --atlas {uri}",
        f"qkatlas sql --atlas {uri} 'SHOW TABLES'",
        f"qkatlas sql --atlas {uri} 'SELECT * FROM head_measures ORDER BY entropy' --format csv",
        f"qkatlas verify {path}",
        f"qkatlas run {path} --set 'maps=[{{method: umap, dims: 3, max_tokens: 1000}}]'",
    ):
        console.print(f"  .venv/bin/{command}", soft_wrap=True, highlight=False)


def _strongest_content_head(atlas: Atlas, model: str) -> dict[str, Any]:
    """The head that looks most at other occurrences of the same token."""
    found = atlas.sql(
        """SELECT layer, head, kv_head FROM heads JOIN head_measures USING (model, layer, head)
        WHERE model = ? ORDER BY same_token DESC NULLS LAST, layer, head LIMIT 1""",
        [model],
    )
    return dict(found.to_pylist()[0])


def _table(title: str, rows: pa.Table) -> Table:
    table = Table(title=title or None, title_justify="left")
    for field in rows.schema:
        is_text = pa.types.is_string(field.type)
        table.add_column(field.name, justify="left" if is_text else "right")
    for row in rows.to_pylist():
        table.add_row(*(_cell(name, value) for name, value in row.items()))
    return table


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if name == "bytes":
        return f"{value / 1e6:,.1f} MB"
    if name.endswith("_error"):
        return f"{value:.1e}"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) and name not in ("layer", "head") else str(value)
