"""`/`: the reference viewer's page and its files, as Vite built them below `viewer/dist`.

The same for every atlas and without data, so that they are answered without the token; all that
the page shows it asks of the public endpoints.
"""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import zstandard
from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from api.atlas_page_routes import HTML, HTML_UTF8, render
from api.embedding_atlas_routes import FOR_EVER, MEDIA
from api.problems import explain
from api.replies import SMALLEST_COMPRESSED, VARY, choose_coding, names_media_type
from store.errors import ViewerMissingError

router = APIRouter(include_in_schema=False)

DIST = Path(__file__).parent / "viewer" / "dist"

COMMAND = "make viewer"

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)

TYPES = {**MEDIA, ".html": HTML_UTF8, ".svg": "image/svg+xml", ".png": "image/png"}

HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",  # who opens the page cannot steer it any more
}

Listing = tuple[tuple[str, int, int], ...]
"""Names of files relative to their folder, with the time and size that tell of a change."""


@dataclass(frozen=True)
class BuiltFile:
    """A file of the page in each coding that a client may read."""

    media_type: str
    bodies: Mapping[str | None, bytes]


@router.api_route("/", methods=["GET", "HEAD"])
def get_page(request: Request) -> Response:
    """The page for browsers; the links for all others, relative, as a token may precede them."""
    if not names_media_type(request, HTML):
        return Response(status_code=307, headers={"Location": "v1", "Vary": VARY})
    try:
        return _send(request, "index.html", HEADERS)
    except ViewerMissingError as error:
        status, kind, message, headers = explain(error, request.state.request_id)
        request.state.problem = kind
        shown = {"message": message, "command": COMMAND, "back": "atlas/"}
        return render("atlas_problem.html", status, shown, headers)


@router.api_route("/assets/{name}", methods=["GET", "HEAD"])
def get_asset(request: Request, name: str) -> Response:
    """A file whose name changes with its content."""
    return _send(request, f"assets/{name}", {"Cache-Control": FOR_EVER})


@router.api_route("/favicon.svg", methods=["GET", "HEAD"])
def get_icon(request: Request) -> Response:
    """The page's icon."""
    return _send(request, "favicon.svg")


def _send(request: Request, name: str, headers: Mapping[str, str] | None = None) -> Response:
    """A file of the page, compressed as the client likes it.

    Raises:
        HTTPException: 404, the page has none of this name.
        ViewerMissingError: the page is not built.
    """
    site = read_site(DIST, list_files(DIST))
    if name not in site:
        raise HTTPException(404)
    file = site[name]
    coding = choose_coding(request.headers.get("accept-encoding", ""))
    coding = coding if coding in file.bodies else None
    own = {**(headers or {}), "Vary": VARY} | ({"Content-Encoding": coding} if coding else {})
    return Response(file.bodies[coding], headers=own, media_type=file.media_type)


def list_files(folder: Path) -> Listing:
    """The files of a built page.

    Raises:
        ViewerMissingError: it is not built.
    """
    if not (folder / "index.html").is_file():
        raise ViewerMissingError(f"the viewer's page is not built: run `{COMMAND}`")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(
        (path.relative_to(folder).as_posix(), (found := path.stat()).st_mtime_ns, found.st_size)
        for path in files
    )


@lru_cache(maxsize=1)
def read_site(folder: Path, listing: Listing) -> dict[str, BuiltFile]:
    """The listed files of a built page by name, kept until another listing is asked for."""
    return {name: _read_file(folder / name) for name, *_ in listing}


def _read_file(path: Path) -> BuiltFile:
    """A file with its compressed forms, which for what is read once may take their time."""
    body = path.read_bytes()
    bodies: dict[str | None, bytes] = {None: body}
    if path.suffix in (".js", ".css", ".html", ".svg") and len(body) >= SMALLEST_COMPRESSED:
        bodies["gzip"] = gzip.compress(body, 9, mtime=0)
        bodies["zstd"] = zstandard.ZstdCompressor(19).compress(body)
    return BuiltFile(TYPES.get(path.suffix, "application/octet-stream"), bodies)
