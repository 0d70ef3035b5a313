"""A checkpoint holds all that the log's entries held, app transactions too."""

from pathlib import Path

from store.checkpoint import checkpoint, count_entries
from store.lake import SHARDS
from store.schema import TABLES
from store.snapshot import open_table
from tests.store.small_shards import contents, make_lake, write_shard


def test_atlas_is_the_same_after_a_checkpoint_and_without_the_entries_before(
    tmp_path: Path,
) -> None:
    lake = make_lake(tmp_path, 3)
    before = contents(lake.uri)
    done = {row.table: row for row in checkpoint(lake.uri)}
    assert done.keys() == TABLES.keys()
    assert done["shards"].version == open_table(lake.uri, "shards").version() == 3
    assert (done["shards"].n_entries, done["shards"].n_deleted) == (4, 0)
    for table in TABLES:
        for entry in sorted((tmp_path / table / "_delta_log").glob("*.json"))[:-1]:
            entry.unlink()
        assert count_entries(lake.uri, table) == 1
    assert contents(lake.uri) == before
    assert open_table(lake.uri, "queries").transaction_version("s-a0") is not None
    assert lake.commit(SHARDS, [write_shard(tmp_path, "a0", [(0, 0, 1)], attempt=2)]) == []
    assert lake.commit(SHARDS, [write_shard(tmp_path, "new", [(9, 0, 1)])])


def test_expired_entries_are_deleted(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, 3)
    handle = open_table(lake.uri, "shards")
    handle.alter.set_table_properties({"delta.logRetentionDuration": "interval 0 days"})
    before = contents(lake.uri)
    done = {row.table: row for row in checkpoint(lake.uri)}
    assert done["shards"].n_deleted > 0
    assert contents(lake.uri) == before
