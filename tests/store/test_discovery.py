from collections.abc import Iterator

import pytest

from store.atlas import Atlas
from store.discovery import describe
from store.schema import TABLES
from tests.store.lake_fixture import build_atlas


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atlas]:
    with Atlas(str(build_atlas(tmp_path_factory.mktemp("lake")))) as opened:
        yield opened


def test_every_view_is_described_as_sql_sees_it(atlas: Atlas) -> None:
    seen = atlas.sql("SELECT DISTINCT view_name FROM duckdb_views() WHERE NOT internal")
    assert sorted(entry["name"] for entry in describe()) == sorted(seen["view_name"].to_pylist())
    for entry in describe():
        columns = atlas.sql(f"DESCRIBE {entry['name']}").to_pylist()
        expected = [(column["column_name"], column["column_type"]) for column in columns]
        assert [(column["name"], column["type"]) for column in entry["columns"]] == expected
        assert all(column["meaning"] for column in entry["columns"])
        assert entry["about"]


def test_partitions_and_nulls_are_told() -> None:
    entries = {entry["name"]: entry for entry in describe()}
    for name, table in TABLES.items():
        assert entries[name]["partitions"] == list(table.partitions)
    nullable = {column["name"]: column["nullable"] for column in entries["vectors"]["columns"]}
    assert [name for name, value in nullable.items() if value] == ["head", "kv_head"]


@pytest.mark.parametrize("entry", describe(), ids=lambda entry: entry["name"])
def test_examples_run(atlas: Atlas, entry: dict[str, list[str]]) -> None:
    assert entry["examples"]
    for query in entry["examples"]:
        atlas.sql(query)
