"""Whatever order commits, drops, merges and vacuums come in, readers see what a model says."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import duckdb
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store import clock
from store.check import check
from store.compaction import commit_merged, compact, plan_groups
from store.errors import CommitError
from store.lake import SHARDS, Lake
from store.merging import Group, merge
from store.scan import read_files
from store.schema import sequence_id
from store.snapshot import Snapshot
from store.upkeep import View
from store.vacuum import vacuum
from tests.faults.orphans import age_files, age_removals
from tests.store.small_shards import contents, describe, ledger_row, make_lake, write_shard

CORPORA = {"a": (0, 1, 2, 3), "b": (10, 11, 2**20)}
"""Files of each corpus."""

STEPS = st.one_of(
    st.tuples(
        st.just("commit"), st.sampled_from([(c, f) for c, own in CORPORA.items() for f in own])
    ),
    st.tuples(
        st.just("half"), st.sampled_from([(c, f) for c, own in CORPORA.items() for f in own])
    ),
    st.tuples(st.just("drop"), st.sampled_from(sorted(CORPORA))),
    st.tuples(st.just("compact"), st.sampled_from([1, 3_000, 10**9])),
    st.tuples(st.just("plan"), st.none()),
    st.tuples(st.just("finish"), st.none()),
    st.tuples(st.just("vacuum"), st.none()),
    st.tuples(st.just("days_pass"), st.none()),
)


@contextmanager
def days_later(days: int) -> Iterator[None]:
    """A clock that is some days ahead."""
    real = clock.now
    with patch.object(clock, "now", lambda: real() + timedelta(days=days)):
        yield


class Machine:
    """An atlas, and the captured file of each corpus that it should show."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lake = Lake(str(root))
        self.lake.create()
        describe(root)
        self.shown: dict[tuple[str, int], int] = {}  # seed of what was captured last
        self.plans: list[tuple[View, list[Group]]] = []
        self.count = 0
        self.held = Snapshot.load(self.lake.uri)
        """What a reader opened when days had passed for the last time."""
        self.seen = read_all(self.held)
        self.n_deleted = 0

    def commit(self, place: tuple[str, int], *, half: bool = False) -> None:
        """Capture a file that is not there, wholly or until the driver dies."""
        if place in self.shown:
            return
        self.count += 1
        corpus, file = place
        unit = write_shard(
            self.root, f"n{self.count}", [(file, 0, 1)], corpus=corpus, seed=self.count
        )
        if half:
            planned = ledger_row(f"n{self.count}", [(file, 0, 1)], corpus=corpus, status="planned")
            self.lake.commit_rows(SHARDS, [planned])
            self.lake._commit_files(SHARDS, "queries", [unit])
            return
        self.lake.commit(SHARDS, [unit])
        self.shown[place] = self.count

    def half(self, place: tuple[str, int]) -> None:
        """A driver dies behind the first table."""
        self.commit(place, half=True)

    def drop(self, corpus: str) -> None:
        """Hide a corpus."""
        rows = Snapshot.load(self.lake.uri).newest_shards().to_pylist()
        own = [r | {"status": "dropped"} for r in rows if r["corpus"] == corpus]
        self.lake.commit_rows(SHARDS, own)
        self.shown = {place: n for place, n in self.shown.items() if place[0] != corpus}

    def compact(self, target_bytes: int) -> None:
        """Merge what is smaller than a target."""
        compact(self.lake.uri, target_bytes, threads=1)

    def plan(self, _: None) -> None:
        """Begin a compaction that ends later, when others may have been faster."""
        view = View.load(self.lake.uri, "queries")
        if groups := plan_groups(view, 10**9):
            self.plans.append((view, groups))

    def finish(self, _: None) -> None:
        """End the oldest compaction that was begun; it may be refused."""
        if self.plans:
            view, groups = self.plans.pop(0)
            merged = [(g, merge(self.lake.uri, g, view.versions["shards"])) for g in groups]
            try:
                commit_merged(self.lake.uri, view.handle, merged)
            except CommitError as error:
                assert "run it again" in str(error)

    def vacuum(self, _: None) -> None:
        """Take out what does not count and is old for who asks, while all files are young."""
        with days_later(2):
            vacuum(self.lake.uri)

    def days_pass(self, _: None) -> None:
        """Vacuum when all that is there is old: now files are deleted.

        Who read, or merged, since before has held a version for longer than the retention.
        """
        self.plans.clear()
        age_files(self.lake.uri)
        age_removals(self.root)
        with days_later(2):
            self.n_deleted += len(vacuum(self.lake.uri).deleted)
        self.held = Snapshot.load(self.lake.uri)
        self.seen = read_all(self.held)

    def expected(self) -> list[tuple[int, int]]:
        """Sequence and position of every row of a head."""
        files = {file for _, file in self.shown}
        return sorted((sequence_id(f, row), at) for f in files for row in (0, 1) for at in range(3))

    def check(self) -> None:
        """Compare what a reader sees with the model."""
        found = contents(self.lake.uri, ("queries", "tokens"))
        for table, copies in (("queries", 2), ("tokens", 1)):
            places = sorted((row["sequence_id"], row["position"]) for row in found[table])
            assert places == sorted(self.expected() * copies), table
        texts = {row["sequence_id"] for row in found["tokens"]}
        assert texts == {place for place, _ in self.expected()}
        assert read_all(self.held) == self.seen


def read_all(reader: Snapshot) -> dict[str, list[int]]:
    """Sequences of every row that a reader's version shows, read from its files."""
    found = {}
    for table in ("queries", "keys", "tokens", "sequences"):
        files = reader.files(table)
        rows = read_files(table, files)["sequence_id"].to_pylist() if len(files) else []
        found[table] = sorted(rows)
    return found


@settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(STEPS, min_size=3, max_size=9))
def test_any_order_of_steps_shows_what_the_model_says(steps: list[tuple[str, object]]) -> None:
    run_steps(steps)


def test_files_are_deleted_and_readers_go_on() -> None:
    """The steps that the random orders seldom come to, one after the other."""
    texts = [("commit", ("a", 2)), ("half", ("b", 10)), ("compact", 10**9)]
    again = [("days_pass", None), ("drop", "a"), ("commit", ("a", 0)), ("compact", 10**9)]
    assert run_steps([*texts, *again, ("vacuum", None), ("days_pass", None)]) > 20


@pytest.mark.chaos
@pytest.mark.timeout(7_200)
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEPS, min_size=3, max_size=25))
def test_any_long_order_of_steps_shows_what_the_model_says(
    steps: list[tuple[str, object]],
) -> None:
    run_steps(steps)


def run_steps(steps: list[tuple[str, object]]) -> int:
    """Take steps from an atlas of two captured files on, and compare after each.

    Returns:
        How many files were deleted.
    """
    with TemporaryDirectory() as folder:
        machine = Machine(Path(folder))
        machine.commit(("a", 0))
        machine.commit(("a", 1))
        for name, argument in steps:
            getattr(machine, name)(argument)
            machine.check()
        report = check(machine.lake.uri, threads=1)
        assert report.problems == []
        return machine.n_deleted


def test_plain_duckdb_over_the_log_equals_the_atlas_after_compaction_and_vacuum(
    tmp_path: Path,
) -> None:
    lake = make_lake(tmp_path, 4)
    half = write_shard(tmp_path, "half", [(9, 0, 1)])
    lake._commit_files(SHARDS, "keys", [half])
    lake.commit(SHARDS, [write_shard(tmp_path, "gone", [(8, 0, 1)], corpus="gone")])
    row = next(
        r for r in Snapshot.load(lake.uri).newest_shards().to_pylist() if r["shard_id"] == "gone"
    )
    lake.commit_rows(SHARDS, [row | {"status": "dropped"}])
    with days_later(2):
        compact(lake.uri)
        vacuum(lake.uri)
    seen = contents(lake.uri)
    for table in ("queries", "keys", "tokens", "sequences"):
        uris = DeltaTable(str(tmp_path / table)).file_uris()
        query = "SELECT * FROM read_parquet($uris, hive_partitioning = true)"
        rows = duckdb.execute(query, {"uris": uris}).to_arrow_table()
        places = sorted(rows["sequence_id"].to_pylist())
        assert places == sorted(r["sequence_id"] for r in seen[table]), table
        if "vector" in rows.column_names:
            mine = sorted(map(repr, (r["vector"] for r in seen[table])))
            assert sorted(map(repr, rows["vector"].to_pylist())) == mine
