"""`/mosaic` over HTTP: SQL as Mosaic's clients send it to its older and newer servers.

Beside `/v1/sql`, as its clients can set no header and take no answer that a limit cut.
"""

import asyncio
from typing import Annotated
from weakref import WeakValueDictionary

from fastapi import APIRouter, Query, Request, Response
from starlette.datastructures import State

from api.jobs import MEDIA_TYPES, SqlReply
from api.mosaic_requests import FORMATS, MosaicRequest, check_fields, read_request
from api.replies import check_changed, finish
from api.settings import ServeSettings
from api.statements import client_of, make_job, run_whole, unless_gone

router = APIRouter(tags=["mosaic"])

BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": MosaicRequest.model_json_schema()}},
    }
}


class Shares:
    """How many queries each client runs: as many as it may hold workers.

    The rest wait here, as Mosaic's client sends 32 at a time and gives up one that is refused.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self.most = min(settings.workers - 1, settings.max_waiting_per_client)
        self._by_client: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def find(self, client: str) -> asyncio.Semaphore:
        """The share of a client, forgotten with the last of its queries."""
        return self._by_client.setdefault(client, asyncio.Semaphore(self.most))


async def run_asked(
    state: State, asked: MosaicRequest, client: str, max_bytes: int | None = None
) -> SqlReply:
    """The whole answer of a request.

    Args:
        state: of the app.
        asked: what to run.
        client: who asks.
        max_bytes: of the answer; None for the server's limit.

    Raises:
        BusyError: too many queries of others wait.
        LimitError: a limit cut the answer.
        QueryError: the statement is refused or fails.
        QueryKilledError: deadline, memory or a fault ended it.
    """
    job = make_job(state.settings, asked.sql, FORMATS[asked.type], max_bytes=max_bytes)
    async with state.mosaic_shares.find(client):
        return await run_whole(state.pool, job, client)


@router.post("/mosaic/", response_class=Response, include_in_schema=False)
@router.post(
    "/mosaic", response_class=Response, summary="Run a query of Mosaic's", openapi_extra=BODY
)
async def post_mosaic(request: Request) -> Response:
    """The answer of one statement, whole: one that a limit would cut is an error."""
    return await _answer(request, read_request(await request.body()))


@router.get("/mosaic/", response_class=Response, include_in_schema=False)
@router.get("/mosaic", response_class=Response, summary="Run a query of Mosaic's in a URL")
async def get_mosaic(
    request: Request,
    query: Annotated[str | None, Query(description="The request as JSON.")] = None,
    type: Annotated[str | None, Query(description="Without `query`: its type.")] = None,
    sql: Annotated[str | None, Query(description="Without `query`: its statement.")] = None,
) -> Response:
    """The same for a request in the URL: `?query=` as JSON, or `?type=` and `?sql=`."""
    check_changed(request, request.app.state.service.current[0])
    if query is not None:
        return await _answer(request, read_request(query))
    given = {"type": type, "sql": sql}
    return await _answer(request, check_fields({k: v for k, v in given.items() if v is not None}))


async def _answer(request: Request, asked: MosaicRequest) -> Response:
    work = run_asked(request.app.state, asked, client_of(request))
    reply = await unless_gone(request, work)
    if asked.type == "exec":
        return Response()
    media_type = MEDIA_TYPES[FORMATS[asked.type]]
    return await asyncio.to_thread(finish, request, reply.body, media_type, reply.version)
