import re
from pathlib import Path

import pytest

from store.compaction import compact
from store.schema import TABLES
from store.tables_doc import PAGE, tables_markdown
from tests.store.lake_fixture import add_shard, add_shard_row, build_atlas


def test_page_is_made_from_the_schema() -> None:
    assert PAGE.read_text(encoding="utf-8") == tables_markdown(), "run python -m store.tables_doc"


def test_page_has_every_column_with_its_meaning() -> None:
    page = tables_markdown()
    for table in TABLES.values():
        section = page.partition(f"### `{table.name}`\n")[2].partition("##")[0]
        for field in table.schema:
            assert f"| `{field.name}` |" in section
            assert table.meaning(field.name) in section


def test_examples_run_and_show_only_done_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_atlas(tmp_path / "my-atlas", ordinals=[0])
    add_shard(tmp_path / "my-atlas", 1, status=None, tables=("queries",))
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", tables_markdown(), flags=re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    found = names["rows"]
    assert isinstance(found, list)
    assert len(found) == 2 * 4 * 15
    add_shard(tmp_path / "my-atlas", 2)
    compact("my-atlas")
    exec(blocks[1], names)
    found = names["rows"]
    assert isinstance(found, list)
    assert len(found) == 2 * 2 * 4 * 15
    add_shard_row(tmp_path / "my-atlas", "tinyx0", "tiny", 0, "dropped", 9)
    add_shard_row(tmp_path / "my-atlas", "tinyx2", "tiny", 2, "dropped", 9)
    add_shard_row(tmp_path / "my-atlas", "again", "tiny", 0, "done", 10)
    exec(blocks[1], names)
    assert names["rows"] == []
