"""From new rows to planned shards in the ledger, exactly once, whoever else plans.

Order of commits: files, models, heads, shards. A plan is committed only while the ledger still
ends where the plan begins; else another driver was faster, and the caller looks again what remains.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from json import dumps
from typing import Any, Protocol

import xxhash
from deltalake import DeltaTable

from flows.config import RunConfig
from flows.identity import Row
from flows.work import ModelRows, NewRows, Work, find_coverage, limit_left
from pipeline.readers import Unit
from pipeline.scan import PlannedShard, Scan, ScanRange
from pipeline.sizes import Sizes
from store.errors import BudgetError
from store.lake import SHARDS, Lake, next_version
from store.snapshot import NEWEST_SHARDS, open_table, select

_FILES, _MODELS = "files", "models"


class Planner(Protocol):
    """What planning needs of a capture worker, here or on a cluster."""

    def models(self) -> list[str]:
        """Model keys of the stacks."""

    def scan(self, ranges: Sequence[ScanRange], limit: int | None) -> Scan:
        """Count new rows and cut them into shards."""

    def describe(self, units: Sequence[Unit]) -> tuple[list[Row], list[Row]]:
        """Check the model's attention; rows of `models` and `heads`."""

    def measure_sizes(self, units: Sequence[Unit]) -> dict[str, Sizes]:
        """Bytes that capture takes."""


@dataclass(frozen=True)
class Plan:
    """New rows of some models, scanned, cut and weighed; nothing is committed yet."""

    models: tuple[str, ...]
    rows: tuple[NewRows, ...]
    limit: int | None
    """Sequences that could still be taken; None means no limit."""
    scan: Scan
    sizes: dict[str, Sizes]

    def bytes_of(self, shard: PlannedShard, model: str) -> int:
        """Bytes expected of a shard; none where there is nothing to capture."""
        if model not in self.sizes or not shard.n_sequences:
            return 0
        return self.sizes[model].estimate(shard.n_tokens)

    @property
    def bytes(self) -> int:
        """Bytes expected of all shards."""
        return sum(
            self.bytes_of(shard, model) for shard in self.scan.shards for model in self.models
        )


def make_plan(work: ModelRows, planner: Planner) -> Plan:
    """Scan new rows and estimate what they take."""
    ranges = [ScanRange(item.file, item.first_row) for item in work.rows]
    scan = planner.scan(ranges, work.limit)
    models = work.models or tuple(planner.models())
    sizes = planner.measure_sizes(scan.probe) if scan.probe else {}
    return Plan(models, work.rows, work.limit, scan, sizes)


def check_budget(config: RunConfig, work: Work, plans: Sequence[Plan]) -> None:
    """Refuse a run that would write too much.

    Raises:
        BudgetError: naming both figures.
    """
    expected = sum(plan.bytes for plan in plans) + sum(row["bytes"] for row in work.planned)
    if expected > config.budget_bytes:
        raise BudgetError(
            f"this run would write about {expected / 1e9:.2f} GB, and budget_bytes allows "
            f"{config.budget_bytes / 1e9:.2f} GB: raise it, or sample (capture.sample.sequences), "
            "choose layers (capture.layers) or lower capture.precision"
        )


def commit_plan(config: RunConfig, work: Work, plan: Plan, planner: Planner, lake: Lake) -> None:
    """Put a plan into the ledger; a model that is new is checked first.

    Raises:
        CaptureMismatchError, UnsupportedModelError: the model cannot be captured faithfully.
        CommitError: the lake did not take it.
    """
    known = _models_in("heads", lake)
    is_known = known.issuperset(plan.models)
    models, heads = ([], []) if is_known else planner.describe(plan.scan.probe)
    ordinals = _commit_files(config, plan, lake)
    settings = asdict(work.identity)
    _append_missing(lake, "models", [{**settings, **row} for row in models])
    _append_missing(lake, "heads", heads)
    _commit_shards(config, plan, ordinals, lake)


def _commit_files(config: RunConfig, plan: Plan, lake: Lake) -> list[int]:
    """Register files and their new row counts; returns the ordinal of each."""
    ordinals: list[int] = []
    name = config.corpus.name

    def make_rows(handle: DeltaTable) -> list[Row]:
        rows = handle.to_pyarrow_table().to_pylist()
        following = 1 + max((row["ordinal"] for row in rows), default=-1)
        known = {row["source"]: row["ordinal"] for row in rows if row["corpus"] == name}
        there = {tuple(sorted(row.items())) for row in rows if row["corpus"] == name}
        ordinals.clear()
        new = []
        for item, n_rows in zip(plan.rows, plan.scan.n_rows, strict=False):
            ordinal = known.get(item.file.source, following)
            following = max(following, ordinal + 1)
            ordinals.append(ordinal)
            row = {
                "corpus": name,
                "ordinal": ordinal,
                "source": item.file.source,
                "bytes": item.file.bytes,
                "fingerprint": item.fingerprint,
                "n_rows": n_rows,
            }
            if tuple(sorted(row.items())) not in there:
                new.append(row)
        return new

    lake.append("files", make_rows, _FILES)
    return ordinals


def _models_in(table: str, lake: Lake) -> set[str]:
    found = open_table(lake.uri, table).to_pyarrow_table(columns=["model"])
    return set(found["model"].to_pylist())


def _append_missing(lake: Lake, table: str, rows: list[Row]) -> None:
    """Append rows of models that the table does not have yet."""

    def make_rows(handle: DeltaTable) -> list[Row]:
        there = set(handle.to_pyarrow_table(columns=["model"])["model"].to_pylist())
        return [row for row in rows if row["model"] not in there]

    if rows:
        lake.append(table, make_rows, _MODELS)


def _commit_shards(config: RunConfig, plan: Plan, ordinals: Sequence[int], lake: Lake) -> None:
    """Append the planned shards, all or none."""

    def make_rows(handle: DeltaTable) -> list[Row]:
        if not _is_current(config, plan, ordinals, handle):
            return []
        version = next_version(handle, SHARDS.plan)
        return [
            _shard_row(config, plan, shard, model, ordinals, version)
            for shard in plan.scan.shards
            for model in plan.models
        ]

    if plan.scan.shards:
        lake.append("shards", make_rows, SHARDS.plan)


def _is_current(config: RunConfig, plan: Plan, ordinals: Sequence[int], handle: DeltaTable) -> bool:
    """Whether the ledger still ends where the plan begins, for each of its models.

    All or none: models of one plan were equally far when it was made, and a driver that was
    faster with one of them makes the others wait for a look of a few milliseconds.
    """
    newest = select(NEWEST_SHARDS, shards=handle.to_pyarrow_table())
    begins = [(ordinal, item.first_row) for ordinal, item in zip(ordinals, plan.rows, strict=False)]
    for model in plan.models:
        covered, taken = find_coverage(newest, model, config.corpus.name)
        if limit_left(config.capture.sample, taken) != plan.limit:
            return False
        if any(covered.get(ordinal, 0) != first for ordinal, first in begins):
            return False
    return True


def _shard_row(
    config: RunConfig,
    plan: Plan,
    shard: PlannedShard,
    model: str,
    ordinals: Sequence[int],
    version: int,
) -> dict[str, Any]:
    parts = [(ordinals[part.file], part.first_row, part.last_row) for part in shard.parts]
    place = f"{model} {config.corpus.name} {parts[0][0]} {parts[0][1]} {version}"
    sizes = plan.sizes.get(model)
    return {
        "shard_id": xxhash.xxh64_hexdigest(place.encode()),
        "model": model,
        "corpus": config.corpus.name,
        "first_ordinal": parts[0][0],
        "first_row": parts[0][1],
        "last_ordinal": parts[-1][0],
        "last_row": parts[-1][2],
        "byte_offset": shard.byte_offset,
        "file_rows": dumps(parts),
        "status": "planned",
        "reason": None,
        "attempt": 0,
        "n_rows": shard.n_rows,
        "n_unsampled": shard.n_unsampled,
        "n_sequences": shard.n_sequences,
        "n_rejects": shard.n_rejects,
        "n_tokens": round(shard.n_tokens),
        "n_truncated": 0,
        "n_files": sizes.n_files if sizes and shard.n_sequences else 0,
        "bytes": plan.bytes_of(shard, model),
        "seconds": 0.0,
        "worker": "",
        "generation": 0,
    }
