import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from starlette.testclient import TestClient

from api import viewer_page
from tests.api.small_app import TOKEN, error_of, running_app
from tests.store.lake_fixture import build_atlas

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
SCRIPT = b"export const page = 1;\n" * 200
FILES = {
    "index.html": b'<!doctype html><script type="module" src="./assets/index-abc.js"></script>',
    "favicon.svg": b"<svg/>",
    "assets/index-abc.js": SCRIPT,
    "assets/index-abc.css": b"body { margin: 0 }",
}
LIVE_PATHS = ("", f"/t/{TOKEN}")


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_atlas(tmp_path_factory.mktemp("atlas"))


@pytest.fixture
def dist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "viewer" / "dist"
    for name, content in FILES.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    (folder.parent / "secret.txt").write_text("secret")
    monkeypatch.setattr(viewer_page, "DIST", folder)
    return folder


@pytest.fixture(scope="module")
def client(atlas: Path) -> Iterator[TestClient]:
    with running_app(atlas, token=TOKEN) as client:
        yield client


@pytest.mark.parametrize("below", LIVE_PATHS)
def test_a_browser_gets_the_page_and_others_the_links(
    client: TestClient, dist: Path, below: str
) -> None:
    page = client.get(f"{below}/", headers=BROWSER)
    assert (page.status_code, page.content) == (200, FILES["index.html"])
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "private, no-cache"
    assert "Accept" in page.headers["vary"]
    for accept in ("*/*", "application/json", "text/html;q=0"):
        links = client.get(f"{below}/", headers={"Accept": accept}, follow_redirects=False)
        assert (links.status_code, links.headers["location"]) == (307, "v1")


def test_the_page_may_load_nothing_from_elsewhere_and_run_nothing_inline(
    client: TestClient, dist: Path
) -> None:
    headers = client.get("/", headers=BROWSER).headers
    assert headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    )
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"


@pytest.mark.parametrize("below", LIVE_PATHS)
def test_files_come_with_their_type_and_for_ever(
    client: TestClient, dist: Path, below: str
) -> None:
    types = {"assets/index-abc.js": "text/javascript", "assets/index-abc.css": "text/css"}
    for name, kind in types.items():
        reply = client.get(f"{below}/{name}")
        assert (reply.status_code, reply.content) == (200, FILES[name])
        assert reply.headers["content-type"].startswith(kind)
        assert reply.headers["cache-control"] == "private, max-age=31536000, immutable"
    icon = client.get(f"{below}/favicon.svg")
    assert (icon.content, icon.headers["content-type"]) == (b"<svg/>", "image/svg+xml")
    assert icon.headers["cache-control"] == "private, no-cache"


def test_long_files_are_compressed_as_the_client_likes(client: TestClient, dist: Path) -> None:
    url = "http://localhost:8765/assets/index-abc.js"
    for accepted, coding, decode in (
        ("gzip, deflate, br, zstd", "zstd", zstandard.ZstdDecompressor().decompress),
        ("gzip", "gzip", gzip.decompress),
        ("br", None, bytes),
    ):
        with client.stream("GET", url, headers={"Accept-Encoding": accepted}) as reply:
            raw = b"".join(reply.iter_raw())
        assert reply.headers.get("content-encoding") == coding
        assert decode(raw) == SCRIPT
        assert "Accept-Encoding" in reply.headers["vary"]
        assert len(raw) == int(reply.headers["content-length"])
    short = client.get("/assets/index-abc.css", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in short.headers


@pytest.mark.parametrize(
    "path",
    [
        "/assets/nope.js",
        "/assets/",
        "/assets/..%2f..%2fsecret.txt",
        "/assets/%2e%2e/index.html",
        "/assets/%2e%2e%2f%2e%2e%2fsecret.txt",
        "/assets/..%2findex.html",
        "/assets/index-abc.js%00",
        "/assets//index-abc.js",
        f"/t/{TOKEN}/assets/..%2f..%2fsecret.txt",
        f"/t/{TOKEN}/index.html",
    ],
)
def test_only_files_of_the_page_are_given(client: TestClient, dist: Path, path: str) -> None:
    reply = client.get(path)
    assert error_of(reply)[:2] == (404, "not_found")
    assert "secret" not in reply.text


@pytest.mark.parametrize(
    "path",
    ["/index.html", "/t/wrong/v1", "/t/wrong/index.html", "/assets", "/faviconXsvg", "/v1"],
)
def test_all_else_needs_the_token(client: TestClient, dist: Path, path: str) -> None:
    assert error_of(client.get(path, headers=BROWSER))[:2] == (401, "unauthorized")


def test_an_old_token_gets_the_page_that_asks_for_a_new_one_and_nothing_else(
    client: TestClient,
) -> None:
    page = {"Accept": "text/html"}
    assert client.get("/t/an-old-token/", headers=page).status_code in (200, 501)
    assert client.get("/t/an-old-token/v1/models", headers=page).status_code == 401
    assert client.get("/t/an-old-token/healthz").status_code == 401


def test_a_forgotten_slash_behind_the_token_is_added(client: TestClient) -> None:
    reply = client.get("/t/a token", follow_redirects=False)
    assert (reply.status_code, reply.headers["Location"]) == (307, "./a%20token/")


def test_a_head_request_is_answered(client: TestClient, dist: Path) -> None:
    for path in ("/", "/assets/index-abc.js", "/favicon.svg"):
        reply = client.head(path, headers=BROWSER)
        assert (reply.status_code, reply.content) == (200, b"")


def test_a_page_that_is_built_anew_is_served_without_a_restart(
    client: TestClient, dist: Path
) -> None:
    assert client.get("/assets/index-abc.js").status_code == 200
    (dist / "assets" / "index-abc.js").rename(dist / "assets" / "index-def.js")
    (dist / "index.html").write_bytes(b"<!doctype html><p>new page")
    assert client.get("/assets/index-abc.js").status_code == 404
    assert client.get("/assets/index-def.js").content == SCRIPT
    assert client.get("/", headers=BROWSER).text == "<!doctype html><p>new page"


def test_a_page_that_is_not_built_says_how(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewer_page, "DIST", tmp_path / "none")
    page = client.get("/", headers=BROWSER)
    assert page.status_code == 501
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<code>make viewer</code>" in page.text
    assert "script-src" not in page.headers["content-security-policy"]
    assert client.get("/", follow_redirects=False).status_code == 307
    status, kind, message = error_of(client.get("/assets/index-abc.js"))
    assert (status, kind) == (501, "viewer_missing")
    assert message == "the viewer's page is not built: run `make viewer`"
