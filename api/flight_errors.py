"""From an exception to what a Flight client is told: the counterpart of `problems`.

pyarrow puts the traceback of any exception but its own into the message that the client gets, of
`get_schema` even that of its own; and only foreign exceptions reach codes such as INVALID_ARGUMENT.
So all that leaves a handler is of the classes here, whose traceback cannot be formatted: pyarrow
then names the class alone. A test holds this true of every call.
"""

import pyarrow.flight as fl

from api.pool import CANCELLED
from api.problems import explain

LONGEST_MESSAGE = 1_500
"""Bytes of a message, which travels in headers that clients limit to 8 kB."""


class Untraced(Exception):
    """An exception that nobody can format a traceback of."""

    @property
    def __suppress_context__(self) -> bool:  # type: ignore[override]
        """Read first by everything that formats a traceback.

        Raises:
            AttributeError: always.
        """
        raise AttributeError("no traceback")

    def __str__(self) -> str:
        return str(self.args[0])


class Refused(Untraced, ValueError):
    """The code INVALID_ARGUMENT."""


class NotFound(Untraced, KeyError):
    """The code NOT_FOUND."""


class NotOffered(Untraced, NotImplementedError):
    """The code UNIMPLEMENTED."""


class Unauthenticated(Untraced, fl.FlightUnauthenticatedError):  # type: ignore[misc]
    """The code UNAUTHENTICATED."""


class Busy(Untraced, fl.FlightUnavailableError):  # type: ignore[misc]
    """The code UNAVAILABLE."""


class TooLate(Untraced, fl.FlightTimedOutError):  # type: ignore[misc]
    """The code DEADLINE_EXCEEDED."""


class Cancelled(Untraced, fl.FlightCancelledError):  # type: ignore[misc]
    """The code CANCELLED."""


class Failed(Untraced, fl.FlightInternalError):  # type: ignore[misc]
    """The code INTERNAL."""


CLASSES: dict[str, type[Untraced]] = {
    "not_found": NotFound,
    "stale_version": NotFound,
    "busy": Busy,
    "store_silent": Busy,
    "not_offered": NotOffered,
    "cancelled": Cancelled,
    "too_late": TooLate,
    "unauthenticated": Unauthenticated,
    "internal": Failed,
}
"""By the kind of a problem; any other is Refused."""


def to_flight(error: Exception, request_id: str, hidden: str = "") -> tuple[int, str, Untraced]:
    """HTTP's status and the kind of a problem, and the exception that tells the client of it.

    Args:
        error: whatever went wrong.
        request_id: names the call in the log.
        hidden: the atlas's folder or URI, which is cut out of messages.
    """
    status, kind, message, _ = explain(error, request_id, hidden)
    if kind == "query_killed":
        kind = _why(message)
    short = message.encode("utf-8", "replace")[:LONGEST_MESSAGE].decode("utf-8", "ignore")
    return status, kind, CLASSES.get(kind, Refused)(short)


def _why(message: str) -> str:
    """The kind of what ended a query."""
    if message == CANCELLED:
        return "cancelled"
    return "too_late" if "deadline" in message else "query_killed"
