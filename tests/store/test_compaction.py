"""Merged files hold the same rows, no more and no fewer, whoever drops, captures or reads."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from store.atlas import Atlas
from store.compaction import commit_merged, compact, plan_groups
from store.encoding import rows_per_group
from store.errors import CommitError
from store.files import WrittenFile, delete_files
from store.lake import MAPS, SHARDS, Lake
from store.merging import Group, merge
from store.schema import sequence_id
from store.snapshot import Snapshot, open_table
from store.upkeep import View
from tests.store.lake_units import ledger_rows, listed, paths_on_disk
from tests.store.small_shards import (
    add_part,
    bits,
    contents,
    describe,
    ledger_row,
    make_lake,
    n_files,
    ordered,
    write_shard,
)

HEAD: dict[str, Any] = {"model": "tiny", "layer": 0, "head": 1}


def drop(lake: Lake, **where: str) -> None:
    """Hide all shards of a model or a corpus, as `qkatlas drop` does."""
    rows = Snapshot.load(lake.uri).newest_shards().to_pylist()
    chosen = [row for row in rows if all(row[name] == value for name, value in where.items())]
    lake.commit_rows(SHARDS, [row | {"status": "dropped", "reason": "test"} for row in chosen])


def merge_all(uri: str, view: View) -> list[tuple[Group, WrittenFile]]:
    """Outputs of all that a view of a table has to merge, uncommitted."""
    return [(g, merge(uri, g, view.versions["shards"])) for g in plan_groups(view, 9**9)]


def test_small_files_become_one_a_head_with_the_same_rows(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, 6)
    before, vectors = contents(lake.uri), ordered(lake.uri, "queries", **HEAD)
    done = {row.table: row for row in compact(lake.uri)}
    assert contents(lake.uri) == before
    after = ordered(lake.uri, "queries", **HEAD)
    assert after.equals(vectors)
    assert bits(after) == bits(vectors)
    assert {name: n_files(lake.uri, name) for name in ("queries", "keys", "tokens", "rejects")} == {
        "queries": 2,
        "keys": 2,
        "tokens": 1,
        "rejects": 6,
    }
    assert (done["queries"].n_before, done["queries"].n_after) == (12, 2)
    assert compact(lake.uri) == []


@pytest.mark.parametrize("d_head", [32, 128])
def test_row_groups_encoding_and_checksums_are_those_of_capture(
    tmp_path: Path, d_head: int
) -> None:
    lake = make_lake(tmp_path, 4, d_head=d_head, length=700)
    plain = ordered(lake.uri, "queries", **HEAD)
    compact(lake.uri)
    path = Snapshot.load(lake.uri).files("queries", **HEAD)["path"][0].as_py()
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        assert bits(file.read()) == bits(plain)
        groups = [file.metadata.row_group(n) for n in range(file.num_row_groups)]
        sizes = [group.num_rows for group in groups]
        assert max(sizes) <= max(rows_per_group(d_head), 700)
        assert all(size % 700 == 0 for size in sizes)
        assert len(sizes) == {32: 2, 128: 8}[d_head]
        for group in groups:
            vector = group.column(2)
            assert "BYTE_STREAM_SPLIT" in vector.encodings
            assert vector.compression == "ZSTD"
            assert not vector.is_stats_set
            assert group.column(0).is_stats_set
    damaged = bytearray(Path(path).read_bytes())
    damaged[groups[0].column(2).data_page_offset + 200] ^= 1
    Path(path).write_bytes(damaged)
    with (
        pq.ParquetFile(path, page_checksum_verification=True) as file,
        pytest.raises(OSError, match="CRC"),
    ):
        file.read()


def test_large_files_are_left_and_outputs_keep_to_the_target(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, 8, d_head=64, length=20)
    size = Snapshot.load(lake.uri).files("queries", **HEAD)["size"][0].as_py()
    lake.commit(SHARDS, [write_shard(tmp_path, "big", [(20, 0, 30)], d_head=64, length=20)])
    before = contents(lake.uri)
    compact(lake.uri, target_bytes=int(size * 4.5))
    files = Snapshot.load(lake.uri).files("queries", **HEAD)
    assert [path.rsplit("/", 1)[-1][:2] for path in files["path"].to_pylist()] == ["c-", "c-", "s-"]
    assert all(bytes_ <= size * 4.5 for bytes_ in files["size"].to_pylist()[:2])
    assert contents(lake.uri) == before


def test_corpora_are_never_merged_and_dropping_one_hides_its_files(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, 0)
    for number in range(6):
        corpus = "odd" if number % 2 else "even"
        lake.commit(SHARDS, [write_shard(tmp_path, f"x{number}", [(number, 0, 1)], corpus=corpus)])
    compact(lake.uri)
    assert n_files(lake.uri, "tokens") == 2
    drop(lake, corpus="odd")
    found = {row["sequence_id"] >> 32 for row in contents(lake.uri)["tokens"]}
    assert found == {0, 2, 4}


def test_shard_of_another_corpus_around_a_file_does_not_show_it(tmp_path: Path) -> None:
    """A shard over files 0 and 3 does not hold the rows of file 1, which was dropped."""
    lake = make_lake(tmp_path, 0)
    lake.commit(SHARDS, [write_shard(tmp_path, "wide", [(0, 0, 1), (3, 0, 1)], corpus="a")])
    for number in (1, 2):
        lake.commit(SHARDS, [write_shard(tmp_path, f"b{number}", [(number, 0, 1)], corpus="b")])
    compact(lake.uri)
    drop(lake, corpus="b")
    assert {row["sequence_id"] >> 32 for row in contents(lake.uri)["queries"]} == {0, 3}


def test_corpus_that_is_dropped_and_captured_again_is_there_once(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, 4)
    compact(lake.uri)
    drop(lake, corpus="texts")
    assert contents(lake.uri)["queries"] == []
    for number in range(4):
        lake.commit(SHARDS, [write_shard(tmp_path, f"again{number}", [(number, 0, 1)], seed=1)])
        assert len(contents(lake.uri)["sequences"]) == 2 * (number + 1)
    again = contents(lake.uri)
    compact(lake.uri)
    assert contents(lake.uri) == again


def test_only_done_shards_are_merged(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, 3)
    waiting = write_shard(tmp_path, "waiting", [(7, 0, 1)])
    lake.commit_rows(SHARDS, [ledger_row("waiting", [(7, 0, 1)], status="planned")])
    lake._commit_files(SHARDS, "queries", [waiting])
    before = contents(lake.uri)
    compact(lake.uri)
    assert contents(lake.uri) == before
    assert any("s-waiting-" in path for path in listed(lake.uri, "queries"))
    lake.commit(SHARDS, [waiting])
    assert len(contents(lake.uri)["queries"]) == len(before["queries"]) + 2 * 2 * 3


def test_files_that_lie_between_others_are_merged_in_order(tmp_path: Path) -> None:
    """File 0 grew after file 1 was captured with it in one shard."""
    lake = make_lake(tmp_path, 0)
    lake.commit(SHARDS, [write_shard(tmp_path, "first", [(0, 0, 4), (1, 0, 4)])])
    lake.commit(SHARDS, [write_shard(tmp_path, "grown", [(0, 5, 9)])])
    before = contents(lake.uri)
    compact(lake.uri)
    assert contents(lake.uri) == before
    rows = ordered(lake.uri, "queries", **HEAD)
    places = list(zip(rows["sequence_id"].to_pylist(), rows["position"].to_pylist(), strict=True))
    assert places == sorted(places)
    assert len(places) == 15 * 3


def test_second_of_two_stale_compactions_is_refused(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, 4)
    before = contents(lake.uri)
    views = [View.load(lake.uri, "queries") for _ in range(2)]
    plans = [merge_all(lake.uri, view) for view in views]
    commit_merged(lake.uri, views[0].handle, plans[0])
    on_disk = paths_on_disk(tmp_path)
    with pytest.raises(CommitError, match=r"merged files were not committed .*run it again"):
        commit_merged(lake.uri, views[1].handle, plans[1])
    assert contents(lake.uri) == before
    assert on_disk - paths_on_disk(tmp_path) == {f"queries/{file.path}" for _, file in plans[1]}


def test_output_that_is_not_what_was_merged_is_not_committed(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, 3)
    view = View.load(lake.uri, "queries")
    merged = merge_all(lake.uri, view)
    target = tmp_path / "queries" / merged[0][1].path
    target.write_bytes(target.read_bytes()[:-20])
    with pytest.raises(CommitError, match="bytes on the lake, expected"):
        commit_merged(lake.uri, view.handle, merged)
    assert open_table(lake.uri, "queries").version() == view.handle.version()
    delete_files(lake.uri, [file for _, file in merged])


def test_commits_after_the_plan_stay_beside_a_compaction(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, 3)
    view = View.load(lake.uri, "queries")
    merged = [
        (group, merge(lake.uri, group, view.versions["shards"]))
        for group in plan_groups(view, 9**9)
    ]
    lake.commit(SHARDS, [write_shard(tmp_path, "later", [(9, 0, 1)])])
    before = contents(lake.uri)
    commit_merged(lake.uri, view.handle, merged)
    assert contents(lake.uri) == before


def test_corpus_dropped_while_it_is_merged_stays_hidden(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, 3)
    view = View.load(lake.uri, "queries")
    merged = [
        (group, merge(lake.uri, group, view.versions["shards"]))
        for group in plan_groups(view, 9**9)
    ]
    drop(lake, corpus="texts")
    commit_merged(lake.uri, view.handle, merged)
    assert contents(lake.uri)["queries"] == []
    lake.commit(SHARDS, [write_shard(tmp_path, "again", [(0, 0, 1)])])
    assert len(contents(lake.uri)["queries"]) == 2 * 2 * 3


def test_damaged_input_is_left_and_named_while_others_are_merged(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, 3)
    path = Path(Snapshot.load(lake.uri).files("queries", **HEAD)["path"][1].as_py())
    path.write_bytes(path.read_bytes()[:50])
    done = {row.table: row for row in compact(lake.uri)}
    assert [path.name in line for line in done["queries"].failures] == [True]
    assert n_files(lake.uri, "queries") == 2 + 1
    assert n_files(lake.uri, "keys") == 2


def test_ledgers_and_rows_keep_every_row(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, 5)
    describe(tmp_path, "other")
    before = {
        t: sorted(Snapshot.load(lake.uri).rows(t).to_pylist(), key=repr)
        for t in ("shards", "models", "heads", "files", "maps", "measures")
    }
    compact(lake.uri)
    snapshot = Snapshot.load(lake.uri)
    for table, rows in before.items():
        assert sorted(snapshot.rows(table).to_pylist(), key=repr) == rows
        assert len(listed(lake.uri, table)) <= 1
    unit = write_shard(tmp_path, "a0", [(0, 0, 1)], attempt=2)
    assert lake.commit(SHARDS, [unit]) == []  # the writer's own copy of the ledger stays right
    assert lake.commit(SHARDS, [write_shard(tmp_path, "new", [(30, 0, 1)])])
    assert [status for _, status in ledger_rows(lake.uri, "a0")] == ["done"]


def test_rows_deleted_in_between_do_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = make_lake(tmp_path, 0)
    describe(tmp_path, "other")
    calls = list[str]()

    def drop_first(*arguments: Any) -> Any:
        merged = merge(*arguments)
        if arguments[1].table == "models" and not calls:
            calls.append("models")
            Lake(lake.uri).drop_rows("models", "model = 'other'")
        return merged

    monkeypatch.setattr("store.compaction.merge", drop_first)
    compact(lake.uri)
    assert calls
    assert [row["model"] for row in Snapshot.load(lake.uri).rows("models").to_pylist()] == ["tiny"]


def test_parts_of_a_map_are_merged_by_rank_and_later_ones_work(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, 1)
    for part in (0, 1, 2):
        add_part(tmp_path, "aa", part)
    add_part(tmp_path, "bb", 0)
    add_part(tmp_path, "bad", 0, status="failed")
    with Atlas(lake.uri) as atlas:
        whole, some = atlas.points("aa"), atlas.points("aa", max_points=12)
        compact(lake.uri)
        assert n_files(lake.uri, "points") == 2
        atlas.refresh()
        assert atlas.points("aa").equals(whole)
        assert atlas.points("aa", max_points=12).equals(some)
        ranks = ordered(lake.uri, "points")["rank"].to_numpy()[:60]
        assert np.all(np.diff(ranks) >= 0)
        add_part(tmp_path, "aa", 3)
        atlas.refresh()
        assert len(atlas.points("aa")) == 80
        compact(lake.uri)
        atlas.refresh()
        assert len(atlas.points("aa")) == 80
        row = Snapshot.load(lake.uri).newest_maps().to_pylist()
        dropped = [r | {"status": "dropped"} for r in row if r["map_id"] == "aa"]
        lake.commit_rows(MAPS, dropped)
        assert set(contents(lake.uri)["points"][0].values()) & {"aa"} == set()
        assert len(contents(lake.uri)["points"]) == 20


def test_reader_of_an_older_version_reads_on(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, 4)
    old = Snapshot.load(lake.uri)
    paths = old.files("queries")["path"].to_pylist()
    compact(lake.uri)
    assert sum(len(pq.read_table(path)) for path in paths) == 4 * 2 * 2 * 3
    assert old.files("queries")["path"].to_pylist() == paths


def test_reader_whose_ledger_is_older_than_a_compaction_reads_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would see a merged file whose first shard its ledger does not know as done."""
    lake = make_lake(tmp_path, 0)
    for number in (1, 2):
        lake.commit(SHARDS, [write_shard(tmp_path, f"a{number}", [(number, 0, 1)])])
    opened, late, turn = list[str](), list[bool](), threading.Lock()

    def open_later(uri: str, name: str) -> DeltaTable:
        with turn:
            if opened.count("maps") == 1 and not late:
                late.append(True)
                lake.commit(SHARDS, [write_shard(tmp_path, "a0", [(0, 0, 1)])])
                compact(uri)
            opened.append(name)
        return open_table(uri, name)

    monkeypatch.setattr("store.snapshot.open_table", open_later)
    found = Snapshot.load(lake.uri)
    assert late
    assert sum(found.files("queries", **HEAD)["n_rows"].to_pylist()) == 3 * 2 * 3
    assert opened.count("shards") > 1


def test_extract_compaction_and_readers_run_beside_each_other(tmp_path: Path) -> None:
    """Readers see each row once, and of each shard all tables or none, at every moment."""
    lake = make_lake(tmp_path, 2)
    ended, problems, n_seen = threading.Event(), list[str](), list[int]()

    def extract() -> None:
        writer = Lake(lake.uri)
        for number in range(2, 14):
            writer.commit(SHARDS, [write_shard(tmp_path, f"a{number}", [(number, 0, 1)])])
        ended.set()

    def read() -> None:
        while not ended.is_set() or not n_seen:
            snapshot = Snapshot.load(lake.uri)
            done = set(snapshot.newest_shards()["first_ordinal"].to_pylist())
            expected = sorted(sequence_id(n, row) for n in done for row in (0, 1) for _ in range(3))
            for table, where in (("queries", HEAD), ("tokens", {})):
                paths = snapshot.files(table, **where)["path"].to_pylist()
                ids = [i for p in paths for i in pq.read_table(p)["sequence_id"].to_pylist()]
                if sorted(ids) != expected:
                    problems.append(f"{table}: {len(ids)} rows, {len(expected)} expected")
            n_seen.append(len(done))

    threads = [threading.Thread(target=work) for work in (extract, read)]
    for thread in threads:
        thread.start()
    n_compactions = 0
    while not ended.is_set():
        n_compactions += bool(compact(lake.uri, threads=1))
    for thread in threads:
        thread.join()
    assert problems == []
    assert n_compactions > 1
    assert len(set(n_seen)) > 2
    compact(lake.uri)
    assert n_files(lake.uri, "queries") == 2
    assert len(set(ordered(lake.uri, "sequences")["sequence_id"].to_pylist())) == 28
