"""What a run would read and write, worked out as the run itself does, without writing.

New rows are scanned and a row group is captured by a worker in this process; what is planned
already stands in the ledger.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from flows.config import RunConfig
from flows.environment import prepare_environment
from flows.planning import Plan, make_plan
from flows.quantities import format_bytes
from flows.work import Work, find_work

__all__ = ["SMALL_FILE", "Estimate", "EstimateRow", "estimate_run", "format_bytes"]

SMALL_FILE = 4_000_000
"""Bytes below which a vector file is small: many such slow every reader down."""


@dataclass
class EstimateRow:
    """What a run would write for a model key."""

    model: str
    n_sequences: int = 0
    n_tokens: int = 0
    n_shards: int = 0
    n_files: int = 0
    bytes: int = 0

    @property
    def mean_file_bytes(self) -> float:
        """Bytes of a file on average."""
        return self.bytes / self.n_files if self.n_files else 0.0

    def add(self, n_sequences: int, n_tokens: float, n_files: int, n_bytes: int) -> None:
        """Count a shard."""
        self.n_shards += 1
        self.n_sequences += n_sequences
        self.n_tokens += round(n_tokens)
        self.n_files += n_files
        self.bytes += n_bytes

    def cells(self) -> tuple[str, ...]:
        """The row as text: model, sequences, tokens, shards, files, bytes, mean file."""
        counts = (self.n_sequences, self.n_tokens, self.n_shards, self.n_files)
        sizes = (self.bytes, self.mean_file_bytes)
        return (self.model, *(f"{n:,}" for n in counts), *(format_bytes(n) for n in sizes))


@dataclass
class Estimate:
    """What a run would write, and what its owner should know before it starts."""

    rows: list[EstimateRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def estimate_run(config: RunConfig) -> Estimate:
    """What `run` would read and write for a configuration; the atlas is not touched.

    Bytes are those of the shards: queries, keys, tokens and sequences, without maps and measures.

    Raises:
        AtlasError: everything that would stop the run before it captures, but for the budget,
            which is a note, and the check of the model's attention, which the run makes.
    """
    prepare_environment()
    work = find_work(config)
    plans = _make_plans(config, work)
    rows: dict[str, EstimateRow] = {}
    for row in work.planned:
        found = rows.setdefault(row["model"], EstimateRow(row["model"]))
        found.add(row["n_sequences"], row["n_tokens"], row["n_files"], row["bytes"])
    for plan in plans:
        _add_plan(rows, plan)
    estimate = Estimate(list(rows.values()))
    estimate.notes += _note_work(config, work, plans, estimate.rows)
    return estimate


def _make_plans(config: RunConfig, work: Work) -> list[Plan]:
    """Scan new rows with a worker of this process; no model is loaded where there are none."""
    if not work.new_rows:
        return []
    from flows.worker import CaptureWorker

    worker = CaptureWorker(config, work.modality, n_workers=1, strict=False)
    return [make_plan(rows, worker) for rows in work.new_rows]


def _add_plan(rows: dict[str, EstimateRow], plan: Plan) -> None:
    for model in plan.models:
        found = rows.setdefault(model, EstimateRow(model))
        for shard in plan.scan.shards:
            sizes = plan.sizes.get(model)
            n_files = sizes.n_files if sizes and shard.n_sequences else 0
            found.add(shard.n_sequences, shard.n_tokens, n_files, plan.bytes_of(shard, model))


def _note_work(
    config: RunConfig, work: Work, plans: Sequence[Plan], rows: Sequence[EstimateRow]
) -> Iterator[str]:
    """What is unusual, in the order of its weight."""
    total = sum(row.bytes for row in rows)
    if total > config.budget_bytes:
        yield (
            f"about {format_bytes(total)} is above budget_bytes, "
            f"{format_bytes(config.budget_bytes)}, and the run would be refused: raise it, or "
            "sample (capture.sample.sequences), choose layers (capture.layers) or lower "
            "capture.precision"
        )
    rejects = sum(shard.n_rejects for plan in plans for shard in plan.scan.shards)
    if rejects:
        yield f"{rejects:,} unreadable row(s) would go to the table rejects; --strict refuses them"
    if any(plan.scan.reached_limit for plan in plans):
        yield f"the sample ends at capture.sample.limit, {config.capture.sample.limit:,} sequences"
    small = [row for row in rows if row.n_shards > 1 and 0 < row.mean_file_bytes < SMALL_FILE]
    if small:
        yield (
            f"files of {format_bytes(small[0].mean_file_bytes)} on average are small: raise "
            f"capture.shard_tokens ({config.capture.shard_tokens:,}) and capture.shard_rows "
            f"({config.capture.shard_rows:,}) to get fewer and larger ones"
        )
    elif any(0 < row.mean_file_bytes < SMALL_FILE for row in rows):
        yield "the corpus is small: each head's vectors fit a file below 4 MB"
    yield from _note_remaining(work, rows)


def _note_remaining(work: Work, rows: Sequence[EstimateRow]) -> Iterator[str]:
    """What remains beside capture, or that nothing does."""
    heads = len({job.place for job in work.maps if not job.growths})
    grown = len({job.place for job in work.maps if job.growths})
    lacking = {job.place for job in work.measures}
    measured = len(lacking.union(work.induction.heads if work.induction else ()))
    if not rows and heads + grown + measured:
        yield f"nothing new to capture; {heads} heads lack maps and {measured} lack measures"
    elif not rows:
        yield "nothing to do: the atlas is up to date"
    if grown:
        yield f"captured sequences wait to be added to the maps of {grown} heads"
    yield from work.due
    if work.vanished:
        yield f"{len(work.vanished)} captured file(s) are gone; their sequences stay"
