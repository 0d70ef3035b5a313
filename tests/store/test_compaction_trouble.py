"""What becomes of merged files when a commit's fate is unknown, files are many, old or damaged."""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from store import compaction
from store.check import check
from store.compaction import compact, plan_groups
from store.errors import AtlasFormatError, CommitError, OpenFilesError
from store.lake import SHARDS, Lake
from store.merging import Group, _runs, merge
from store.scan import read_files
from store.schema import FORMAT_PROPERTY, TABLES
from store.snapshot import Snapshot, open_table
from store.upkeep import View, commit
from tests.store.small_shards import (
    add_part,
    contents,
    describe,
    make_lake,
    n_files,
    ordered,
    write_shard,
)
from tests.store.test_compaction import HEAD, merge_all


def test_commit_that_arrives_after_it_was_given_up_finds_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A put that timed out may still be on its way to a store: its outputs are not deleted."""
    lake = make_lake(tmp_path, 3)
    before = contents(lake.uri)
    held: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def time_out(*arguments: Any, **options: Any) -> None:
        if arguments[1] != "queries":
            return commit(*arguments, **options)
        held.append((arguments, options))
        raise OSError("operation timed out")

    monkeypatch.setattr(compaction, "commit", time_out)
    monkeypatch.setattr(compaction, "is_remote", lambda uri: True)
    with pytest.raises(CommitError, match=r"queries: whether merged files .* is not known"):
        compact(lake.uri)
    assert contents(lake.uri) == before
    commit(*held[0][0], **held[0][1])
    assert contents(lake.uri) == before
    assert n_files(lake.uri, "queries") == 2
    assert check(lake.uri).problems == []


def test_commit_whose_answer_was_lost_counts_and_keeps_what_was_merged_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its outputs are merged by somebody else before it looks; older readers still read them."""
    lake = make_lake(tmp_path, 3)
    before = contents(lake.uri)
    view = View.load(lake.uri, "queries")
    merged = merge_all(lake.uri, view)

    def lose_answer(*arguments: Any, **options: Any) -> None:
        commit(*arguments, **options)
        monkeypatch.undo()
        lake.commit(SHARDS, [write_shard(tmp_path, "more", [(9, 0, 1)])])
        compact(lake.uri)
        raise OSError("connection reset")

    monkeypatch.setattr(compaction, "commit", lose_answer)
    compaction.commit_merged(lake.uri, view.handle, merged)
    assert all((tmp_path / "queries" / file.path).exists() for _, file in merged)
    assert len(contents(lake.uri)["queries"]) == len(before["queries"]) + 2 * 2 * 3


@pytest.mark.parametrize("table", ["queries", "heads"])
def test_commit_that_a_full_disk_refuses_leaves_no_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    lake = make_lake(tmp_path, 3)
    describe(tmp_path, "other")
    before, calls = contents(lake.uri), list[str]()

    def fill(*arguments: Any, **options: Any) -> None:
        if arguments[1] != table:
            return commit(*arguments, **options)
        calls.append(table)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(compaction, "commit", fill)
    with pytest.raises(CommitError, match=rf"{table}: .*No space left on device.*check the disk"):
        compact(lake.uri)
    assert len(calls) == 1
    assert list((tmp_path / table).rglob("c-*.parquet")) == []
    monkeypatch.undo()
    assert contents(lake.uri) == before
    compact(lake.uri)
    assert contents(lake.uri) == before


def test_tables_that_rows_were_deleted_from_are_merged_on(tmp_path: Path) -> None:
    """delta-rs writes what is left of a file with other types of text."""
    lake = make_lake(tmp_path, 1)
    describe(tmp_path, "other")
    compact(lake.uri)
    for table in ("models", "heads", "measures"):
        lake.drop_rows(table, "model IN ('other')")
    describe(tmp_path, "third")
    before = {table: Snapshot.load(lake.uri).rows(table) for table in ("models", "heads")}
    assert [row.failures for row in compact(lake.uri)] == [[], []]
    after = Snapshot.load(lake.uri)
    for table, rows in before.items():
        assert sorted(after.rows(table).to_pylist(), key=repr) == sorted(rows.to_pylist(), key=repr)
        assert len(open_table(lake.uri, table).file_uris()) == 1
    assert set(after.rows("heads")["model"].to_pylist()) == {"tiny", "third"}
    assert check(lake.uri).problems == []


def test_file_of_other_columns_is_not_merged(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, 3)
    path = Path(open_table(lake.uri, "models").file_uris()[0].removeprefix("file://"))
    rows = pq.read_table(path)
    describe(tmp_path, "other")
    pq.write_table(rows.rename_columns(["renamed", *rows.column_names[1:]]), path)
    (done,) = [row for row in compact(lake.uri) if row.table == "models"]
    assert [path.name in line for line in done.failures] == [True]


def test_damaged_file_of_rows_leaves_only_itself_unmerged(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, 1)
    for model in ("b", "c", "d"):
        describe(tmp_path, model)
    path = Path(open_table(lake.uri, "heads").file_uris()[1].removeprefix("file://"))
    whole = path.read_bytes()
    before = sorted(Snapshot.load(lake.uri).rows("heads").to_pylist(), key=repr)
    path.write_bytes(whole[:50])
    (done,) = [row for row in compact(lake.uri) if row.table == "heads"]
    assert [path.name in line for line in done.failures] == [True]
    assert (done.n_before, done.n_after) == (3, 1)
    assert len(open_table(lake.uri, "heads").file_uris()) == 2
    path.write_bytes(whole)
    assert sorted(Snapshot.load(lake.uri).rows("heads").to_pylist(), key=repr) == before


def nightly(root: Path, n_days: int) -> Lake:
    """Two files that grow by a row a night, both in one shard."""
    lake = Lake(str(root))
    lake.create()
    describe(root)
    days = range(n_days)
    units = [write_shard(root, f"d{day}", [(0, day, day), (1, day, day)]) for day in days]
    lake.commit(SHARDS, units)
    return lake


@contextmanager
def few_open_files(n: int) -> Iterator[None]:
    """A process that may open so many files more: the limit is on their numbers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = {int(name) for name in os.listdir("/proc/self/fd")}
    free = (number for number in count() if number not in taken)
    limit = next(islice(free, n, None)) if n else 0  # 0: also where others close some meanwhile
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_nights_than_files_may_be_open_are_merged_in_rounds(tmp_path: Path) -> None:
    lake = nightly(tmp_path, 150)
    before = contents(lake.uri)
    with few_open_files(100):
        compact(lake.uri, threads=1)
    assert contents(lake.uri) == before
    assert {n_files(lake.uri, table) for table in ("tokens", "sequences")} == {1}
    places = ordered(lake.uri, "queries", **HEAD).select(["sequence_id", "position"]).to_pylist()
    assert places == sorted(places, key=lambda row: (row["sequence_id"], row["position"]))
    assert compact(lake.uri) == []


def test_too_many_open_files_are_no_damage(tmp_path: Path) -> None:
    lake = nightly(tmp_path, 60)
    group = plan_groups(View.load(lake.uri, "tokens"), 10**9)[0]
    files = Snapshot.load(lake.uri).files("tokens")
    with few_open_files(20), pytest.raises(OpenFilesError, match=r"no more files .*ulimit -n"):
        merge(lake.uri, group, 1)
    with few_open_files(0):
        with pytest.raises(OpenFilesError, match=r"no more files .*ulimit -n"):
            open_table(lake.uri, "tokens")
        with pytest.raises(OpenFilesError, match=r"no more files .*ulimit -n"):
            read_files("tokens", files)


def test_too_many_open_files_at_an_output_are_said_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = make_lake(tmp_path, 2)
    group = plan_groups(View.load(lake.uri, "tokens"), 10**9)[0]

    def refuse(*arguments: Any) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), "c-1.parquet")

    monkeypatch.setattr("store.merging.write_whole", refuse)
    with pytest.raises(OpenFilesError, match=r"no more files .*ulimit -n"):
        merge(lake.uri, group, 1)


def test_rows_that_are_held_at_once_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of files in between each other and of points; files one behind the other are only copied."""
    monkeypatch.setattr(compaction, "MOST_ROWS", 60)
    lake = nightly(tmp_path / "mixed", 20)  # of 6 tokens a night
    groups = plan_groups(View.load(lake.uri, "tokens"), 10**9)
    assert [(group.n_rows, group.is_cut) for group in groups] == [(60, True), (60, False)]
    before = contents(lake.uri)
    compact(lake.uri)
    assert contents(lake.uri) == before
    behind = make_lake(tmp_path / "behind", 20)
    for part in range(7):
        add_part(tmp_path / "behind", "aa", part)
    (group,) = plan_groups(View.load(behind.uri, "tokens"), 10**9)
    assert group.n_rows == 120
    groups = plan_groups(View.load(behind.uri, "points"), 10**9)
    assert [group.n_rows for group in groups] == [60, 60]  # and one of 20 alone


def test_order_of_a_merge_is_worked_out_by_sequences_not_rows(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.create()
    for night in range(2):
        parts = [(0, 5 * night, 5 * night + 4), (1, 5 * night, 5 * night + 4)]
        lake.commit(SHARDS, [write_shard(tmp_path, f"d{night}", parts, length=5_000)])
    (group,) = plan_groups(View.load(lake.uri, "tokens"), 10**9)
    system, paths = _local(tmp_path, group)
    runs = _runs(group, paths, system)
    assert runs == [(0, 25_000), (1, 25_000), (0, 25_000), (1, 25_000)]
    ids = ordered(lake.uri, "tokens")["sequence_id"].to_numpy()
    merge_of = merge(lake.uri, group, 1)
    assert merge_of.n_rows == len(ids) == 100_000
    assert np.unique(ids).size == 20


def _local(root: Path, group: Group) -> tuple[pafs.FileSystem, list[str]]:
    return pafs.LocalFileSystem(), [str(root / group.table / file.path) for file in group.files]


def test_damaged_file_leaves_only_itself_unmerged(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, 12)
    path = Path(Snapshot.load(lake.uri).files("queries", **HEAD)["path"][5].as_py())
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 3] ^= 255
    path.write_bytes(damaged)
    done = {row.table: row for row in compact(lake.uri)}
    assert [path.name in line for line in done["queries"].failures] == [True]
    assert (done["queries"].n_before, done["queries"].n_after) == (23, 2)
    left = Snapshot.load(lake.uri).files("queries", **HEAD)["path"].to_pylist()
    assert str(path) in left
    assert len(left) == 2
    (again,) = compact(lake.uri)
    assert (again.table, again.n_before, again.n_after) == ("queries", 0, 0)
    assert [path.name in line for line in again.failures] == [True]


def set_format(uri: str, number: str) -> None:
    """Make all tables of a format."""
    for name in TABLES:
        handle = open_table(uri, name)
        handle.alter.set_table_properties({FORMAT_PROPERTY: number}, raise_if_not_exists=False)


def test_merged_files_are_not_shown_to_programs_that_do_not_know_them(tmp_path: Path) -> None:
    """Tables of format 1 are read and written as they are, until the first merge into them."""
    lake = make_lake(tmp_path, 2)
    set_format(lake.uri, "1")
    lake.commit(SHARDS, [write_shard(tmp_path, "more", [(9, 0, 1)])])
    before = contents(lake.uri)

    def formats() -> dict[str, str]:
        names = ("queries", "keys", "tokens", "sequences", "points")
        tables = {name: open_table(lake.uri, name) for name in names}
        return {n: t.metadata().configuration[FORMAT_PROPERTY] for n, t in tables.items()}

    assert set(formats().values()) == {"1"}
    compact(lake.uri)
    assert formats() == {
        **dict.fromkeys(("queries", "keys", "tokens", "sequences"), "2"),
        "points": "1",
    }
    assert contents(lake.uri) == before
    assert n_files(lake.uri, "tokens") == 1
    entries = sorted((tmp_path / "tokens" / "_delta_log").glob("*.json"))
    raised = next(n for n, e in enumerate(entries) if '"qkatlas.format":"2"' in e.read_text() and n)
    merged = next(n for n, e in enumerate(entries) if "/c-" in e.read_text())
    assert raised < merged
    assert check(lake.uri).problems == []


def test_merged_files_in_tables_of_format_1_raise_it_though_nothing_is_to_merge(
    tmp_path: Path,
) -> None:
    lake = make_lake(tmp_path, 2)
    compact(lake.uri)
    set_format(lake.uri, "1")
    before = contents(lake.uri)
    assert compact(lake.uri) == []
    found = {
        name: open_table(lake.uri, name).metadata().configuration[FORMAT_PROPERTY]
        for name in ("queries", "keys", "tokens", "sequences", "rejects", "points")
    }
    merged = dict.fromkeys(("queries", "keys", "tokens", "sequences"), "2")
    assert found == {**merged, "rejects": "1", "points": "1"}
    assert contents(lake.uri) == before


def test_old_program_refuses_an_atlas_with_merged_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = make_lake(tmp_path, 2)
    set_format(lake.uri, "1")
    monkeypatch.setattr("store.snapshot.FORMAT", 1)
    Snapshot.load(lake.uri)
    monkeypatch.undo()
    compact(lake.uri)
    monkeypatch.setattr("store.snapshot.FORMAT", 1)
    with pytest.raises(AtlasFormatError, match=r"has format 2, .* up to 1: upgrade QK Atlas"):
        Snapshot.load(lake.uri)
