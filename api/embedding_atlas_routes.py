"""`/atlas/s/<id>/`: the site of Embedding Atlas over one session, and the data that it asks for.

Its protocol, apart from `atlas_page_routes`, which opens the sessions. All paths that its pages
use are relative, so that the site works below any prefix. A session's id is a secret that lets its
holder in, beside the server's token.
"""

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse, RedirectResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from api.colouring import TABLE
from api.jobs import MEDIA_TYPES, Format
from api.mosaic_requests import FORMATS, MosaicRequest, read_json, read_request
from api.statements import unless_gone
from api.viewer_sessions import ViewerSession, ViewerSessions
from api.viewers import EMBEDDING_ATLAS
from store.errors import QueryError

router = APIRouter(prefix="/atlas/s/{id}", include_in_schema=False)

POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "worker-src 'self' blob:; img-src 'self' data: blob:; font-src 'self' data:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the site may load, found by the browser's complaints; only here, and nothing of others."""

FOR_EVER = "private, max-age=31536000, immutable"
"""For files whose names change with their content."""

MEDIA = {".wasm": "application/wasm", ".js": "text/javascript", ".css": "text/css"}
"""Types that a machine's own list may lack; modules do not run under another."""

SHOWN = {"text": "text", "neighbors": "neighbors"}

METADATA: dict[str, Any] = {
    "props": {
        "data": {"table": TABLE, "id": "id", "projection": {"x": "x", "y": "y"}, **SHOWN},
        "defaultChartsConfig": {
            "exclude": ["id", "sequence_id", "vocab_id", "rank"],  # numbers that measure nothing
            "embedding": {"data": {"x": "x", "y": "y", **SHOWN, "category": "kind"}},
        },
        # Its labels would name words of the texts around the points, not the points.
        "embeddingViewConfig": {"autoLabelEnabled": False},
    },
    "database": {"type": "rest"},  # at data/query; without `load` the table is there already
}

NOTE = re.compile(r"[A-Za-z0-9_.-]{1,200}")

SELECTED = {
    "csv": "SELECT * REPLACE (to_json(neighbors) AS neighbors)",
    "json": "SELECT *",
    "jsonl": "SELECT *",
    "parquet": "SELECT *",
}
"""How the rows of a selection are asked for; CSV has no lists."""


class Selection(BaseModel):
    """Rows that the viewer saves."""

    predicate: str | None = None
    format: Literal["csv", "json", "jsonl", "parquet"]


def _find(request: Request, id: str) -> ViewerSession:
    sessions: ViewerSessions = request.app.state.viewer_sessions
    return sessions.find(id)


Session = Annotated[ViewerSession, Depends(_find)]


@router.get("")
async def get_without_slash(session: Session) -> Response:
    """The address with the slash that relative paths need."""
    return RedirectResponse(f"{session.id}/")


@router.get("/data/metadata.json")
async def get_metadata(session: Session) -> Response:
    """Which table the viewer shows, and what its columns mean."""
    return _as_json(METADATA)


@router.post("/data/query")
async def post_query(request: Request, session: Session) -> Response:
    """The answer of one statement."""
    return await _run(request, session, read_request(await request.body()))


@router.get("/data/query")
async def get_query(request: Request, session: Session, query: Annotated[str, Query()]) -> Response:
    """The same from the URL."""
    return await _run(request, session, read_request(query))


@router.post("/data/selection")
async def post_selection(request: Request, session: Session) -> Response:
    """The rows for which a condition holds, as a file."""
    asked = read_json(Selection, await request.body())
    where = f" WHERE (\n{asked.predicate}\n)" if asked.predicate else ""
    format: Format = "json" if asked.format == "jsonl" else asked.format
    sql = f"{SELECTED[asked.format]} FROM {TABLE}{where}"
    reply = await unless_gone(request, session.run(sql, format))
    body = reply.body
    if asked.format == "jsonl":
        body = await asyncio.to_thread(_to_lines, body)
    return Response(body, media_type="application/octet-stream")


@router.get("/data/cache/{name}")
async def get_note(session: Session, name: str) -> Response:
    """What the viewer keeps under a name."""
    note = session.read_note(name)
    if note is None:
        raise HTTPException(404, "nothing is kept under this name")
    return Response(note, media_type="application/json")


@router.post("/data/cache/{name}")
async def post_note(request: Request, session: Session, name: str) -> Response:
    """Keep something for as long as the session."""
    if not NOTE.fullmatch(name):
        raise QueryError("a name has up to 200 letters, digits, '-', '_' or '.'")
    try:
        session.keep_note(name, orjson.dumps(orjson.loads(await request.body())))
    except orjson.JSONDecodeError as error:
        raise QueryError(f"this is not JSON: {error}") from error
    return _as_json(None)


@router.api_route("/data/dataset.parquet", methods=["GET", "HEAD"])
async def get_dataset(request: Request, session: Session) -> Response:
    """The whole table."""
    reply = await unless_gone(request, session.run(f"SELECT * FROM {TABLE}", "parquet"))
    return Response(reply.body, media_type=MEDIA_TYPES["parquet"])


@router.get("/{path:path}")
async def get_site(session: Session, path: str) -> Response:
    """A file of the viewer's site; its page itself comes from `atlas_page_routes`."""
    return send_file(path)


def send_file(path: str) -> FileResponse:
    """A file of the viewer's site under the policy that it needs.

    Raises:
        HTTPException: 404, it has none of this name.
        ViewerMissingError: it is not installed.
    """
    file = _find_file(EMBEDDING_ATLAS.find_site(), path)
    headers = {"Content-Security-Policy": POLICY}
    if path.startswith("assets/"):
        headers["Cache-Control"] = FOR_EVER
    return FileResponse(file, headers=headers, media_type=MEDIA.get(file.suffix))


async def _run(request: Request, session: ViewerSession, asked: MosaicRequest) -> Response:
    format = FORMATS[asked.type]
    reply = await unless_gone(request, session.run(asked.sql, format))
    if asked.type == "exec":
        return _as_json({})
    return Response(reply.body, media_type=MEDIA_TYPES[format])


def _as_json(content: Mapping[str, Any] | None) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")


def _to_lines(body: bytes) -> bytes:
    """A JSON array as a line a record."""
    return b"".join(orjson.dumps(record) + b"\n" for record in orjson.loads(body))


def _find_file(site: Path, path: str) -> Path:
    """A file of the site.

    Raises:
        HTTPException: 404, there is none of this name in it.
    """
    root = site.resolve()
    try:
        file = (root / path).resolve()
        is_there = file.is_relative_to(root) and file.is_file()
    except (OSError, ValueError):  # too long a name, or one with a zero
        is_there = False
    if not is_there:
        raise HTTPException(404, "the viewer has no such file")
    return file
