"""What nobody sees is deleted once it is a day old, and nothing else ever is."""

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from store import clock
from store.check import check
from store.compaction import compact
from store.errors import ConfigError
from store.lake import MAPS, SHARDS, Lake
from store.scan import read_files
from store.snapshot import Snapshot
from store.state import write_state
from store.upkeep import View
from store.vacuum import vacuum
from tests.faults.orphans import a_day_ahead, age_removals
from tests.store.lake_units import listed, paths_on_disk
from tests.store.small_shards import add_part, contents, make_lake, write_shard
from tests.store.test_compaction import drop, merge_all

DAY = timedelta(hours=25)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def age(root: Path, *names: str) -> None:
    """Make files a day old on the disk."""
    past = (datetime.now() - DAY).timestamp()
    for path in root.rglob("*"):
        if path.is_file() and any(name in path.name for name in names):
            os.utime(path, (past, past))


@pytest.fixture
def yesterday(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A clock that is a day behind, until it is undone."""
    real = clock.now
    monkeypatch.setattr(clock, "now", lambda: real() - DAY)
    return monkeypatch


def test_a_clock_that_was_ahead_is_not_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Merged files are as old as they are, and so is what they took the place of."""
    lake = make_lake(tmp_path, 2)
    real = clock.now
    with monkeypatch.context() as ahead:
        ahead.setattr(clock, "now", lambda: real() + timedelta(days=365))
        lake.commit(SHARDS, [write_shard(tmp_path, "ahead", [(9, 0, 1)])])
    compact(lake.uri)
    lake.commit(SHARDS, [write_shard(tmp_path, "late", [(12, 0, 1)])])
    compact(lake.uri)
    drop(lake, corpus="texts")
    age(tmp_path, ".parquet")
    monkeypatch.setattr("store.clock.now", a_day_ahead)
    vacuum(lake.uri)
    left = [path for table in ("queries", "keys", "tokens") for path in listed(lake.uri, table)]
    assert left == []
    logs = "".join(entry.read_text() for entry in tmp_path.glob("*/_delta_log/*.json"))
    removed = [int(moment) for moment in re.findall(r'"deletionTimestamp":(\d+)', logs)]
    assert len(removed) > 20
    assert max(removed) <= clock.milliseconds(clock.now())


def test_moments_of_removals_and_listings_are_bounded_by_the_disk() -> None:
    now = clock.milliseconds(clock.now())
    ahead, behind = now + 10**10, now - 10**10
    assert clock.removal_time(behind, ahead, now + 500) == pytest.approx(now + 500, abs=499)
    assert clock.removal_time(ahead, 0, now) == ahead
    assert clock.listing_time(ahead, behind) == pytest.approx(now, abs=10**5)
    assert clock.listing_time(ahead, now + 10**6) == now + 10**6


def test_what_a_killed_creation_left_is_deleted_when_it_is_old(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, 1)
    for name in ("_probe-0ld", "_probe-new", "mine"):
        log = tmp_path / name / "0" / "_delta_log"
        log.mkdir(parents=True)
        (log / f"{name}.json").write_text("{}")
    age(tmp_path, "_probe-0ld", "mine")
    wanted = ["_probe-0ld/0/_delta_log/_probe-0ld.json"]
    assert vacuum(lake.uri, dry_run=True).deleted == wanted
    done = vacuum(lake.uri)
    assert (done.deleted, done.n_bytes) == (wanted, 2)
    assert {path.stem for path in tmp_path.glob("*/0/_delta_log/*")} == {"_probe-new", "mine"}


def test_short_retention_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--retention is 23 hours, expected at least 24"):
        vacuum(str(tmp_path), timedelta(hours=23))


def test_fresh_files_stay_whatever_they_are(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, 2)
    write_shard(tmp_path, "running", [(8, 0, 1)])
    drop(lake, corpus="texts")
    before = paths_on_disk(tmp_path)
    done = vacuum(lake.uri)
    assert (done.unlisted, done.deleted, done.n_bytes) == ([], [], 0)
    assert paths_on_disk(tmp_path) == before


def test_merged_files_go_after_the_retention_and_readers_lose_nothing(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, 4)
    before = contents(lake.uri)
    compact(lake.uri)
    age(tmp_path, ".parquet")
    assert vacuum(lake.uri).deleted == []  # old files, but removed a moment ago
    age_removals(tmp_path)
    size = sum((tmp_path / p).stat().st_size for p in paths_on_disk(tmp_path) if "/s-" in p)
    would = vacuum(lake.uri, dry_run=True)
    assert contents(lake.uri) == before
    done = vacuum(lake.uri)
    assert sorted(done.deleted) == sorted(would.deleted)
    assert done.n_bytes == would.n_bytes > size / 2
    assert contents(lake.uri) == before
    assert {
        name.rpartition("/")[2][:2] for name in paths_on_disk(tmp_path) if "rej" not in name
    } == {"c-"}
    assert check(lake.uri).problems == []
    assert check(lake.uri).orphans == []


def test_half_a_shard_and_dropped_ones_leave_the_log_first(
    tmp_path: Path, yesterday: pytest.MonkeyPatch
) -> None:
    lake = make_lake(tmp_path, 2)
    half = write_shard(tmp_path, "half", [(5, 0, 1)])
    lake._commit_files(SHARDS, "queries", [half])
    lake.commit(SHARDS, [write_shard(tmp_path, "kept", [(7, 0, 1)], corpus="other")])
    add_part(tmp_path, "gone", 0)
    add_part(tmp_path, "kept", 0)
    compact(lake.uri)
    drop(lake, corpus="texts")
    rows = Snapshot.load(lake.uri).newest_maps().to_pylist()
    lake.commit_rows(MAPS, [r | {"status": "dropped"} for r in rows if r["map_id"] == "gone"])
    yesterday.undo()
    assert vacuum(lake.uri, dry_run=True).unlisted == []  # young by the clock of the disk
    age(tmp_path, ".parquet")
    assert not any("/c-" in path for path in vacuum(lake.uri, dry_run=True).unlisted)
    yesterday.setattr("store.clock.now", a_day_ahead)  # merged files were listed today
    before = contents(lake.uri)
    would = vacuum(lake.uri, dry_run=True)
    done = vacuum(lake.uri)
    assert sorted(done.unlisted) == sorted(would.unlisted)
    assert any("s-half-" in path for path in done.unlisted)
    assert any("/c-" in path for path in done.unlisted)
    assert any("m-gone-" in path for path in done.unlisted)
    assert contents(lake.uri) == before
    assert len(listed(lake.uri, "queries")) == 2
    assert (tmp_path / "queries" / half.files[0].path).exists()
    assert vacuum(lake.uri).unlisted == []


def test_shard_that_lost_its_old_half_can_be_captured_again(
    tmp_path: Path, yesterday: pytest.MonkeyPatch
) -> None:
    lake = make_lake(tmp_path, 1)
    lake._commit_files(SHARDS, "queries", [write_shard(tmp_path, "half", [(5, 0, 1)])])
    yesterday.undo()
    age(tmp_path, ".parquet")
    assert vacuum(lake.uri).unlisted
    assert Lake(lake.uri).commit(SHARDS, [write_shard(tmp_path, "half", [(5, 0, 1)], attempt=2)])
    assert check(lake.uri).problems == []


def test_orphans_and_states_that_no_row_names_are_deleted(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, 1)
    write_shard(tmp_path, "killed", [(8, 0, 1)])
    orphan = write_state(lake.uri, "never", {})
    kept = write_state(lake.uri, "aa", {})
    unit = add_part(tmp_path, "aa", 0, commit=False)
    row = {**unit.row, "parameters": f'{{"state": "{kept}"}}'}
    lake.commit(MAPS, [type(unit)(row, unit.files)])
    fresh = write_state(lake.uri, "running", {})
    age(tmp_path, "s-killed-", orphan, kept)
    before = contents(lake.uri)
    done = vacuum(lake.uri)
    assert f"_state/never/{orphan}" in done.deleted
    assert sum("s-killed-" in path for path in done.deleted) == 7
    assert len(done.deleted) == 8
    assert contents(lake.uri) == before
    assert (tmp_path / "_state" / "aa" / kept).exists()
    assert (tmp_path / "_state" / "running" / fresh).exists()


def test_compaction_that_was_killed_leaves_orphans_that_go(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, 3)
    before, on_disk = contents(lake.uri), paths_on_disk(tmp_path)
    merge_all(lake.uri, View.load(lake.uri, "queries"))  # and is killed before it commits
    assert contents(lake.uri) == before
    assert len(paths_on_disk(tmp_path) - on_disk) == 2
    age(tmp_path, "c-")
    assert len(check(lake.uri).orphans) == 2
    assert len(vacuum(lake.uri).deleted) == 2
    assert paths_on_disk(tmp_path) == on_disk
    assert contents(lake.uri) == before


def test_shard_of_a_driver_whose_clock_is_behind_is_left_while_it_is_committed(
    tmp_path: Path, yesterday: pytest.MonkeyPatch
) -> None:
    """Its files are a day old by the log, not by the disk, which has a clock of its own."""
    lake = make_lake(tmp_path, 1)
    unit = write_shard(tmp_path, "late", [(8, 0, 1)])
    for table in SHARDS.data_tables:
        lake._commit_files(SHARDS, table, [unit])
    yesterday.undo()
    assert vacuum(lake.uri).unlisted == []  # elsewhere, under a clock that is right
    lake.commit(SHARDS, [unit])
    assert check(lake.uri).problems == []
    assert len(contents(lake.uri)["queries"]) == 2 * 2 * 2 * 3


def test_what_was_merged_under_a_clock_that_was_behind_stays_for_its_readers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last commits before the merges came after the step too, and say nothing of the time."""
    lake = make_lake(tmp_path, 3)
    reader = Snapshot.load(lake.uri)
    real, real_removal = clock.now, clock.removal_time
    behind = timedelta(days=3)
    monkeypatch.setattr(clock, "now", lambda: real() - behind)
    monkeypatch.setattr(
        clock,
        "removal_time",
        lambda last, *more: real_removal(last - clock.milliseconds(EPOCH + behind), *more),
    )
    for number in range(2):  # the second lists hardly a file from before the step
        lake.commit(SHARDS, [write_shard(tmp_path, f"b{number}", [(20 + number, 0, 1)])])
        compact(lake.uri)
    later = contents(lake.uri)
    monkeypatch.undo()
    age(tmp_path, ".parquet")
    assert vacuum(lake.uri).deleted == []
    for table in ("queries", "keys", "tokens", "sequences"):
        assert len(read_files(table, reader.files(table)))
    assert contents(lake.uri) == later
