"""`/atlas/`: the page that lists heads with their maps, and opens each in Embedding Atlas.

Without scripts, so that its policy can forbid them all: what to list is in the URL, and a button is
a form. Apart from `embedding_atlas_routes`, which is the viewer's own protocol.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException

from api.atlas_page import MAX_POINTS, N_POINTS, Choice, read_page
from api.embedding_atlas_routes import send_file
from api.problems import explain
from api.replies import JSON, choose_media_type
from api.statements import client_of
from api.viewer_sessions import ViewerSessions
from api.viewers import EMBEDDING_ATLAS
from store.errors import (
    BusyError,
    NotInAtlasError,
    QueryError,
    QueryKilledError,
    SessionEndedError,
    ViewerMissingError,
)

router = APIRouter(prefix="/atlas", include_in_schema=False)

HERE = Path(__file__).parent

POLICY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",  # under no-referrer a form's Origin would be null
}

PAGES = Environment(
    loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)

HTML = "text/html"
HTML_UTF8 = "text/html; charset=utf-8"

TOLD = (BusyError, NotInAtlasError, QueryError, QueryKilledError, ViewerMissingError)
"""Errors of opening a session that the page shows."""

SAFE_SITES = (None, "same-origin", "none")
"""What Sec-Fetch-Site says of a form of ours, where a browser says it."""


@router.get("")
async def get_without_slash() -> Response:
    """The address with the slash that relative paths need."""
    return RedirectResponse("atlas/")


@router.get("/atlas.css")
async def get_style() -> Response:
    """The page's style."""
    return FileResponse(HERE / "atlas_page.css", media_type="text/css")


@router.get("/")
async def get_page(request: Request, choice: Annotated[Choice, Query()]) -> Response:
    """Models, heads and maps, with a button for each map."""
    version, atlas = request.app.state.service.current
    try:
        EMBEDDING_ATLAS.find_site()
        listed = await asyncio.to_thread(read_page, atlas, choice)
    except TOLD as error:
        return _tell(request, error, "./")
    sessions = _sessions(request).of(client_of(request))
    return render("atlas_page.html", 200, {**listed, "version": version, "sessions": sessions})


@router.post("/sessions")
async def post_session(request: Request) -> Response:
    """A new session, to whose address the browser goes."""
    version, atlas = request.app.state.service.current
    try:
        EMBEDDING_ATLAS.find_site()
        form = await _read_form(request)
        session = await _sessions(request).open(
            atlas, version, form.get("map_id", ""), _read_points(form), client_of(request)
        )
    except TOLD as error:
        return _tell(request, error, "./")
    return RedirectResponse(f"s/{session.id}/", 303)


@router.post("/s/{id}/end")
async def post_end(request: Request, id: str) -> Response:
    """End a session, which who knows its id may do."""
    await _read_form(request)
    sessions = _sessions(request)
    try:
        sessions.find(id)
    except SessionEndedError as error:
        return _tell(request, error, "../../")
    await sessions.end(id)
    return RedirectResponse("../../", 303)


@router.get("/s/{id}/")
async def get_site(request: Request, id: str) -> Response:
    """The page of the viewer, or of what to do where the session has ended."""
    try:
        _sessions(request).find(id)
        return send_file("index.html")
    except (SessionEndedError, ViewerMissingError) as error:
        return _tell(request, error, "../../")


def _tell(request: Request, error: Exception, back: str) -> Response:
    """A page that tells of an error, or the JSON that all other paths give."""
    if choose_media_type(request, (HTML, JSON)) == JSON:
        raise error
    status, kind, message, headers = explain(
        error, request.state.request_id, request.app.state.service.uri
    )
    request.state.problem = kind
    command = EMBEDDING_ATLAS.command if isinstance(error, ViewerMissingError) else None
    page = {"message": message, "command": command, "back": back}
    return render("atlas_problem.html", status, page, headers)


def render(
    name: str, status: int, page: dict[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    """A page of ours from its template, under the policy that forbids scripts."""
    text = PAGES.get_template(name).render(page)
    return Response(text, status, {**POLICY, **(headers or {})}, HTML_UTF8)


async def _read_form(request: Request) -> dict[str, str]:
    """The fields of a form of ours.

    Raises:
        HTTPException: 403, a page of another site sent it.
        QueryError: it is no text.
    """
    if request.headers.get("sec-fetch-site") not in SAFE_SITES:
        raise HTTPException(403, "forms of other sites are not taken: open the page /atlas/")
    try:
        text = (await request.body()).decode()
        return {name: values[-1] for name, values in parse_qs(text, max_num_fields=20).items()}
    except ValueError as error:
        raise QueryError(f"the form cannot be read: {error}") from error


def _read_points(form: dict[str, str]) -> int:
    text = form.get("points", str(N_POINTS))
    n_points = int(text) if text.isdecimal() and len(text) < 10 else 0
    if not 1 <= n_points <= MAX_POINTS:
        raise QueryError(f"points is {text[:20]!r}, expected 1 to {MAX_POINTS:,}")
    return n_points


def _sessions(request: Request) -> ViewerSessions:
    sessions: ViewerSessions = request.app.state.viewer_sessions
    return sessions
