"""The stages of a run as plain functions: plan, extract, map, measure, publish.

Each looks in the ledger for what remains and may be run again at any time. `flows/build.py` makes
Prefect tasks of them; without Prefect they work the same.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from json import loads
from typing import Any

from flows.cluster import Done, Failed, Moved, run_on_actors, run_tasks
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
from flows.measure_tasks import InductionTask, measure_induction, measure_one
from flows.planning import check_budget, commit_plan, make_plan
from flows.samples import HeadJob
from flows.session import Session
from flows.work import Work, newest_files
from pipeline.shards import ShardPart, ShardReport, ShardWork
from pipeline.sources import SourceFile
from store.errors import SourceNotFoundError, StageError
from store.lake import MAPS, SHARDS, Lake, Unit, next_version
from store.snapshot import Snapshot

_PLAN_ROUNDS = 10
_COMMIT_EVERY_S = 5.0
_COMMIT_ITEMS = 256


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
    actors = session.actors(work.modality, len(shards))
    session.steps.start("extract", sum(row["n_tokens"] for row in work.planned), "tokens")
    outcomes = run_on_actors(shards, actors, lambda: session.new_actor(work.modality))
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
        rate = outcome.amount / max(now - since, 1e-9)
        session.steps.advance(outcome.amount, f"{rate:,.0f} tokens/s")
        since = now
        yield None


def _files_by_ordinal(session: Session, work: Work) -> dict[int, SourceFile]:
    snapshot = Snapshot.load(session.config.atlas)
    known = newest_files(snapshot, session.config.corpus.name)
    return {known[f.source]["ordinal"]: f for f in work.files if f.source in known}


def group_shards(planned: Sequence[Row], files: dict[int, SourceFile]) -> list[ShardWork]:
    """Planned ledger rows as work; rows of several stacks over the same range go together.

    Raises:
        SourceNotFoundError: a file that was planned is gone.
    """
    groups: dict[tuple[str, int | None], list[Row]] = {}
    for row in planned:
        groups.setdefault((row["file_rows"], row["byte_offset"]), []).append(row)
    works = []
    for (file_rows, offset), rows in groups.items():
        parts = []
        for index, (ordinal, first, last) in enumerate(loads(file_rows)):
            if ordinal not in files:
                raise SourceNotFoundError(
                    f"file {ordinal} of corpus {rows[0]['corpus']} was planned and is gone; bring "
                    "it back, or give it up with `qkatlas drop --corpus`"
                )
            start = offset if index == 0 else None
            parts.append(ShardPart(files[ordinal], ordinal, first, last, start))
        ids = {row["model"]: row["shard_id"] for row in rows}
        works.append(ShardWork(ids, 1 + max(row["attempt"] for row in rows), tuple(parts)))
    return works


def _commit_shards(
    lake: Lake,
    outcomes: Sequence[Done | Failed],
    planned: dict[str, Row],
    result: StageResult,
) -> None:
    units, lost = [], []
    for outcome in outcomes:
        if isinstance(outcome, Done):
            units += shard_units(outcome.result, planned)
            continue
        for shard_id in outcome.work.shard_ids.values():
            result.failed.append(f"shard {shard_id}: {outcome.reason}")
            quarantined = {"status": "quarantined", "reason": outcome.reason}
            lost.append(planned[shard_id] | quarantined | {"attempt": outcome.work.attempt})
    written = lake.commit(SHARDS, units) if units else []
    if lost:
        lake.commit_rows(SHARDS, lost)
    result.done += len(written)
    for unit in written:
        for name in ("n_sequences", "n_rejects", "n_tokens", "n_truncated", "bytes"):
            result.counts[name] = result.counts.get(name, 0) + unit.row[name]


def shard_units(report: ShardReport, planned: dict[str, Row]) -> list[Unit]:
    """A captured shard as ledger rows with files, one a model key.

    Raises:
        StageError: it has other rows than were planned.
    """
    units = []
    for model, shard_id in report.work.shard_ids.items():
        row = planned[shard_id]
        if report.counts.n_rows != row["n_rows"]:
            raise StageError(
                f"shard {shard_id} has {report.counts.n_rows} rows, planned were {row['n_rows']}; "
                "the corpus changes while it is read: run again when nobody writes to it"
            )
        files = report.files[model]
        done = {
            **asdict(report.counts),
            "status": "done",
            "attempt": report.work.attempt,
            "n_files": len(files),
            "bytes": sum(file.size for file in files),
            "seconds": report.seconds,
            "worker": report.worker,
        }
        units.append(Unit(row | done, files))
    return units


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
        list(run_tasks(prime_maps, [None], session.config))
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
    for batch in in_batches(run_tasks(function, tasks, session.config)):
        commit(lake, batch, result)
        session.steps.advance(len(batch))
    session.steps.finish()
    result.seconds = time.monotonic() - started
    return result


def in_batches(items: Iterable[Done | Failed | None]) -> Iterator[list[Done | Failed]]:
    """Items in lists, each of what came within a few seconds; None only tells that time passes.

    What came before an error is given first, and the error raised after it.
    """
    batch: list[Done | Failed] = []
    since = time.monotonic()
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
        is_time = time.monotonic() - since >= _COMMIT_EVERY_S
        if batch and (is_time or len(batch) >= _COMMIT_ITEMS):
            yield batch
            batch, since = [], time.monotonic()
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
    return [run(session) for run in stages.values()]
