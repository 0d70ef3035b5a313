"""What the page shows where something is missing: links, sequences, servers, tokens, WebGL."""

import shutil
import signal
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from flows.drop import drop_from_atlas
from tests.api.own_server import running_server
from tests.browser.demo_atlas import find_demo_atlas
from tests.browser.viewer_page import Viewer, open_viewer, wait_until, write_address
from tests.store.lake_fixture import create_tables

HEAD = {"model": "minilm", "layer": 0, "head": 3, "method": "pca"}
LISTED = "models/decoder/sequences"
TOKEN = "a-token-of-20-letters"


def test_unknown_model_and_sequence_in_a_link_lead_on(viewer: Viewer) -> None:
    viewer.may_fail = True
    viewer.page.goto(viewer.base + write_address(view="matrix", model="of another atlas"))
    notice = viewer.page.get_by_role("alert")
    expect(notice).to_contain_text("No model of another atlas")
    notice.get_by_role("button", name="minilm").click()
    viewer.wait_drawn("matrix")
    viewer.open("sentence", model="minilm", sequenceId=987654321)
    expect(viewer.page.locator(".problem")).to_contain_text("No longer in the atlas")
    viewer.page.get_by_role("button", name="Show the first of minilm").click()
    viewer.wait_drawn("sentence")
    expect(viewer.page.locator(".sentence-token").first).to_be_visible()


def test_malformed_address_shows_the_usual_view(viewer: Viewer) -> None:
    viewer.page.goto(f"{viewer.base}#view=nothing&layer=%5B&dims=7&point=q:1&selector=%7B%22by")
    viewer.wait_drawn("matrix")


@pytest.fixture
def own_atlas(tmp_path: Path) -> Path:
    """A copy of the atlas, to be changed."""
    return shutil.copytree(find_demo_atlas(), tmp_path / "atlas")


def test_sequence_deleted_between_clicks_is_said_and_left(
    browser: Browser, own_atlas: Path, tmp_path: Path
) -> None:
    with (
        running_server(own_atlas, tmp_path, refresh_s=0.2) as server,
        open_viewer(browser, server.urls[0]) as viewer,
    ):
        viewer.may_fail = True
        id = viewer.ask(LISTED, corpus="strangers")["rows"][0]["sequence_id"]
        viewer.open("single", model="decoder", point=f"q:{id}:1")
        expect(viewer.page.locator(".single-text").first).to_be_visible()
        drop_from_atlas(str(own_atlas), "corpus", "strangers")
        listed = f"{viewer.base}v1/{LISTED}?corpus=strangers"
        wait_until(viewer.page, lambda: viewer.page.request.get(listed).status == 404)
        viewer.page.get_by_role("button", name="Open in Sentence View").click()
        expect(viewer.page.locator(".problem").first).to_contain_text("No longer in the atlas")
        viewer.page.get_by_role("button", name="Show the first of decoder").click()
        viewer.wait_drawn("sentence")
        expect(viewer.page.locator(".sentence-token").first).to_be_visible()


def test_server_that_goes_away_is_waited_for(
    browser: Browser, viewer_service: str, tmp_path: Path
) -> None:
    with running_server(find_demo_atlas(), tmp_path) as server:
        port = server.address[1]
        with open_viewer(browser, server.urls[0]) as viewer:
            viewer.may_fail = True
            viewer.open("sentence", model="minilm", sequenceId=3)
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
            viewer.page.get_by_role("button", name="Next sequence").click()
            banner = viewer.page.locator(".connection-banner")
            expect(banner).to_contain_text("The server does not answer")
            folder = tmp_path / "again"
            folder.mkdir()
            with running_server(find_demo_atlas(), folder, port=port):
                expect(banner).to_have_text("")
                viewer.wait_drawn("sentence")
                assert viewer.state["sequenceId"] == 4


def test_token_is_asked_for_and_never_shared(browser: Browser, tmp_path: Path) -> None:
    with running_server(find_demo_atlas(), tmp_path, token=TOKEN) as server:
        host, port = server.address
        base = f"http://{host}:{port}/"
        with open_viewer(browser, base) as viewer:
            viewer.may_fail = True
            viewer.page.goto(base + write_address(view="table", model="minilm"))
            form = viewer.page.locator(".token-form")
            form.get_by_label("Token").fill("another-token-of-20")
            form.get_by_role("button").click()
            expect(viewer.page.get_by_role("alert")).to_contain_text("not the token")
            form.get_by_label("Token").fill(TOKEN)
            form.get_by_role("button").click()
            viewer.wait_drawn("table")
            assert f"/t/{TOKEN}/" in viewer.page.url
            viewer.page.get_by_role("button", name="Share").click()
            link = viewer.page.get_by_label("Link to this view").input_value()
            assert TOKEN not in link
            assert link == base + viewer.page.url.partition("/" + TOKEN + "/")[2]


def test_empty_atlas_says_what_to_do(browser: Browser, tmp_path: Path) -> None:
    create_tables(tmp_path / "atlas")
    with (
        running_server(tmp_path / "atlas", tmp_path) as server,
        open_viewer(browser, server.urls[0]) as viewer,
    ):
        viewer.page.goto(viewer.base)
        expect(viewer.page.get_by_text("This atlas is empty")).to_be_visible()
        expect(viewer.page.locator("main")).to_contain_text("qkatlas run mine.yaml")


def test_page_without_webgl_says_so_and_keeps_the_rest(
    browser: Browser, viewer_service: str
) -> None:
    with open_viewer(browser, viewer_service) as viewer:
        viewer.may_fail = True
        viewer.page.add_init_script(
            "HTMLCanvasElement.prototype.getContext = ((own) => function (kind, ...rest) {"
            " return kind === 'webgl2' ? null : own.call(this, kind, ...rest);"
            "})(HTMLCanvasElement.prototype.getContext);"
        )
        viewer.page.goto(viewer.base + write_address(view="single", **HEAD))
        expect(viewer.page.get_by_role("alert")).to_contain_text("No WebGL")
        viewer.open("sentence", model="minilm", sequenceId=3)
        expect(viewer.page.locator(".sentence-token").first).to_be_visible()
