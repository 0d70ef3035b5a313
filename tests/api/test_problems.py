import json

import pytest
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from api.flight_errors import Busy, to_flight
from api.problems import to_reply
from store.errors import (
    AtlasFormatError,
    AtlasNotFoundError,
    BusyError,
    CommitError,
    ConfigError,
    LimitError,
    NotInAtlasError,
    ObjectStoreError,
    QueryError,
    QueryKilledError,
    SessionEndedError,
    StaleVersionError,
    ViewerMissingError,
)

HIDDEN = "/a/secret/atlas"


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (NotInAtlasError("why"), 404, "not_found"),
        (QueryError("why"), 400, "bad_query"),
        (ConfigError("why"), 400, "bad_request"),
        (LimitError("why"), 413, "over_limit"),
        (StaleVersionError("why"), 410, "stale_version"),
        (SessionEndedError("why"), 410, "session_ended"),
        (ViewerMissingError("why"), 501, "viewer_missing"),
        (QueryKilledError("why"), 422, "query_killed"),
        (BusyError("why", 3), 429, "busy"),
        (HTTPException(406, "why"), 406, "not_acceptable"),
    ],
)
def test_errors_of_the_client_say_what_is_wrong(error: Exception, status: int, kind: str) -> None:
    said, reply = to_reply(error, "id")
    assert (said, reply.status_code) == (kind, status)
    assert json.loads(bytes(reply.body)) == {"error": {"kind": kind, "message": "why"}}


def test_a_client_that_goes_is_no_fault_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    kind, reply = to_reply(ClientDisconnect(), "id")
    assert (kind, reply.status_code) == ("client_gone", 400)
    assert caplog.records == []


def test_a_busy_server_says_when_to_come_back() -> None:
    assert to_reply(BusyError("why", 3), "id")[1].headers["retry-after"] == "3"


def test_a_silent_object_store_says_when_to_come_back_and_not_where_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = ObjectStoreError(f"s3://lab{HIDDEN}: http://10.0.0.7:9000 does not answer")
    kind, reply = to_reply(error, "id-of-it", f"s3://lab{HIDDEN}")
    assert (kind, reply.status_code) == ("store_silent", 503)
    assert int(reply.headers["retry-after"]) > 0
    assert b"id-of-it" in reply.body and b"object store does not answer" in reply.body
    assert b"10.0.0.7" not in reply.body and HIDDEN.encode() not in reply.body
    assert "10.0.0.7" in caplog.text
    told = to_flight(error, "id-of-it")[2]
    assert isinstance(told, Busy) and "10.0.0.7" not in str(told)


@pytest.mark.parametrize(
    "error",
    [
        AtlasFormatError(f"{HIDDEN}/points is damaged"),
        AtlasNotFoundError(f"no atlas at {HIDDEN}"),
        CommitError(HIDDEN),
        FileNotFoundError(2, "No such file", HIDDEN),
        KeyError(HIDDEN),
    ],
)
def test_all_other_errors_name_only_the_request(error: Exception) -> None:
    kind, reply = to_reply(error, "id-of-it")
    assert (kind, reply.status_code) == ("internal", 500)
    assert b"id-of-it" in reply.body
    assert HIDDEN.encode() not in reply.body


def test_the_atlas_folder_is_cut_out_of_messages() -> None:
    error = NotInAtlasError(f"no model x in the atlas {HIDDEN}, see {HIDDEN}/maps or '{HIDDEN}'")
    body = bytes(to_reply(error, "id", HIDDEN)[1].body)
    assert b"no model x in the atlas, see/maps or 'atlas'" in body


def test_a_malformed_request_is_told_what_is_malformed() -> None:
    mistake = {"loc": ("query", "limit"), "msg": "Input should be a number", "input": "x" * 999}
    _, reply = to_reply(RequestValidationError([mistake]), "id")
    message = json.loads(bytes(reply.body))["error"]["message"]
    assert (reply.status_code, message) == (400, "query.limit: Input should be a number")
