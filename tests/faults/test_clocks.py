"""A clock that steps back by hours or years: what is newest and visible stays so, nothing goes."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from store import clock
from store.compaction import compact
from store.lake import SHARDS, Lake
from store.snapshot import Snapshot
from store.vacuum import vacuum
from tests.faults.small_shards import content, make_unit, shard_of, shard_row, torn

STEPS_BACK = (timedelta(hours=3), timedelta(days=400), timedelta(days=365 * 30))

Set = Callable[[datetime], None]


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Set:
    return lambda moment: monkeypatch.setattr(clock, "now", lambda: moment)


def test_the_clock_is_in_utc_and_aware() -> None:
    moment = clock.now()
    assert moment.tzinfo is UTC
    assert clock.milliseconds(datetime(1970, 1, 2, tzinfo=UTC)) == 86_400_000


def statuses(uri: str) -> dict[str, str]:
    rows = Snapshot.load(uri).newest_shards().to_pylist()
    return {row["shard_id"]: row["status"] for row in rows}


@pytest.mark.parametrize("back", STEPS_BACK, ids=str)
def test_newest_is_by_generation_whatever_the_clock_says(
    tmp_path: Path, set_clock: Set, back: timedelta
) -> None:
    """Between any two commits the clock steps back, and once it leaps ahead."""
    lake = Lake(str(tmp_path / "atlas"))
    lake.create()
    moment = datetime.now(UTC)
    for ordinal, status in enumerate(("planned", "quarantined", "planned")):
        moment -= back
        set_clock(moment)
        lake.commit_rows(SHARDS, [shard_row(0, status)])
        assert statuses(lake.uri) == {shard_of(0): status}, ordinal
    unit = make_unit(lake.uri, 0)
    set_clock(moment - back)
    assert lake.commit(SHARDS, [unit]) == [unit]
    assert lake.commit(SHARDS, [make_unit(lake.uri, 0, 2)]) == []
    assert torn(lake.uri) == []
    set_clock(moment + 9 * back)
    lake.commit_rows(SHARDS, [shard_row(0, "dropped")])
    set_clock(moment - back)
    assert Lake(lake.uri).commit(SHARDS, [make_unit(lake.uri, 0, 3)]) == []
    assert statuses(lake.uri) == {shard_of(0): "dropped"}
    assert len(Snapshot.load(lake.uri).files("queries")) == 0


@pytest.mark.parametrize("back", STEPS_BACK, ids=str)
def test_maintenance_after_a_step_back_takes_nothing_young(
    tmp_path: Path, set_clock: Set, back: timedelta
) -> None:
    """Files written before the step seem to come from the future: too young, never too old."""
    lake = Lake(str(tmp_path / "atlas"))
    lake.create()
    for ordinal in range(2):
        lake.commit(SHARDS, [make_unit(lake.uri, ordinal)])
    in_work = make_unit(lake.uri, 2)
    before = content(Snapshot.load(lake.uri))
    set_clock(datetime.now(UTC) - back)
    compact(lake.uri)
    done = vacuum(lake.uri)
    assert (done.deleted, done.unlisted) == ([], [])
    assert content(Snapshot.load(lake.uri)) == before
    assert lake.commit(SHARDS, [in_work]) == [in_work]
    assert torn(lake.uri) == []
