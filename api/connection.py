"""A connection to a running service: address and token, pages and retries, errors as they are here.

Apart from `remote`, which only knows what there is to ask. The token goes into one header and
nowhere else: not into `repr`, not into a message.
"""

import os
import re
import time
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit, urlunsplit

import httpx
import pyarrow as pa

from api.jobs import MEDIA_TYPES
from api.settings import LOOPBACK, TOKEN
from store.errors import (
    AtlasError,
    AtlasNotFoundError,
    BusyError,
    ConfigError,
    LimitError,
    NotInAtlasError,
    NotOfferedError,
    QueryError,
    QueryKilledError,
    ServiceError,
    SessionEndedError,
    StaleVersionError,
    ViewerMissingError,
)

ARROW, JSON = MEDIA_TYPES["arrow"], MEDIA_TYPES["json"]
END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""The last bytes of every whole Arrow IPC stream."""

PAGE_ROWS = 100_000
TRIES = 4
"""How often a request is made while the service is busy."""
LONGEST_WAIT_S = 30.0
CONNECT_S, REPLY_S = 5.0, 330.0
"""Seconds to wait for a connection, and for the next bytes of a reply: above any SQL deadline."""

ERRORS: dict[str, type[AtlasError]] = {
    "not_found": NotInAtlasError,
    "stale_version": StaleVersionError,
    "session_ended": SessionEndedError,
    "viewer_missing": ViewerMissingError,
    "not_offered": NotOfferedError,
    "over_limit": LimitError,
    "query_killed": QueryKilledError,
    "bad_query": QueryError,
    "bad_request": ConfigError,
}
"""Kinds of trouble and their classes: `api.problems` the other way round, without its imports."""


class Connection:
    """Requests to one service, from any thread."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.url, found = split_address(url)
        token = token or found or os.environ.get("QKATLAS_TOKEN") or None
        if token is not None and not re.fullmatch(TOKEN, token):
            raise ConfigError("the token is none: 16 to 200 letters, digits, '-' or '_'")
        self._has_token = token is not None
        local = urlsplit(self.url).hostname in LOOPBACK
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= {"Accept-Encoding": "identity"} if local else {}
        self._http = httpx.Client(
            base_url=self.url,
            headers=headers,
            timeout=httpx.Timeout(REPLY_S, connect=CONNECT_S),
            trust_env=not local,  # a proxy cannot reach this machine's own addresses
        )

    def close(self) -> None:
        """Close the sockets; no request can follow."""
        self._http.close()

    def get_table(self, path: str, parameters: Mapping[str, object] | None = None) -> pa.Table:
        """All pages of a listing, of one version of the atlas. Raises as `send`."""
        wanted = _given(parameters) | {"limit": PAGE_ROWS}
        pages = []
        while True:
            reply = self.send("GET", path, ARROW, wanted)
            pages.append(self.read_arrow(reply))
            cursor = reply.headers.get("X-Next-Cursor")
            if not cursor:
                return pa.concat_tables(pages)
            wanted["cursor"] = cursor

    def get_document(self, path: str, parameters: Mapping[str, object]) -> dict[str, pa.Array]:
        """A reply that is more than one table: its fields as arrays of one. Raises as `send`."""
        (fields,) = self.read_arrow(self.send("GET", path, ARROW, _given(parameters))).to_batches()
        return dict(zip(fields.schema.names, fields.columns, strict=True))

    def send(
        self,
        method: str,
        path: str,
        accept: str,
        parameters: Mapping[str, Any] | None = None,
        body: bytes | None = None,
    ) -> httpx.Response:
        """One reply, read to its end; waits and asks again while the service is busy.

        Raises:
            AtlasNotFoundError: nothing answers at the address.
            ConfigError: the service wants a token, or another one.
            AtlasError: the service refused or failed; of the class that the local atlas raises.
        """
        headers = {"Accept": accept} | ({"Content-Type": JSON} if body is not None else {})
        for attempt in range(TRIES):
            try:
                reply = self._http.request(
                    method, path, params=parameters, content=body, headers=headers
                )
            except httpx.RequestError as error:
                raise self._no_reply(error) from None
            if reply.status_code != httpx.codes.TOO_MANY_REQUESTS or attempt == TRIES - 1:
                break
            time.sleep(min(_retry_after(reply), LONGEST_WAIT_S))
        if reply.is_success:
            return reply
        raise self._refusal(reply)

    def read_arrow(self, reply: httpx.Response) -> pa.Table:
        """The table of a reply, which is checked to be whole.

        A stream that ends between two batches reads short and without error.

        Raises:
            ServiceError: it is no Arrow stream, or it was cut.
        """
        n_rows = reply.headers.get("X-Rows")
        try:
            table = pa.ipc.open_stream(reply.content).read_all()
        except pa.ArrowException:
            raise self._foreign(reply) from None
        whole = reply.content.endswith(END_OF_STREAM)
        if not whole or (n_rows is not None and int(n_rows) != len(table)):
            raise ServiceError(
                f"the reply of {self.url} was cut: {len(table):,} of {n_rows or 'more'} rows came; "
                "ask again"
            )
        return table

    def _refusal(self, reply: httpx.Response) -> AtlasError:
        """The error that a reply stands for."""
        if reply.status_code == httpx.codes.UNAUTHORIZED:
            trouble = "does not take this token" if self._has_token else "wants a token"
            return ConfigError(
                f"the service at {self.url} {trouble}: give the one that `qkatlas serve` was "
                "started with, as token=…, in QKATLAS_TOKEN, or as the address ending in /t/TOKEN/"
            )
        try:
            problem = cast(dict[str, str], reply.json()["error"])
            kind, message = problem["kind"], problem["message"]
        except (ValueError, LookupError, TypeError):
            return self._foreign(reply)
        if reply.status_code == httpx.codes.TOO_MANY_REQUESTS:
            return BusyError(message, int(_retry_after(reply)))
        return ERRORS.get(kind, ServiceError)(message)

    def _no_reply(self, error: httpx.RequestError) -> AtlasError:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return AtlasNotFoundError(
                f"no service at {self.url} ({error}): start one with `qkatlas serve --atlas URI`"
            )
        trouble = "took too long" if isinstance(error, httpx.TimeoutException) else "broke off"
        return ServiceError(f"the service at {self.url} {trouble} ({type(error).__name__})")

    def _foreign(self, reply: httpx.Response) -> AtlasError:
        return ServiceError(
            f"{self.url} answered {reply.status_code}, but not as QK Atlas does: is the URL right?"
        )


def split_address(url: str) -> tuple[str, str | None]:
    """An address without its token, ending in a slash, and the token of `/t/TOKEN/` if any.

    Raises:
        ConfigError: it is no address of a service.
    """
    expected = "expected the address of a service, like http://127.0.0.1:8765/"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError as error:  # a port that is no number
        raise ConfigError(f"{expected}: {error}") from None
    if not usable or "@" in parts.netloc:
        raise ConfigError(expected)
    found = re.fullmatch(r"(?P<path>.*?)(?:/t/(?P<token>[^/]+))?/*", parts.path)
    assert found is not None
    return urlunsplit((parts.scheme, parts.netloc, f"{found['path']}/", "", "")), found["token"]


def _given(parameters: Mapping[str, object] | None) -> dict[str, Any]:
    """Parameters that were given."""
    return {name: value for name, value in (parameters or {}).items() if value is not None}


def _retry_after(reply: httpx.Response) -> float:
    """Seconds after which a busy service wants to be asked again."""
    said = reply.headers.get("Retry-After", "1")
    return float(said) if said.isdecimal() else 1.0
