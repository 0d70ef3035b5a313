"""`/v1/sql`: users' SQL, run in a worker, as Arrow, JSON, CSV or Parquet."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from api.jobs import MEDIA_TYPES, Ending, Format, SqlJob, SqlReply
from api.pool import Pool
from api.replies import VARY, check_changed, choose_media_type, finish
from api.settings import ServeSettings
from api.statements import client_of, make_job, unless_gone
from store.errors import LimitError, NotInAtlasError

router = APIRouter(tags=["sql"])

EXAMPLE: dict[str, JsonValue] = {
    "sql": "SELECT layer, head, entropy FROM head_measures WHERE model = $model ORDER BY entropy",
    "parameters": {"model": "minilm"},
    "format": "json",
}

MAX_LIMIT = 1 << 53
"""Largest limit on rows or bytes, as JavaScript counts."""

LONGEST_GET = 4_096
"""Bytes of SQL in a URL."""

QueryId = Annotated[str | None, Field(pattern=r"^[A-Za-z0-9_-]{8,64}$")]


class SqlRequest(BaseModel):
    """One statement to run."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLE]})

    sql: str = Field(description="One SELECT, or DESCRIBE, SHOW TABLES, SUMMARIZE, EXPLAIN.")
    parameters: Any = Field(
        default=None,
        description="A list of values for `?` and `$1`, or an object of them for `$name`; a value "
        "is a text, number, true, false, null, or a list of these.",
    )
    format: Format | None = Field(default=None, description="Instead of the header Accept.")
    max_rows: int | None = Field(
        default=None, ge=1, le=MAX_LIMIT, description="Rows at which the reply is cut."
    )
    max_bytes: int | None = Field(
        default=None,
        ge=1,
        le=MAX_LIMIT,
        description="Bytes at which it is cut; above the server's own limit it is streamed whole.",
    )
    timeout_s: float | None = Field(default=None, gt=0, description="Deadline in seconds.")
    id: QueryId = Field(default=None, description="Name by which DELETE /v1/sql/{id} cancels it.")


@router.post("/v1/sql", response_class=Response, summary="Run one SQL statement")
async def post_sql(request: Request, asked: Annotated[SqlRequest, Body()]) -> Response:
    """The answer of one statement.

    The headers X-Rows and X-Truncated say whether a limit cut it; X-Query-Id names it,
    X-Atlas-Version the version that it was asked of.
    """
    settings: ServeSettings = request.app.state.settings
    asked.format = _choose_format(request, asked)
    job = make_job(settings, **vars(asked))
    if job.max_bytes > settings.max_bytes:
        return await _stream(request, job)
    reply = await unless_gone(request, _pool(request).run(job, client_of(request)))
    return await _to_response(request, job, reply)


@router.get("/v1/sql", response_class=Response, summary="Run one short SQL statement")
async def get_sql(
    request: Request,
    sql: Annotated[str, Query(max_length=LONGEST_GET, examples=["SELECT * FROM models"])],
    format: Format | None = None,
) -> Response:
    """The same for a statement in the URL, as browsers and spreadsheets send it."""
    check_changed(request, request.app.state.service.current[0])
    return await post_sql(request, SqlRequest(sql=sql, format=format))


@router.delete("/v1/sql/{id}", status_code=204, summary="Cancel a query")
async def delete_sql(request: Request, id: str) -> None:
    """End a query of one's own that runs or waits."""
    if not await _pool(request).cancel(id, client_of(request)):
        raise NotInAtlasError(f"no query {id} of yours runs or waits")


def _pool(request: Request) -> Pool:
    pool: Pool = request.app.state.pool
    return pool


def _choose_format(request: Request, asked: SqlRequest) -> Format:
    """The format asked for, else the one that Accept likes best, JSON before others."""
    if asked.format is not None:
        return asked.format
    kinds = {kind.partition(";")[0]: format for format, kind in MEDIA_TYPES.items()}
    chosen = choose_media_type(request, ["application/json", *kinds])
    return kinds[chosen]


async def _to_response(request: Request, job: SqlJob, reply: SqlReply) -> Response:
    headers = {
        "X-Rows": str(reply.n_rows),
        "X-Truncated": str(reply.truncated).lower(),
        "X-Query-Id": job.id,
    }
    media_type = MEDIA_TYPES[job.format]
    return await asyncio.to_thread(finish, request, reply.body, media_type, reply.version, headers)


async def _stream(request: Request, job: SqlJob) -> StreamingResponse:
    """A reply above the server's own limit, sent as it comes.

    The first piece is waited for, so that most errors still have a status. One that comes later,
    and a limit that is reached, abort the connection: a stream that is cut short reads without
    error, and its headers are gone.
    """
    items = _pool(request).stream(job, client_of(request))

    async def begin() -> tuple[str, str | bytes | Ending]:
        return str(await anext(items)), await anext(items)

    try:
        version, first = await unless_gone(request, begin())
    except BaseException:
        await items.aclose()
        raise

    async def pieces() -> AsyncIterator[bytes]:
        try:
            if isinstance(first, bytes):
                yield first
            async for item in items:
                if isinstance(item, bytes):
                    yield item
                elif isinstance(item, Ending) and item.truncated:
                    raise LimitError(f"a streamed reply was cut after {item.n_rows:,} rows")
        finally:
            await items.aclose()

    headers = {"X-Query-Id": job.id, "X-Atlas-Version": version, "Vary": VARY}
    return StreamingResponse(pieces(), media_type=MEDIA_TYPES[job.format], headers=headers)
