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


def removal_time(last_commit_ms: int, newest_file_ms: int, disk_ms: int) -> int:
    """The moment to note for files that a commit removes, in milliseconds.

    Never before the table's last commit: removed under a clock that had stepped back, a file would
    seem long gone once the clock is right again, and vacuum would take it from its readers. Nor
    before any file that the table lists: the last commit may itself have come after the step. But
    a file that was listed under a clock that was ahead counts no more than the disk or store says
    the time is: else each merge would hand that time on, and vacuum would wait for it.

    Args:
        last_commit_ms: when the table's log says that it was committed to last.
        newest_file_ms: the newest of the moments at which its files were listed.
        disk_ms: when something was written lately, by the clock of the disk or store.
    """
    return max(milliseconds(now()), last_commit_ms, min(newest_file_ms, disk_ms))


def listing_time(removal_ms: int, disk_ms: int) -> int:
    """The moment to note for files that take the place of others, in milliseconds.

    That of the removal, for the sake of removals to come, but not one that the disk or store has
    not reached: the last commit may have come under a clock that was ahead.

    Args:
        removal_ms: what `removal_time` gave.
        disk_ms: as there.
    """
    return max(milliseconds(now()), min(removal_ms, disk_ms))
