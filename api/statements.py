"""From a client's statement to a job: what every door to SQL does before a worker sees it."""

import asyncio
import uuid
from collections.abc import Coroutine
from contextlib import suppress
from itertools import chain
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import HTTPConnection

from api.gate import check_text
from api.jobs import Format, SqlJob, SqlReply
from api.pool import Pool
from api.settings import ServeSettings
from store.errors import LimitError, QueryError, QueryKilledError

Result = TypeVar("Result")

SCALARS = (str, int, float, bool, type(None))
MAX_VALUES = 100_000
"""Values of the parameters, those in lists counted."""


def make_job(
    settings: ServeSettings,
    sql: str,
    format: Format,
    parameters: Any = None,
    max_rows: int | None = None,
    max_bytes: int | None = None,
    timeout_s: float | None = None,
    id: str | None = None,
) -> SqlJob:
    """A job within the server's limits; what is None is as the server has it.

    Raises:
        QueryError: the text is too long or too deep, the parameters are none that a statement
            takes, or the deadline is above the server's.
    """
    check_text(sql)
    check_parameters(parameters)
    timeout_s = timeout_s or settings.timeout_s
    if timeout_s > settings.max_timeout_s:
        raise QueryError(f"timeout_s is {timeout_s:g}, at most {settings.max_timeout_s:g} here")
    return SqlJob(
        sql=sql,
        parameters=parameters,
        format=format,
        max_rows=max_rows or settings.max_rows,
        max_bytes=max_bytes or settings.max_bytes,
        timeout_s=timeout_s,
        id=id or uuid.uuid4().hex,
    )


async def run_whole(pool: Pool, job: SqlJob, client: str) -> SqlReply:
    """The answer of a job, for clients that could not tell that a limit cut it.

    Raises:
        LimitError: a limit cut it.
        BusyError: too many queries wait.
        QueryError: the statement is refused or fails.
        QueryKilledError: deadline, memory, cancellation or a fault ended it.
    """
    return check_whole(await pool.run(job, client), job)


def check_whole(reply: SqlReply, job: SqlJob) -> SqlReply:
    """An answer, unless a limit cut it.

    Raises:
        LimitError: one did.
    """
    if reply.truncated:
        raise LimitError(
            f"the answer has more than {job.max_rows:,} rows or {job.max_bytes:,} bytes: "
            "aggregate, sample or add LIMIT"
        )
    return reply


def client_of(connection: HTTPConnection) -> str:
    """Who asks: fair shares go by address."""
    return connection.client.host if connection.client else ""


def check_parameters(parameters: Any) -> None:
    """Refuse parameters that no statement takes; ends at the first.

    Raises:
        QueryError: what is wrong.
    """
    if parameters is None:
        return
    if not isinstance(parameters, list | dict):
        raise QueryError("parameters are a list, or an object of names and values")
    values = parameters
    if isinstance(parameters, dict):
        values = [*parameters.keys(), *parameters.values()]
    flat = chain.from_iterable(v if isinstance(v, list) else (v,) for v in values)
    for number, value in enumerate(flat, start=1):
        if number > MAX_VALUES:
            raise QueryError(f"the parameters have more than {MAX_VALUES:,} values")
        if not isinstance(value, SCALARS):
            raise QueryError("a parameter is a text, number, true, false, null, or a list of these")
        if isinstance(value, str) and not _is_unicode(value):
            raise QueryError("a parameter holds half a character: send whole ones")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


async def unless_gone(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of some work, which ends when the client goes away."""
    task = asyncio.create_task(work)
    watch = asyncio.create_task(_wait_until_gone(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise QueryKilledError("the client went away")
        return task.result()
    finally:
        for other in (task, watch):
            other.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await other


async def _wait_until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
