"""Many processes on one atlas: each shard once, none lost, and no reader sees a part of one."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from store import compaction
from store.errors import CommitError
from store.lake import SHARDS, Lake
from store.snapshot import Snapshot
from tests.faults.small_shards import content, make_unit, shard_of, torn
from tests.faults.writing_process import Written, commit_shards, warm_processes

N_WRITERS, N_EACH, N_CONTESTED = 16, 50, 10


def offers() -> list[list[int]]:
    """Ordinals that each process offers, in its own order: ten are offered by all of them."""
    own = N_EACH - N_CONTESTED
    shares = [
        [*range(N_CONTESTED), *range(N_CONTESTED + k * own, N_CONTESTED + (k + 1) * own)]
        for k in range(N_WRITERS)
    ]
    return [share if k % 2 else share[::-1] for k, share in enumerate(shares)]


def commit_from_many(uri: str, shares: list[list[int]], per_commit: int) -> list[Written]:
    """Let a process commit each share, while this one reads; gives what each has written."""
    context = warm_processes()
    written = context.Queue()
    writers = [
        context.Process(target=commit_shards, args=(uri, number, share, per_commit, written))
        for number, share in enumerate(shares, start=1)
    ]
    for writer in writers:
        writer.start()
    seen = [n_done(uri)]
    while any(writer.is_alive() for writer in writers):
        assert torn(uri) == []
        seen.append(n_done(uri))
        writers[len(seen) % len(writers)].join(0.2)
    assert seen == sorted(seen)
    assert len(set(seen)) > 3  # the reader looked while there was something to see
    return [written.get(timeout=60) for _ in writers]


def n_done(uri: str) -> int:
    newest = Snapshot.load(uri).newest_shards()
    return list(newest["status"].to_pylist()).count("done")


def check_each_once(uri: str, results: list[Written], ordinals: set[int]) -> None:
    assert [error for _, _, error in results if error] == []
    wrote = Counter(shard for _, shards, _ in results for shard in shards)
    assert wrote == {shard_of(ordinal): 1 for ordinal in ordinals}
    snapshot = Snapshot.load(uri)
    rows = Counter((row["shard_id"], row["status"]) for row in snapshot.rows("shards").to_pylist())
    assert rows == {(shard_of(ordinal), "done"): 1 for ordinal in ordinals}
    assert torn(uri) == []
    on_disk = {str(path) for path in Path(uri).rglob("s-*.parquet")}
    assert on_disk == {
        path
        for table in ("queries", "keys", "tokens", "sequences")
        for path in snapshot.files(table)["path"].to_pylist()
    }


@pytest.mark.slow
def test_sixteen_writers_commit_each_shard_once(tmp_path: Path) -> None:
    """Ninety commits of ten shards, each of five tables; losers' files are gone at the end."""
    uri = str(tmp_path / "atlas")
    Lake(uri).create()
    shares = offers()
    results = commit_from_many(uri, shares, per_commit=10)
    check_each_once(uri, results, {ordinal for share in shares for ordinal in share})


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_sixteen_writers_commit_shard_by_shard(tmp_path: Path) -> None:
    uri = str(tmp_path / "atlas")
    Lake(uri).create()
    shares = offers()
    results = commit_from_many(uri, shares, per_commit=1)
    check_each_once(uri, results, {ordinal for share in shares for ordinal in share})


def test_two_stale_compactions_double_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two have planned and written when a third one commits; both are refused, and tidy up."""
    uri = str(tmp_path / "atlas")
    Lake(uri).create()
    for ordinal in range(6):
        Lake(uri).commit(SHARDS, [make_unit(uri, ordinal, rejects=False)])
    expected = content(Snapshot.load(uri))
    original = compaction.commit_merged
    waiting: list[int] = []
    refused: list[str] = []

    def late(*arguments: Any, **named: Any) -> None:
        if len(waiting) < 2:
            waiting.append(1)
            try:
                compaction.compact(uri)
            except CommitError as error:
                refused.append(str(error))
        original(*arguments, **named)

    monkeypatch.setattr(compaction, "commit_merged", late)
    with pytest.raises(CommitError, match="merged files were not committed"):
        compaction.compact(uri)
    assert len(refused) == 1
    monkeypatch.undo()
    assert content(Snapshot.load(uri)) == expected
    assert torn(uri) == []
    compaction.compact(uri)
    snapshot = Snapshot.load(uri)
    assert content(snapshot) == expected
    assert len(snapshot.files("queries")) == 1
    merged = [path for path in Path(uri).rglob("c-*.parquet") if path.parts[-2] != "shards"]
    assert {str(path) for path in merged} == {
        path
        for table in ("queries", "keys", "tokens", "sequences")
        for path in snapshot.files(table)["path"].to_pylist()
    }
