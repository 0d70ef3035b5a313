"""A reader sees what was there at one moment, whatever is dropped and taken out as it opens."""

import threading
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from store.compaction import compact
from store.lake import MAPS, SHARDS
from store.snapshot import LEDGERS, Snapshot, open_table
from store.vacuum import vacuum
from store.visibility import read_coverage
from tests.faults.orphans import a_day_ahead
from tests.store.small_shards import add_part, contents, make_lake, write_shard
from tests.store.test_compaction import drop


def between(monkeypatch: pytest.MonkeyPatch, act: Any) -> list[str]:
    """Act once, between a reader's ledgers and its tables; gives what it opens."""
    opened, turn = list[str](), threading.Lock()

    def open_and_act(uri: str, name: str) -> DeltaTable:
        with turn:
            is_first = name not in LEDGERS and not set(opened) - set(LEDGERS)
            opened.append(name)
            if is_first:
                with monkeypatch.context() as patched:  # what it opens itself does not wait for it
                    patched.setattr("store.snapshot.open_table", open_table)
                    act()
        return open_table(uri, name)

    monkeypatch.setattr("store.snapshot.open_table", open_and_act)
    return opened


def vacuum_later(uri: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Take out what does not count, as if all were written a day ago."""
    with monkeypatch.context() as patched:
        patched.setattr("store.clock.now", a_day_ahead)
        return len(vacuum(uri).unlisted)


@pytest.mark.parametrize("merged", [False, True])
def test_drop_and_vacuum_while_an_atlas_is_opened_show_no_shard_without_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merged: bool
) -> None:
    lake = make_lake(tmp_path, 3)
    lake.commit(SHARDS, [write_shard(tmp_path, "kept", [(9, 0, 1)], corpus="other")])
    if merged:
        compact(lake.uri)
    unlisted = list[int]()

    def act() -> None:
        drop(lake, corpus="texts")
        unlisted.append(vacuum_later(lake.uri, monkeypatch))

    between(monkeypatch, act)
    found = Snapshot.load(lake.uri)
    assert unlisted[0] > 4
    newest = found.newest_shards()
    status = dict(zip(newest["shard_id"].to_pylist(), newest["status"].to_pylist(), strict=True))
    assert status == {"a0": "dropped", "a1": "dropped", "a2": "dropped", "kept": "done"}
    assert sum(found.files("tokens")["n_rows"].to_pylist()) == 6


def test_map_that_is_dropped_and_taken_out_while_an_atlas_is_opened_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = make_lake(tmp_path, 1)
    add_part(tmp_path, "aa", 0)
    row = Snapshot.load(lake.uri).newest_maps().to_pylist()[0]

    def act() -> None:
        lake.commit_rows(MAPS, [row | {"status": "dropped"}])
        assert vacuum_later(lake.uri, monkeypatch)

    between(monkeypatch, act)
    found = Snapshot.load(lake.uri)
    assert found.newest_maps()["status"].to_pylist() == ["dropped"]


def test_capture_beside_a_reader_makes_it_open_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the ledger's new rows are looked at: runs commit all the time."""
    lake = make_lake(tmp_path, 2)
    before = contents(lake.uri)
    late = write_shard(tmp_path, "late", [(9, 0, 1)])
    opened = between(monkeypatch, lambda: lake.commit(SHARDS, [late]))
    found = Snapshot.load(lake.uri)
    assert found.newest_shards()["shard_id"].to_pylist() == ["a0", "a1"]
    assert (opened.count("queries"), opened.count("shards")) == (1, 2)
    assert found.files("tokens")["n_rows"].to_pylist() == [6, 6]
    assert len(before["tokens"]) == 12


def test_where_done_shards_lie_is_worked_out_once_a_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = make_lake(tmp_path, 3)
    compact(lake.uri)
    calls, real = list[int](), read_coverage

    def read(shards: Any) -> Any:
        calls.append(len(shards))
        return real(shards)

    monkeypatch.setattr("store.snapshot.read_coverage", read)
    monkeypatch.setattr("store.visibility.read_coverage", read)
    found = Snapshot.load(lake.uri)
    assert all(len(found.files(t)) for t in ("queries", "keys", "tokens", "sequences"))
    assert calls == [3]
