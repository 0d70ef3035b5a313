"""Commits that fail, race or die: each unit once, nothing half visible, nothing lost."""

import errno
import threading
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from hypothesis import given, settings
from hypothesis import strategies as st

import store.lake
from store.errors import AtlasNotFoundError, CommitError
from store.lake import SHARDS, Lake, Row, Unit, next_version
from store.snapshot import Snapshot
from tests.store.lake_steps import Stepper, crash_at, stop_between_steps
from tests.store.lake_units import (
    ledger_rows,
    listed,
    make_unit,
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


def test_after_five_failures_the_message_says_what_to_do(
    lake: Lake, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def refuse(*_: object, **__: object) -> None:
        calls.append(1)
        raise CommitFailedError("somebody was faster")

    monkeypatch.setattr("store.lake.write_deltalake", refuse)
    unit = make_unit(root, "aa")
    with pytest.raises(CommitError, match=r"after 5 attempts \(somebody.*run the same command"):
        lake.commit(SHARDS, [unit])
    assert len(calls) == 5
    assert visible(lake.uri) == []
    monkeypatch.undo()
    assert lake.commit(SHARDS, [unit]) == [unit]
    assert visible(lake.uri) == [0, 1, 2]


@pytest.mark.parametrize("step", range(4))
def test_a_full_disk_leaves_nothing_half_visible(
    lake: Lake, root: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    unit = make_unit(root, "aa")
    with monkeypatch.context() as patch:
        crash_at(patch, step, lambda: OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(CommitError, match=r"No space left on device.*check the disk"):
            lake.commit(SHARDS, [unit])
    assert visible(lake.uri) == []
    assert paths_on_disk(root) == {f"{file.table}/{file.path}" for file in unit.files}
    assert Lake(lake.uri).commit(SHARDS, [unit]) == [unit]
    assert visible(lake.uri, "keys") == [0, 1, 2]


def test_a_missing_atlas_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AtlasNotFoundError, match="no atlas at"):
        Lake(str(tmp_path)).append("files", lambda _: [], "files")


def commit_then_fail(monkeypatch: pytest.MonkeyPatch, name: str, owner: Any) -> None:
    """The first commit goes through and reports an error, as a cut connection does."""
    original = getattr(owner, name)
    cut: list[bool] = []

    def call(*arguments: Any, **named: Any) -> None:
        original(*arguments, **named)
        if not cut:
            cut.append(True)
            raise CommitFailedError("connection closed before message completed")

    monkeypatch.setattr(owner, name, call)


def test_append_is_once_where_a_commit_reported_an_error(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_then_fail(monkeypatch, "write_deltalake", store.lake)
    made = []

    def make_rows(handle: DeltaTable) -> list[Row]:
        made.append(next_version(handle, "plan"))
        return [shard_row("aa", "planned", generation=made[-1])]

    assert lake.append("shards", make_rows, "plan") == 1
    assert len(made) == 1
    assert len(ledger_rows(lake.uri, "aa")) == 1


def test_ledger_rows_are_once_where_a_commit_reported_an_error(
    lake: Lake, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = make_unit(root, "aa")
    commit_then_fail(monkeypatch, "write_deltalake", store.lake)
    assert lake.commit(SHARDS, [unit]) == [unit]
    assert ledger_rows(lake.uri, "aa") == [(1, "done")]


def test_files_are_once_where_a_commit_reported_an_error(
    lake: Lake, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = make_unit(root, "aa")
    commit_then_fail(monkeypatch, "create_write_transaction", DeltaTable)
    assert lake.commit(SHARDS, [unit]) == [unit]
    assert visible(lake.uri) == [0, 1, 2]
    assert paths_on_disk(root) == {f"{file.table}/{file.path}" for file in unit.files}


def test_appends_of_one_app_take_turns(lake: Lake) -> None:
    """Each append counts what is there; a lost or doubled one would leave a gap or a pair."""
    n_threads, n_each = 4, 5
    failures: list[BaseException] = []

    def append() -> None:
        own = Lake(lake.uri)
        for _ in range(n_each):
            try:
                own.append("rejects", number_reject, "count")
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=append) for _ in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = sorted(Snapshot.load(lake.uri).rows("rejects")["row"].to_pylist())
    assert rows == list(range(n_threads * n_each - len(failures)))
    assert all(isinstance(error, CommitError) for error in failures)


def number_reject(handle: DeltaTable) -> list[Row]:
    n = len(handle.to_pyarrow_table())
    return [{"shard_id": "a", "corpus": "c", "source": "s", "row": n, "reason": "r"}]


def test_threads_that_commit_the_same_units_double_nothing(lake: Lake, root: Path) -> None:
    attempts = [
        [make_unit(root, name, attempt, first) for name, first in (("aa", 0), ("bb", 10))]
        for attempt in range(4)
    ]
    written: list[Unit] = []

    def commit(units: list[Unit]) -> None:
        own = Lake(lake.uri)
        for unit in units:
            written.extend(own.commit(SHARDS, [unit]))

    threads = [threading.Thread(target=commit, args=(units,)) for units in attempts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(unit.row["shard_id"] for unit in written) == {"aa": 1, "bb": 1}
    assert visible(lake.uri) == [0, 1, 2, 10, 11, 12]
    names = {path for t in ("queries", "keys", "rejects") for path in listed(lake.uri, t)}
    assert paths_on_disk(root) == names


TURNS = st.lists(
    st.tuples(st.sampled_from(["one", "two"]), st.sampled_from([False] * 12 + [True])), max_size=60
)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(turns=TURNS, together=st.booleans())
def test_any_interleaving_with_crashes_gives_each_row_once(
    tmp_path_factory: pytest.TempPathFactory, turns: list[tuple[str, bool]], together: bool
) -> None:
    root = tmp_path_factory.mktemp("lake")
    Lake(str(root)).create()
    units = {
        name: [make_unit(root, s, attempt, 10 * i) for i, s in enumerate(("aa", "bb"))]
        for attempt, name in enumerate(("one", "two"))
    }

    def drive(own: list[Unit]) -> None:
        lake = Lake(str(root))
        for group in [own] if together else [[unit] for unit in own]:
            lake.commit(SHARDS, group)

    with pytest.MonkeyPatch.context() as patch:
        stepper = Stepper()
        stop_between_steps(patch, stepper)
        stepper.run({name: partial(drive, own) for name, own in units.items()}, turns)
    seen = visible(str(root))
    assert set(Counter(seen).values()) <= {1}
    Lake(str(root)).commit(
        SHARDS, [make_unit(root, s, 9, 10 * i) for i, s in enumerate(("aa", "bb"))]
    )
    for table in ("queries", "keys", "rejects"):
        assert visible(str(root), table) == [0, 1, 2, 10, 11, 12]
    for shard_id in ("aa", "bb"):
        assert [status for _, status in ledger_rows(str(root), shard_id)] == ["done"]
    for table in ("queries", "keys", "rejects"):
        assert set(listed(str(root), table)) <= paths_on_disk(root)
