"""Tables are created once, and a unit becomes visible once, with all its files or none."""

import multiprocessing
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from store.encoding import open_writer
from store.errors import AtlasFormatError, CommitError
from store.files import WrittenFile, map_file_name, partition_folder
from store.lake import MAPS, SHARDS, Lake, Row, Unit
from store.schema import FORMAT_PROPERTY, TABLES
from store.snapshot import Snapshot, open_table
from tests.store.lake_units import (
    PARTITIONS,
    ledger_rows,
    listed,
    make_unit,
    map_row,
    paths_on_disk,
    shard_row,
    visible,
)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(str(tmp_path / "atlas"))
    lake.create()
    return lake


@pytest.fixture
def root(lake: Lake) -> Path:
    return Path(lake.uri)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.lake.time.sleep", lambda _: None)


def test_create_twice_is_create_once(lake: Lake) -> None:
    before = Snapshot.load(lake.uri).version
    lake.create()
    Lake(lake.uri).create()
    assert Snapshot.load(lake.uri).version == before


def test_tables_carry_format_partitions_and_comments(lake: Lake) -> None:
    for name, table in TABLES.items():
        found = open_table(lake.uri, name)
        assert found.metadata().configuration[FORMAT_PROPERTY] == "2"
        assert tuple(found.metadata().partition_columns) == table.partitions
        assert found.metadata().description == table.about


def check_empty_tables(uri: str) -> None:
    """Two that create at once may both leave an entry in the log, the same one."""
    snapshot = Snapshot.load(uri)
    assert all(len(snapshot.rows(name)) == 0 for name in ("files", "shards", "maps"))
    unit = make_unit(Path(uri), "aa")
    assert Lake(uri).commit(SHARDS, [unit]) == [unit]
    assert visible(uri) == [0, 1, 2]


def test_create_from_many_threads(tmp_path: Path) -> None:
    uri, failures = str(tmp_path / "atlas"), []
    start = threading.Barrier(6)

    def create() -> None:
        start.wait()
        try:
            Lake(uri).create()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=create) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    check_empty_tables(uri)


def _create(uri: str) -> None:
    Lake(uri).create()


def test_create_from_two_processes(tmp_path: Path) -> None:
    uri = str(tmp_path / "atlas")
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_create, args=(uri,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    check_empty_tables(uri)


def test_create_completes_what_a_killed_one_began(tmp_path: Path) -> None:
    uri = str(tmp_path / "atlas")
    Lake(uri).create()
    log = tmp_path / "atlas" / "keys" / "_delta_log"
    (log / "00000000000000000000.json").rename(log / "_commit_1.json.tmp")
    Lake(uri).create()
    assert Snapshot.load(uri).versions["keys"] == 0


def test_create_refuses_foreign_content(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "holiday.txt").write_text("mine")
    with pytest.raises(AtlasFormatError, match="not a Delta table"):
        Lake(str(tmp_path)).create()
    assert not (tmp_path / "files" / "_delta_log").exists()


def test_create_refuses_a_newer_format(lake: Lake) -> None:
    handle = open_table(lake.uri, "maps")
    handle.alter.set_table_properties({FORMAT_PROPERTY: "3"}, raise_if_not_exists=False)
    with pytest.raises(AtlasFormatError, match="upgrade QK Atlas"):
        lake.create()


def test_a_unit_is_visible_only_with_its_ledger_row(
    lake: Lake, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    original = open_table

    def watch(uri: str, name: str) -> DeltaTable:
        order.append(name)
        assert visible(uri) == []
        return original(uri, name)

    unit = make_unit(root, "aa")
    monkeypatch.setattr("store.lake.open_table", watch)
    assert lake.commit(SHARDS, [unit]) == [unit]
    monkeypatch.undo()
    tables = list(dict.fromkeys(name for name in order if name != "shards"))
    assert tables == ["queries", "keys", "rejects"]
    assert order[-1] == "shards"
    assert [visible(lake.uri, t) for t in ("queries", "keys", "rejects")] == [[0, 1, 2]] * 3
    assert ledger_rows(lake.uri, "aa") == [(1, "done")]


def test_the_same_report_twice_doubles_nothing(lake: Lake, root: Path) -> None:
    unit = make_unit(root, "aa")
    assert lake.commit(SHARDS, [unit, unit]) == [unit]
    assert lake.commit(SHARDS, [unit]) == []
    assert Lake(lake.uri).commit(SHARDS, [unit]) == []
    assert visible(lake.uri) == [0, 1, 2]
    assert ledger_rows(lake.uri, "aa") == [(1, "done")]
    assert {f"{file.table}/{file.path}" for file in unit.files} == paths_on_disk(root)


def test_two_attempts_in_one_commit_leave_one(lake: Lake, root: Path) -> None:
    first, second = make_unit(root, "aa", 1), make_unit(root, "aa", 2)
    assert lake.commit(SHARDS, [first, second]) == [first]
    assert visible(lake.uri) == [0, 1, 2]
    assert paths_on_disk(root) == {f"{file.table}/{file.path}" for file in first.files}


def test_the_losers_files_and_only_they_are_deleted(lake: Lake, root: Path) -> None:
    winner, loser = make_unit(root, "aa", 1), make_unit(root, "aa", 2)
    other = make_unit(root, "bb", 1, first=10)
    in_work = make_unit(root, "cc", 1, first=20)
    lake.commit(SHARDS, [winner])
    assert Lake(lake.uri).commit(SHARDS, [loser, other]) == [other]
    assert visible(lake.uri) == [0, 1, 2, 10, 11, 12]
    kept = {f"{f.table}/{f.path}" for unit in (winner, other, in_work) for f in unit.files}
    assert paths_on_disk(root) == kept


def test_a_unit_half_committed_by_another_is_completed(lake: Lake, root: Path) -> None:
    dead, alive = make_unit(root, "aa", 1), make_unit(root, "aa", 2)
    lake._commit_files(SHARDS, "queries", [dead])
    assert visible(lake.uri) == []
    assert lake.commit(SHARDS, [alive]) == [alive]
    assert [visible(lake.uri, t) for t in ("queries", "keys", "rejects")] == [[0, 1, 2]] * 3
    assert len(listed(lake.uri, "queries")) == 1
    assert "-1-" in listed(lake.uri, "queries")[0]
    assert "-2-" in listed(lake.uri, "keys")[0]


@pytest.mark.parametrize("table", ["queries", "keys", "rejects", "shards"])
def test_a_stale_handle_is_refused_and_asks_again(
    lake: Lake, root: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    mine, faster = make_unit(root, "aa", 1), make_unit(root, "aa", 2)
    original = open_table
    done: list[bool] = []

    def late(uri: str, name: str) -> DeltaTable:
        handle = original(uri, name)
        if name == table and not done:
            done.append(True)
            assert Lake(uri).commit(SHARDS, [faster]) == [faster]
        return handle

    monkeypatch.setattr("store.lake.open_table", late)
    assert lake.commit(SHARDS, [mine]) == []
    assert done
    assert [visible(lake.uri, t) for t in ("queries", "keys", "rejects")] == [[0, 1, 2]] * 3
    assert ledger_rows(lake.uri, "aa") == [(1, "done")]
    names = [path for t in ("queries", "keys", "rejects") for path in listed(lake.uri, t)]
    assert len(names) == 3
    assert paths_on_disk(root) == set(names)


def test_compaction_between_ledger_and_handle_doubles_nothing(
    lake: Lake, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handle is older than the look at the ledger, so a compacted unit is never missed."""
    mine, faster = make_unit(root, "aa", 1), make_unit(root, "aa", 2)
    original = open_table
    opened: list[str] = []

    def late(uri: str, name: str) -> DeltaTable:
        opened.append(name)
        if opened == ["queries"]:
            handle = original(uri, name)
            Lake(uri).commit(SHARDS, [faster])
            original(uri, "queries").delete()  # as a compaction would take the file away
            return handle
        return original(uri, name)

    monkeypatch.setattr("store.lake.open_table", late)
    assert lake.commit(SHARDS, [mine]) == []
    assert listed(lake.uri, "queries") == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "model=tiny/layer=0/head=1/s-aa-9-gone.parquet"}, "on the lake, expected"),
        ({"size": 1}, "expected 1"),
        ({"partition": PARTITIONS["keys"]}, "partitions"),
        ({"n_rows": 0}, "0 rows"),
        ({"path": "model=tiny/layer=0/head=1/s-bb-1-00.parquet"}, "begins with s-aa-"),
        ({"table": "points"}, "shards holds no files of points"),
    ],
)
def test_a_wrong_file_is_refused_before_any_commit(
    lake: Lake, root: Path, change: dict[str, Any], message: str
) -> None:
    good, bad = make_unit(root, "cc", first=20), make_unit(root, "aa")
    wrong = Unit(bad.row, [*bad.files[1:], replace(bad.files[0], **change)])
    before = Snapshot.load(lake.uri).version
    with pytest.raises(CommitError, match=message):
        lake.commit(SHARDS, [good, wrong])
    assert Snapshot.load(lake.uri).version == before
    assert lake.commit(SHARDS, [good]) == [good]
    assert visible(lake.uri) == [20, 21, 22]


def test_units_of_maps_are_committed_the_same_way(lake: Lake, root: Path) -> None:
    path = partition_folder(PARTITIONS["points"]) + map_file_name("ab", 0)
    schema = TABLES["points"].file_schema.remove_metadata()
    row = {"map_id": "ab", "part": 0, "kind": "query", "sequence_id": 1, "position": 0, "rank": 0}
    (root / "points" / path).parent.mkdir(parents=True)
    with open_writer("points", root / "points" / path) as writer:
        writer.write_table(pa.Table.from_pylist([{**row, "x": 0.0, "y": 1.0}], schema=schema))
    size = (root / "points" / path).stat().st_size
    unit = Unit(map_row("ab"), [WrittenFile("points", path, PARTITIONS["points"], 1, size)])
    assert lake.commit_rows(MAPS, [map_row("ab", "failed")])
    assert lake.commit(MAPS, [unit]) == [unit]
    assert lake.commit_rows(MAPS, [map_row("ab", "failed")]) == []
    assert len(Snapshot.load(lake.uri).files("points")) == 1
    assert len(lake.commit_rows(MAPS, [map_row("ab", "dropped")])) == 1
    assert lake.commit(MAPS, [unit]) == []
    assert len(Snapshot.load(lake.uri).files("points")) == 0


def test_done_wins_over_quarantined_in_either_order(lake: Lake, root: Path) -> None:
    first, second = make_unit(root, "aa"), make_unit(root, "bb", first=10)
    lost = [shard_row(unit.row["shard_id"], "quarantined") for unit in (first, second)]
    assert len(lake.commit_rows(SHARDS, lost[:1])) == 1
    lake.commit(SHARDS, [first, second])
    assert Lake(lake.uri).commit_rows(SHARDS, lost) == []
    assert visible(lake.uri) == [0, 1, 2, 10, 11, 12]
    statuses = [status for _, status in ledger_rows(lake.uri, "aa")]
    assert statuses == ["quarantined", "done"]


def test_planned_again_after_quarantine_then_done(lake: Lake, root: Path) -> None:
    unit = make_unit(root, "aa")
    for status in ("quarantined", "planned"):
        assert len(lake.commit_rows(SHARDS, [shard_row("aa", status)])) == 1
    assert lake.commit(SHARDS, [unit]) == [unit]
    rows = ledger_rows(lake.uri, "aa")
    assert [status for _, status in rows] == ["quarantined", "planned", "done"]
    assert len({generation for generation, _ in rows}) == 3


def test_dropped_hides_and_is_final(lake: Lake, root: Path) -> None:
    unit = make_unit(root, "aa")
    lake.commit(SHARDS, [unit])
    assert len(lake.commit_rows(SHARDS, [shard_row("aa", "dropped")])) == 1
    assert visible(lake.uri) == []
    for status in ("dropped", "quarantined", "planned"):
        assert lake.commit_rows(SHARDS, [shard_row("aa", status)]) == []
    assert lake.commit(SHARDS, [make_unit(root, "aa", 2)]) == []
    assert visible(lake.uri) == []


def test_a_shard_dropped_while_it_is_captured_stays_dropped(lake: Lake, root: Path) -> None:
    unit = make_unit(root, "aa")
    lake.commit_rows(SHARDS, [shard_row("aa", "dropped")])
    assert lake.commit(SHARDS, [unit]) == []
    assert paths_on_disk(root) == set()


def test_dropping_makes_a_plan_in_work_stale(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def plan(handle: DeltaTable) -> list[Row]:
        seen.append(handle.version())
        if len(seen) == 1:
            Lake(lake.uri).commit_rows(SHARDS, [shard_row("aa", "dropped")])
        return [shard_row("bb", "planned")]

    lake.append("shards", plan, SHARDS.plan)
    assert len(seen) == 2


def test_drop_rows_deletes_by_predicate(lake: Lake) -> None:
    measure = {"layer": 0, "head": 0, "measure": "entropy", "value": 1.0, "corpora": "[]"}
    rows = [
        {**measure, "model": model, "n_sequences": 1, "n_tokens": 1, "generation": 1}
        for model in ("a", "b", "a")
    ]
    lake.append("measures", lambda _: rows, "measures")
    lake.drop_rows("measures", "model = 'a'")
    lake.drop_rows("measures", "model = 'a'")
    assert Snapshot.load(lake.uri).rows("measures")["model"].to_pylist() == ["b"]
