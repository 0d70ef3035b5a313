"""What earlier attempts left in the logs: completed while it is young, replaced before it goes.

Apart from `test_lake`, as a second clock, a vacuum and a compaction take part.
"""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from store import clock
from store.check import check
from store.compaction import compact
from store.errors import CommitError
from store.lake import SHARDS, Lake, Unit
from store.snapshot import Snapshot, open_table
from store.vacuum import vacuum
from tests.store.lake_units import listed, paths_on_disk
from tests.store.small_shards import contents, make_lake, write_shard


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setattr("store.lake.time.sleep", lambda _: None)
    return make_lake(tmp_path, 1)


@pytest.fixture
def root(lake: Lake) -> Path:
    return Path(lake.uri)


def half_commit(lake: Lake, unit: Unit, hours: float, patch: pytest.MonkeyPatch) -> None:
    """List a unit's queries, so many hours ago, and nothing else of it."""
    real = clock.now
    with patch.context() as then:
        then.setattr(clock, "now", lambda: real() - timedelta(hours=hours))
        lake._commit_files(SHARDS, "queries", [unit])


def own(lake: Lake, shard_id: str) -> set[str]:
    return {path for path in listed(lake.uri, "queries") if f"s-{shard_id}-" in path}


@pytest.mark.parametrize("hours", [25, 13])
def test_old_files_of_a_dead_driver_are_replaced(
    lake: Lake, root: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    dead, alive = (write_shard(root, "bb", [(5, 0, 1)], attempt=n) for n in (1, 2))
    half_commit(lake, dead, hours, monkeypatch)
    old = own(lake, "bb")
    assert lake.commit(SHARDS, [alive]) == [alive]
    assert old and not old & own(lake, "bb")
    assert own(lake, "bb") == {
        f"queries/{file.path}" for file in alive.files if file.table == "queries"
    }
    assert old <= paths_on_disk(root), "readers of the version before lose nothing"
    assert check(lake.uri).problems == []


def test_young_files_of_a_dead_driver_count(
    lake: Lake, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, alive = (write_shard(root, "bb", [(5, 0, 1)], attempt=n) for n in (1, 2))
    half_commit(lake, dead, 11, monkeypatch)
    young = own(lake, "bb")
    lake.commit(SHARDS, [alive])
    assert own(lake, "bb") == young
    assert check(lake.uri).problems == []


@pytest.mark.parametrize("moment", ["before it is committed", "after", "before the ledger's row"])
def test_vacuum_beside_a_resumed_half_shard_takes_nothing_that_counts(
    lake: Lake, root: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    dead, alive = (write_shard(root, "bb", [(5, 0, 1)], attempt=n) for n in (1, 2))
    half_commit(lake, dead, 25, monkeypatch)
    vacuumed: list[str] = []
    original = open_table
    wanted = {"before it is committed": "queries", "after": "keys"}.get(moment, "rejects")

    def late(uri: str, name: str) -> DeltaTable:
        handle = original(uri, name)
        if name == wanted and not vacuumed:
            vacuumed.append(name)
            vacuum(uri)
        return handle

    monkeypatch.setattr("store.lake.open_table", late)
    assert lake.commit(SHARDS, [alive]) == [alive]
    assert vacuumed
    assert check(lake.uri).problems == []
    shown = {row["sequence_id"] >> 32 for row in contents(lake.uri)["queries"]}
    assert shown == {0, 5}


def test_an_own_file_is_not_replaced_by_itself(
    lake: Lake, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit whose answer was lost, asked again under a clock that leapt forward."""
    unit = write_shard(root, "bb", [(5, 0, 1)])
    half_commit(lake, unit, 25, monkeypatch)
    before = open_table(lake.uri, "queries").version()
    assert lake.commit(SHARDS, [unit]) == [unit]
    assert open_table(lake.uri, "queries").version() == before
    assert check(lake.uri).problems == []


def test_a_file_that_was_merged_meanwhile_stays_for_older_readers(
    lake: Lake, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit goes through unnoticed; another driver finishes the shard, which is merged."""
    mine, other = (write_shard(root, "bb", [(5, 0, 1)], attempt=n) for n in (1, 2))
    commit = DeltaTable.create_write_transaction

    def lose_answer(*arguments: Any, **named: Any) -> None:
        commit(*arguments, **named)
        raise CommitFailedError("connection closed before message completed")

    with monkeypatch.context() as patch:
        patch.setattr(DeltaTable, "create_write_transaction", lose_answer)
        patch.setattr("store.lake._ATTEMPTS", 1)
        with pytest.raises(CommitError, match=r"connection closed.*run the same command"):
            lake.commit(SHARDS, [mine])
    Lake(lake.uri).commit(SHARDS, [other])
    reader = Snapshot.load(lake.uri)
    files = reader.files("queries")["path"].to_pylist()
    seen = contents(lake.uri)
    compact(lake.uri)
    assert not own(lake, "bb")

    assert lake.commit(SHARDS, [mine]) == []
    assert all(Path(path).is_file() for path in files)
    assert contents(lake.uri) == seen
    left = {file.path for file in mine.files if (root / file.table / file.path).exists()}
    assert left == {file.path for file in mine.files if file.table == "queries"}


def test_a_commit_that_went_through_unnoticed_is_found_after_a_merge(
    lake: Lake, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is lost, and before it is asked again the shard is finished and merged."""
    mine, other = (write_shard(root, "bb", [(5, 0, 1)], attempt=n) for n in (1, 2))
    commit = DeltaTable.create_write_transaction
    lost: list[bool] = []

    def lose_answer(*arguments: Any, **named: Any) -> None:
        commit(*arguments, **named)
        if not lost:
            lost.append(True)
            Lake(lake.uri).commit(SHARDS, [other])
            compact(lake.uri)
            raise CommitFailedError("connection closed before message completed")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", lose_answer)
    assert lake.commit(SHARDS, [mine]) == []
    kept = [file for file in mine.files if (root / file.table / file.path).exists()]
    assert {file.table for file in kept} == {lake_table(mine)}


def test_files_whose_put_is_on_its_way_stay_though_their_shard_was_dropped(
    lake: Lake, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = write_shard(root, "bb", [(5, 0, 1)])
    commit = DeltaTable.create_write_transaction
    held: list[tuple[Any, dict[str, Any]]] = []

    def time_out(*arguments: Any, **named: Any) -> None:
        if held:
            commit(*arguments, **named)
            return
        held.append((arguments, named))
        Lake(lake.uri).commit_rows(SHARDS, [{**mine.row, "status": "dropped", "reason": "test"}])
        raise OSError("operation timed out")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", time_out)
    assert lake.commit(SHARDS, [mine]) == []
    commit(*held[0][0], **held[0][1])
    assert own(lake, "bb")
    assert own(lake, "bb") <= paths_on_disk(root)
    assert not any((root / f.table / f.path).exists() for f in mine.files if f.table == "tokens")


def lake_table(unit: Unit) -> str:
    """The table that a unit's first commit is of."""
    return next(table for table in SHARDS.data_tables if table in {f.table for f in unit.files})
