"""From an exception to a status and a JSON error: the only place where one becomes a reply.

Messages of 5xx stay in the log, as they may hold paths; the reply names the request there.
"""

import logging
from collections.abc import Mapping
from http import HTTPStatus

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from store.errors import (
    AtlasError,
    BusyError,
    ConfigError,
    LimitError,
    NotInAtlasError,
    NotOfferedError,
    ObjectStoreError,
    QueryError,
    QueryKilledError,
    SessionEndedError,
    StaleVersionError,
    ViewerMissingError,
)

log = logging.getLogger("qkatlas.problems")

KINDS: dict[type[AtlasError], tuple[int, str]] = {
    NotInAtlasError: (404, "not_found"),
    StaleVersionError: (410, "stale_version"),
    SessionEndedError: (410, "session_ended"),
    ViewerMissingError: (501, "viewer_missing"),
    NotOfferedError: (501, "not_offered"),
    LimitError: (413, "over_limit"),
    BusyError: (429, "busy"),
    QueryKilledError: (422, "query_killed"),
    QueryError: (400, "bad_query"),
    ConfigError: (400, "bad_request"),
}
"""Status and kind of the errors whose message is for the client."""

MAX_MISTAKES = 5
"""How many mistakes of a request its reply lists."""

INTERNAL = "internal error; the server's log has it under {}"

SILENT = "the atlas's object store does not answer; ask again later (in the server's log under {})"
RETRY_SILENT_S = 10

_LOGGED = {500: INTERNAL, 503: SILENT}
"""What clients are told in place of messages that stay in the log."""


def to_reply(error: Exception, request_id: str, hidden: str = "") -> tuple[str, Response]:
    """The kind of a problem, and the reply that tells the client of it.

    Args:
        error: whatever went wrong.
        request_id: names the request in the log.
        hidden: the atlas's folder or URI, which is cut out of messages.
    """
    status, kind, message, headers = explain(error, request_id, hidden)
    if status == HTTPStatus.NOT_MODIFIED:
        return kind, Response(status_code=status, headers=headers)
    body = orjson.dumps({"error": {"kind": kind, "message": message}})
    return kind, Response(body, status, headers, "application/json")


def explain(
    error: Exception, request_id: str, hidden: str = ""
) -> tuple[int, str, str, Mapping[str, str] | None]:
    """Status, kind, message and headers of a problem, for doors that speak no HTTP too.

    Args:
        error: whatever went wrong; what is not for the client is logged here.
        request_id: names the request in the log.
        hidden: the atlas's folder or URI, which is cut out of messages.
    """
    status, kind, message, headers = _explain(error)
    if status in _LOGGED:
        log.error("a request failed", exc_info=error, extra={"fields": {"request_id": request_id}})
        message = _LOGGED[status].format(request_id)
    if hidden:
        message = message.replace(f" {hidden}", "").replace(hidden, "atlas")
    return status, kind, message, headers


def _explain(error: Exception) -> tuple[int, str, str, Mapping[str, str] | None]:
    """Status, kind, message and headers."""
    if isinstance(error, HTTPException):
        said = HTTPStatus(error.status_code)
        unknown = said == HTTPStatus.NOT_FOUND and error.detail == said.phrase
        message = "no such path; /v1 lists where to go" if unknown else str(error.detail)
        return said, said.name.lower(), message, error.headers
    if isinstance(error, ClientDisconnect):
        return 400, "client_gone", "the client went away before its request had arrived", None
    if isinstance(error, RequestValidationError):
        return 400, "bad_request", _list_mistakes(error), None
    if isinstance(error, ObjectStoreError):
        return 503, "store_silent", "", {"Retry-After": str(RETRY_SILENT_S)}
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, BusyError) else None
    for known, (status, kind) in KINDS.items():
        if isinstance(error, known):
            return status, kind, str(error), headers
    return 500, "internal", "", None


def _list_mistakes(error: RequestValidationError) -> str:
    """What FastAPI found wrong with a request, without the values that it was sent."""
    return "; ".join(
        f"{'.'.join(str(part) for part in one['loc'])[:200]}: {one['msg'][:200]}"
        for one in error.errors()[:MAX_MISTAKES]
    )
