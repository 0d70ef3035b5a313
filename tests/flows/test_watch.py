import io
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flows.config import RunConfig
from flows.quantities import format_seconds
from flows.watch import Contents, Look, Part, Trouble, Watch, read_contents
from flows.watch_view import describe_look, draw_look, watch_atlas
from flows.work import find_work
from flows.worker import CaptureWorker
from store.errors import AtlasNotFoundError
from store.lake import MAPS, SHARDS, Lake
from store.snapshot import Snapshot
from tests.flows.tiny_run import capture_here, make_run, plan_here, run_here, save_model

N_HEADS = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, model: Path) -> RunConfig:
    """A finished run with two rows that cannot be read; only looked at."""
    folder = tmp_path_factory.mktemp("done")
    config = make_run(folder, model, capture={"max_length": 32, "shard_rows": 10})
    with (folder / "corpus.txt").open("ab") as file:
        file.write(b"\xff broken\n\xff broken\n")
    run_here(config)
    return config


@pytest.fixture
def planned(tmp_path: Path, model: Path) -> tuple[RunConfig, CaptureWorker]:
    """An atlas of four planned shards, with nothing captured."""
    config = make_run(tmp_path, model, capture={"max_length": 32, "shard_rows": 10})
    worker = CaptureWorker(config, "text", 1, False)
    plan_here(config, worker)
    return config, worker


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def shards(config: RunConfig) -> list[dict[str, Any]]:
    return list(Snapshot.load(config.atlas).newest_shards().to_pylist())


def quarantine(config: RunConfig, reasons: list[str]) -> None:
    waiting = [row for row in shards(config) if row["status"] == "planned"]
    lost = [
        row | {"status": "quarantined", "reason": reason}
        for row, reason in zip(waiting, reasons, strict=False)
    ]
    assert len(lost) == len(reasons)
    Lake(config.atlas).commit_rows(SHARDS, lost)


def test_throughput_and_time_left_follow_the_ledger(
    planned: tuple[RunConfig, CaptureWorker],
) -> None:
    config, worker = planned
    clock = Clock()
    watch = Watch(config.atlas, clock)
    first = watch.look()
    expected = sum(row["n_tokens"] for row in shards(config))
    assert (first.contents.done, first.contents.waiting) == (0, expected)
    assert (first.contents.n_waiting, first.rate, first.time_left_s) == (4, None, None)
    work = find_work(config)
    work.planned = work.planned[:2]
    capture_here(config, worker, work)
    clock.now += 10
    second = watch.look()
    done = sum(row["n_tokens"] for row in shards(config)[:2])
    assert second.contents.done == done and second.contents.n_shards["done"] == 2
    assert second.rate == pytest.approx(done / 10)
    assert second.time_left_s == pytest.approx((expected - done) / (done / 10))
    assert list(second.active) == [worker.name()]
    seconds = sum(row["seconds"] for row in shards(config)[:2])
    assert second.active[worker.name()] == pytest.approx(done / seconds)


def test_a_night_without_work_is_no_part_of_the_throughput(
    planned: tuple[RunConfig, CaptureWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = planned
    clock = Clock()
    watch = Watch(config.atlas, clock)
    counts = [(100, 900), (500, 500), (1000, 0), (1000, 0), (1000, 600), (1200, 400)]
    rates = []
    for n_done, n_planned in counts:
        now = Contents(n_tokens={"done": n_done, "planned": n_planned})
        monkeypatch.setattr(watch, "_read", lambda now=now: now)
        rates.append(watch.look().rate)
        clock.now += 3600 if n_planned == 0 else 10
    assert rates[1:3] == [40, 45] and rates[4:] == [None, 20]


def test_what_was_done_before_the_watch_began_is_no_throughput(done: RunConfig) -> None:
    look = Watch(done.atlas).look()
    assert look.contents.done > 0 and look.rate is None
    assert (look.active, len(look.contents.workers)) == ({}, 1)
    assert look.contents.parts == (
        Part("tiny: pca 2-D maps", N_HEADS, N_HEADS),
        Part("tiny: measures", N_HEADS, N_HEADS),
    )
    assert look.contents.n_rejects == 2


def test_failures_are_counted_by_their_reason(tmp_path: Path, done: RunConfig) -> None:
    atlas = str(shutil.copytree(done.atlas, tmp_path / "atlas"))
    snapshot = Snapshot.load(atlas)
    spoilt = [
        row | {"map_id": f"f{n}", "status": "failed", "reason": "no room"}
        for n, row in enumerate(snapshot.newest_maps().to_pylist()[:3])
    ]
    Lake(atlas).commit_rows(MAPS, spoilt)
    reasons = ["ValueError: bad", "OSError: gone"]
    lost = [
        row | {"shard_id": f"e{n}", "status": "quarantined", "reason": reasons[n]}
        for n, row in enumerate(snapshot.newest_shards().to_pylist()[:2])
    ]
    Lake(atlas).commit_rows(SHARDS, lost)
    contents = Watch(atlas).look().contents
    assert contents.troubles == (
        Trouble("map", "no room", 3),
        Trouble("shard", "OSError: gone", 1),
        Trouble("shard", "ValueError: bad", 1),
    )
    assert (contents.n_given_up, contents.n_shards["quarantined"]) == (5, 2)
    assert contents.parts[0] == Part("tiny: pca 2-D maps", N_HEADS, N_HEADS)


def test_a_failure_that_is_tried_again_waits(planned: tuple[RunConfig, CaptureWorker]) -> None:
    config, _ = planned
    quarantine(config, ["ValueError: bad"])
    watch = Watch(config.atlas)
    assert watch.look().contents.n_given_up == 1
    again = [row | {"status": "planned"} for row in shards(config) if row["reason"]]
    Lake(config.atlas).commit_rows(SHARDS, again)
    contents = watch.look().contents
    assert (contents.n_given_up, contents.n_waiting) == (0, 4)


def test_ledgers_are_read_only_after_they_changed(
    planned: tuple[RunConfig, CaptureWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = planned
    read: list[str] = []

    def count(snapshot: Snapshot) -> Contents:
        read.append(snapshot.version)
        return read_contents(snapshot)

    monkeypatch.setattr("flows.watch.read_contents", count)
    watch = Watch(config.atlas)
    for _ in range(3):
        watch.look()
    assert len(read) == 1
    quarantine(config, ["ValueError: bad"])
    watch.look()
    assert len(read) == 2


def test_a_look_that_fails_keeps_the_last_one(
    planned: tuple[RunConfig, CaptureWorker], tmp_path: Path
) -> None:
    config, _ = planned
    watch = Watch(config.atlas)
    before = watch.look()
    Path(config.atlas).rename(tmp_path / "away")
    look = watch.look()
    assert look.contents == before.contents and "no atlas at" in look.lost_sight
    (tmp_path / "away").rename(config.atlas)
    assert watch.look().lost_sight == ""


def test_an_atlas_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AtlasNotFoundError, match=r"no atlas at .*: build one with `qkatlas run`"):
        watch_atlas(str(tmp_path / "none"), Console(file=io.StringIO()))


def test_lines_until_nothing_waits(planned: tuple[RunConfig, CaptureWorker]) -> None:
    config, worker = planned
    file = io.StringIO()
    console = Console(file=file, width=80)

    def finish_when_seen() -> None:
        while "shards waiting" not in file.getvalue():
            time.sleep(0.01)
        capture_here(config, worker, find_work(config))

    thread = threading.Thread(target=finish_when_seen)
    thread.start()
    watch_atlas(config.atlas, console, every_s=0.1, until_done=True)
    thread.join()
    first, *_, last = file.getvalue().splitlines()
    assert re.match(r"\d\d:\d\d:\d\d 0 of [\d,]+ tokens; no shard done since this began;", first)
    assert "; nothing waits; 0 shards waiting; 4 done, " in last
    assert last.endswith("1 workers seen at work")


def test_ctrl_c_ends_a_watch_without_an_error(
    planned: tuple[RunConfig, CaptureWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.watch_view.time.sleep", interrupt)
    file = io.StringIO()
    watch_atlas(planned[0].atlas, Console(file=file))
    assert len(file.getvalue().splitlines()) == 1


def test_a_terminal_gets_a_picture_that_is_drawn_anew(
    planned: tuple[RunConfig, CaptureWorker],
) -> None:
    config, worker = planned
    capture_here(config, worker, find_work(config))
    file = io.StringIO()
    console = Console(file=file, width=80, force_terminal=True)
    watch_atlas(config.atlas, console, until_done=True)
    assert "\x1b[?25l" in file.getvalue() and "4 done, 0 waiting, 0 given up" in file.getvalue()


def make_look(**changes: Any) -> Look:
    contents = Contents(
        {"done": 3, "planned": 2, "quarantined": 1},
        {"done": 3000, "planned": 6000, "quarantined": 1},
        n_rejects=7,
        bytes=5_000_000,
        parts=(Part("tiny: measures", 1, 8),),
        troubles=tuple(Trouble("shard", f"[bad] reason {n}", 1) for n in range(7)),
    )
    active = {f"node{n}:1:cpu": 10.0 for n in range(8)}
    return Look(contents, 100.0, 60.0, active, **changes)


def draw(look: Look) -> str:
    console = Console(file=io.StringIO(), width=80, record=True)
    console.print(draw_look(look))
    return console.export_text()


def test_a_picture_has_all_figures_and_fits_eighty_columns() -> None:
    text = draw(make_look(lost_sight="the store is away"))
    for part in (
        "3,000 of 9,000 tokens",
        "100 tokens/s, 1 min 00 s left",
        "3 done, 2 waiting, 1 given up",
        "5.0 MB",
        "7 rows",
        "tiny: measures: 1 of 8 heads",
        "node4:1:cpu: 10 tokens/s",
        "3 more workers: 30 tokens/s",
        "1 × shard given up: [bad] reason 4",
        "and 2 more reasons",
        "the newest look failed: the store is away",
    ):
        assert part in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_a_line_has_all_figures() -> None:
    assert describe_look(make_look(lost_sight="the store is away")) == (
        "3,000 of 9,000 tokens; 100 tokens/s, 1 min 00 s left; 2 shards waiting; "
        "3 done, 5.0 MB; 7 rejects; 7 given up: [bad] reason 0; tiny: measures 1/8; "
        "8 workers seen at work; not read: the store is away"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (86_400 * 12 + 3700, "12 d 01 h"),
    ],
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize("of", [draw, describe_look])
def test_an_empty_atlas_can_be_shown(of: Callable[[Look], str]) -> None:
    assert "0 of 0 tokens" in of(Look(Contents(), None, None, {}))
