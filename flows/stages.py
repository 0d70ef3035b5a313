"""The stages of a run as plain functions: plan, extract, map, measure, publish.

Each looks in the ledger for what remains and may be run again at any time. `flows/build.py` makes
Prefect tasks of them; without Prefect they work the same.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flows.attempts import Done, Failed, Moved
from flows.capture_loop import run_on_actors
from flows.growth import find_due_fits
from flows.head_tasks import (
    COMPILED,
    HeadTask,
    MadeMap,
    describe_failed_maps,
    map_head,
    prime_maps,
)
from flows.identity import Row
from flows.log import log_event
from flows.measure_tasks import InductionTask, measure_induction, measure_one
from flows.planning import check_budget, commit_plan, make_plan
from flows.samples import HeadJob
from flows.session import Session
from flows.shard_units import group_shards, quarantined_rows, shard_units
from flows.task_pool import run_tasks
from flows.work import Work, newest_files
from pipeline.sources import SourceFile
from store.errors import StageError
from store.lake import MAPS, SHARDS, Lake, Unit, next_version
from store.snapshot import Snapshot

_PLAN_ROUNDS = 10
_COMMIT_EVERY_S = 5.0
_COMMIT_ITEMS = 256
_COMMIT_PAUSE = 25
"""How many times the last commit's own time the next one waits: 4 % of the driver's time."""
_COMMIT_LATEST_S = 60.0


@dataclass
class StageResult:
    """What a stage did."""

    stage: str
    done: int = 0
    """Units of work that became visible."""
    failed: list[str] = field(default_factory=list)
    """Why each unit that was given up was."""
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What the owner should decide, in sentences."""


def plan_stage(session: Session) -> StageResult:
    """Scan new rows and put them into the ledger as planned shards.

    Raises:
        BudgetError: the run would write more than it may.
        CaptureMismatchError, UnsupportedModelError: the model cannot be captured faithfully.
    """
    result, started = StageResult("plan"), time.monotonic()
    lake = Lake(session.config.atlas)
    session.steps.start("plan", 1, "corpus")
    for _ in range(_PLAN_ROUNDS):
        work = session.find_work()
        if not work.new_rows:
            check_budget(session.config, work, [])
            break
        planner = session.planner(work.modality)
        plans = [make_plan(rows, planner) for rows in work.new_rows]
        check_budget(session.config, work, plans)
        lake.create()
        for plan in plans:
            commit_plan(session.config, work, plan, planner, lake)
            result.done += len(plan.scan.shards)
    else:
        raise StageError(
            f"the corpus had new rows each of {_PLAN_ROUNDS} times it was planned; "
            "run again when nobody writes to it"
        )
    session.steps.finish()
    result.seconds = time.monotonic() - started
    return result


def extract_stage(session: Session) -> StageResult:
    """Capture every planned shard and commit it; give up shards that keep failing."""
    result, started = StageResult("extract"), time.monotonic()
    work = session.find_work()
    if not work.planned:
        return result
    lake = Lake(session.config.atlas)
    planned = {row["shard_id"]: row for row in work.planned}
    shards = group_shards(work.planned, _files_by_ordinal(session, work))
    session.steps.start("extract", sum(row["n_tokens"] for row in work.planned), "tokens")
    outcomes = run_on_actors(shards, session.pool(work.modality))
    try:
        for batch in in_batches(_show_progress(session, outcomes)):
            _commit_shards(lake, batch, planned, result)
    finally:
        session.release_actors()  # one that is still at work must not meet the next try
    session.steps.finish()
    result.seconds = time.monotonic() - started
    return result


def _show_progress(
    session: Session, outcomes: Iterable[Done | Failed | Moved]
) -> Iterator[Done | Failed | None]:
    """Pass results on, and None when time has passed; show what was captured meanwhile."""
    since = time.monotonic()
    for outcome in outcomes:
        if not isinstance(outcome, Moved):
            yield outcome
            continue
        now = time.monotonic()
        rate = f"{outcome.amount / max(now - since, 1e-9):,.0f} tokens/s"
        session.steps.advance(outcome.amount, outcome.note or rate)
        since = now
        yield None


def _files_by_ordinal(session: Session, work: Work) -> dict[int, SourceFile]:
    snapshot = Snapshot.load(session.config.atlas)
    known = newest_files(snapshot, session.config.corpus.name)
    return {known[f.source]["ordinal"]: f for f in work.files if f.source in known}


def _commit_shards(
    lake: Lake,
    outcomes: Sequence[Done | Failed],
    planned: dict[str, Row],
    result: StageResult,
) -> None:
    started = time.monotonic()
    units, lost = [], []
    for outcome in outcomes:
        if isinstance(outcome, Done):
            units += shard_units(outcome.result, planned)
        else:
            lost += quarantined_rows(outcome.work, outcome.reason, planned)
    written = lake.commit(SHARDS, units) if units else []
    given_up = lake.commit_rows(SHARDS, lost) if lost else []
    result.done += len(written)
    result.failed += [f"shard {row['shard_id']}: {row['reason']}" for row in lost]
    for unit in written:
        for name in ("n_sequences", "n_rejects", "n_tokens", "n_truncated", "bytes"):
            result.counts[name] = result.counts.get(name, 0) + unit.row[name]
        _log_shard("shard_done", unit.row, "n_sequences", "n_tokens", "bytes", "seconds", "worker")
    for unit in given_up:
        _log_shard("shard_quarantined", unit.row, "reason")
    seconds = time.monotonic() - started
    log_event("commit", table="shards", n_units=len(written), seconds=seconds)


def _log_shard(event: str, row: Mapping[str, Any], *columns: str) -> None:
    named = {name: row[name] for name in ("model", "corpus", "attempt", *columns)}
    log_event(event, shard=row["shard_id"], **named)


def map_stage(session: Session) -> StageResult:
    """Make the maps that are missing and add new sequences to the others, a head a task."""

    def commit(lake: Lake, outcomes: Sequence[Done | Failed], result: StageResult) -> None:
        made: list[MadeMap] = [
            item for done in outcomes if isinstance(done, Done) for item in done.result
        ]
        good = [Unit(item.row, item.files) for item in made if item.row["status"] == "ok"]
        bad = [item.row for item in made if item.row["status"] == "failed"]
        for outcome in outcomes:
            if isinstance(outcome, Failed):
                bad += describe_failed_maps(outcome.work, outcome.reason)
        written = lake.commit(MAPS, good) if good else []
        result.done += len(written)
        n_parts = sum(unit.row["part"] > 0 for unit in written)
        result.counts["n_parts"] = result.counts.get("n_parts", 0) + n_parts
        if bad:
            lake.commit_rows(MAPS, bad)
        result.failed += [f"map {row['map_id']}: {row['reason']}" for row in bad]

    jobs = session.find_work().maps
    if any(spec.method in COMPILED for job in jobs for spec in job.specs):
        session.start()
        session.steps.start("prime", 1, "compile")
        for _ in _show_notes(session, run_tasks(prime_maps, [None], session.config)):
            pass
        session.steps.finish()
    result = _head_stage(session, "map", jobs, map_head, commit)
    if session.config.maps:
        result.notes = find_due_fits(Snapshot.load(session.config.atlas).newest_maps())
    return result


def measure_stage(session: Session) -> StageResult:
    """Take the measures that are missing: a head a task, and the induction scores in one."""
    work = session.find_work()
    result = _head_stage(session, "measure", work.measures, measure_one, _commit_measures)
    if work.induction is not None:
        task = InductionTask(session.config, work.modality, work.induction)
        scored = _task_stage(
            session, "induction", [task], "models", measure_induction, _commit_measures
        )
        result.counts["n_induction"] = scored.done * len(work.induction.heads)
        result.failed += scored.failed
        result.seconds += scored.seconds
    return result


def _commit_measures(lake: Lake, outcomes: Sequence[Done | Failed], result: StageResult) -> None:
    rows = [row for done in outcomes if isinstance(done, Done) for row in done.result]
    if rows:
        lake.append("measures", lambda handle: _numbered(handle, rows), "measures")
    result.done += sum(isinstance(outcome, Done) for outcome in outcomes)
    result.failed += [
        f"measures of {item.work.place}: {item.reason}"
        for item in outcomes
        if isinstance(item, Failed)
    ]


def _numbered(handle: Any, rows: Sequence[Row]) -> list[Row]:
    generation = next_version(handle, "measures") + 1
    return [row | {"generation": generation} for row in rows]


def _head_stage(
    session: Session,
    stage: str,
    jobs: Sequence[HeadJob],
    function: Callable[[HeadTask], Any],
    commit: Callable[[Lake, Sequence[Done | Failed], StageResult], None],
) -> StageResult:
    """Run a task for each head."""
    uri = session.config.atlas
    version = Snapshot.load(uri).version if jobs else ""
    tasks = [HeadTask(uri, version, job) for job in jobs]
    return _task_stage(session, stage, tasks, "heads", function, commit)


def _task_stage(
    session: Session,
    stage: str,
    tasks: Sequence[Any],
    unit: str,
    function: Callable[[Any], Any],
    commit: Callable[[Lake, Sequence[Done | Failed], StageResult], None],
) -> StageResult:
    """Run tasks and commit what comes back, a few seconds' worth at a time."""
    result, started = StageResult(stage), time.monotonic()
    if not tasks:
        return result
    session.start()
    lake = Lake(session.config.atlas)
    session.steps.start(stage, len(tasks), unit)
    for batch in in_batches(_show_notes(session, run_tasks(function, tasks, session.config))):
        began = time.monotonic()
        commit(lake, batch, result)
        log_event("commit", table=stage, n_units=len(batch), seconds=time.monotonic() - began)
        session.steps.advance(len(batch))
    session.steps.finish()
    result.seconds = time.monotonic() - started
    return result


def _show_notes(
    session: Session, outcomes: Iterable[Done | Failed | Moved]
) -> Iterator[Done | Failed | None]:
    """Pass results on, and None when time has passed; show what tasks wait for."""
    for outcome in outcomes:
        if not isinstance(outcome, Moved):
            yield outcome
            continue
        if outcome.note:
            session.steps.advance(0, outcome.note)
        yield None


def in_batches(items: Iterable[Done | Failed | None]) -> Iterator[list[Done | Failed]]:
    """Items in lists, each of what came within a few seconds; None only tells that time passes.

    Where a list takes long to commit, as in an atlas of many files, the next is longer. What came
    before an error is given first, and the error raised after it.
    """
    batch: list[Done | Failed] = []
    since, pause = time.monotonic(), _COMMIT_EVERY_S
    failure: Exception | None = None
    source = iter(items)
    while True:
        try:
            item = next(source)
        except StopIteration:
            break
        except Exception as error:
            failure = error
            break
        if item is not None:
            batch.append(item)
        now = time.monotonic()
        if batch and (now - since >= pause or len(batch) >= _COMMIT_ITEMS):
            yield batch
            batch, since = [], time.monotonic()
            pause = max(_COMMIT_EVERY_S, min(_COMMIT_LATEST_S, _COMMIT_PAUSE * (since - now)))
    if batch:
        yield batch
    if failure is not None:
        raise failure


def publish_stage(session: Session) -> StageResult:
    """Check that the ledger and the visible files agree, so that readers may rely on them.

    Raises:
        StageError: a done shard's files are not all there.
    """
    result, started = StageResult("publish"), time.monotonic()
    work = session.find_work()
    snapshot = Snapshot.load(session.config.atlas)
    models = {row["model"] for row in work.known}
    shards = [row for row in snapshot.newest_shards().to_pylist() if row["model"] in models]
    for model in sorted(models):
        done = [row for row in shards if row["model"] == model and row["status"] == "done"]
        expected = sum(row["n_sequences"] for row in done)
        found = sum(snapshot.files("sequences", model=model)["n_rows"].to_pylist())
        if found != expected:
            raise StageError(
                f"{model}: {found} sequences are visible and the ledger counts {expected}; "
                "run `qkatlas verify` and look at the table shards"
            )
        result.done += len(done)
    for status in ("quarantined", "planned"):
        n_shards = sum(row["status"] == status for row in shards)
        if n_shards:
            result.counts[f"n_{status}"] = n_shards
    result.seconds = time.monotonic() - started
    return result


PLAIN_STAGES: dict[str, Callable[[Session], StageResult]] = {
    "plan": plan_stage,
    "extract": extract_stage,
    "map": map_stage,
    "measure": measure_stage,
    "publish": publish_stage,
}


def run_stages(
    session: Session, stages: Mapping[str, Callable[[Session], StageResult]]
) -> list[StageResult]:
    """Run stages in order; Prefect tasks and plain functions alike."""
    results = []
    for name, run in stages.items():
        log_event("stage_started", stage=name)
        result = run(session)
        about = {"done": result.done, "failed": len(result.failed), "seconds": result.seconds}
        log_event("stage_done", stage=name, **about, **result.counts)
        results.append(result)
    return results
