"""The one clock of whatever decides by time: how old an orphan is, how long a version is kept.

Which row is newest is never asked here: generations and versions of tables say it, so that a clock
that steps back changes nothing that a reader sees. Apart from all else, so that a test puts another
clock in one place; callers therefore write `clock.now()`.
"""

from datetime import UTC, datetime


def now() -> datetime:
    """The moment, in UTC and aware of it."""
    return datetime.now(UTC)


def milliseconds(moment: datetime) -> int:
    """A moment as Delta logs write it: whole milliseconds since 1970."""
    return int(moment.timestamp() * 1000)


def removal_time(last_commit_ms: int, newest_file_ms: int = 0) -> int:
    """The moment to note for files that a commit removes, in milliseconds.

    Never before the table's last commit: removed under a clock that had stepped back, a file would
    seem long gone once the clock is right again, and vacuum would take it from its readers. Nor
    before any file that the table lists: the last commit may itself have come after the step.

    Args:
        last_commit_ms: when the table's log says that it was committed to last.
        newest_file_ms: the newest of the moments at which its files were listed.
    """
    return max(milliseconds(now()), last_commit_ms, newest_file_ms)
