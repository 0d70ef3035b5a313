"""What lies in an atlas's folder and belongs to nobody, and how `vacuum` is asked to take it."""

import os
import re
from datetime import UTC, datetime, timedelta
from json import loads
from pathlib import Path

from store.schema import TABLES
from store.snapshot import Snapshot
from store.vacuum import vacuum

LOG = re.compile(r"\d{20}\.json|\d{20}\.checkpoint\.parquet|_last_checkpoint")


def unknown_files(snapshot: Snapshot) -> list[str]:
    """Files that no table shows and no map names, and remains of commits that did not happen."""
    root = Path(snapshot.uri)
    known = {path for table in TABLES for path in _shown(snapshot, table)}
    for row in snapshot.newest_maps().to_pylist():
        known.add(str(root / "_state" / row["map_id"] / loads(row["parameters"])["state"]))
    return sorted(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and str(path) not in known and not _is_log(path)
    )


def _shown(snapshot: Snapshot, table: str) -> list[str]:
    """Paths of a table's files that readers use."""
    is_data = table in ("queries", "keys", "tokens", "sequences", "rejects", "points")
    files = snapshot.files(table) if is_data else snapshot._added(table)
    return [str(path) for path in files["path"].to_pylist()]


def _is_log(path: Path) -> bool:
    return path.parent.name == "_delta_log" and LOG.fullmatch(path.name) is not None


def a_day_ahead() -> datetime:
    """What `store.clock.now` says in a test that vacuums what was committed just now."""
    return datetime.now(UTC) + timedelta(hours=25)


def age_removals(root: Path) -> None:
    """Make removals a day old in the logs."""
    past = int((datetime.now(UTC) - timedelta(hours=25)).timestamp() * 1000)
    for entry in root.glob("*/_delta_log/*.json"):
        text = re.sub(r'"deletionTimestamp":\d+', f'"deletionTimestamp":{past}', entry.read_text())
        entry.write_text(text)


def age_files(uri: str) -> None:
    """Make all that lies in an atlas three days old; delta-rs asks the system for the time."""
    long_ago = (datetime.now(UTC) - timedelta(days=3)).timestamp()
    for path in Path(uri).rglob("*"):
        if path.is_file():
            os.utime(path, (long_ago, long_ago))


def vacuum_a_day_later(uri: str) -> None:
    """Vacuum as one does when all that is there is older than the retention.

    A first one takes what does not count out of the logs, a second deletes what they do not list,
    a day after it was taken out.
    """
    age_files(uri)
    vacuum(uri)
    age_removals(Path(uri))
    vacuum(uri)
