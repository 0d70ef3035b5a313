"""Shards between ledger and lake: planned rows as work, captured shards as rows with files."""

from collections.abc import Sequence
from dataclasses import asdict
from json import loads

from flows.identity import Row
from pipeline.shards import ShardPart, ShardReport, ShardWork
from pipeline.sources import SourceFile
from store.errors import SourceNotFoundError, StageError
from store.lake import Unit


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


def quarantined_rows(work: ShardWork, reason: str, planned: dict[str, Row]) -> list[Row]:
    """Ledger rows of a shard that is given up until `qkatlas retry`."""
    given_up = {"status": "quarantined", "reason": reason, "attempt": work.attempt}
    return [planned[shard_id] | given_up for shard_id in work.shard_ids.values()]
