"""The page of heads and maps: what it lists, which text it trusts, what it says of trouble."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.testclient import TestClient

from tests.api.fake_viewer import install_fake
from tests.api.small_app import TOKEN, build_mapped_atlas, error_of, running_app
from tests.store.lake_fixture import add_map_row, append_rows

EVIL = "\"'><script>alert(1)</script>&amp;"
VOID = {"meta", "link", "input", "br"}
ICON = "data:,"
"""Without it a browser would ask for `/favicon.ico`, outside the token."""
COMMAND = "qkatlas viewers install embedding-atlas"


class Page(HTMLParser):
    """The elements of a page, which must be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.opened == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID and tag not in ("li", "option"):
            self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("li", "option"):
            assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())

    def find(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [
            found
            for name, found in self.elements
            if name == tag and attributes.items() <= found.items()
        ]

    @property
    def addresses(self) -> list[str]:
        named = ("href", "src", "action")
        return [str(found[key]) for _, found in self.elements for key in named if found.get(key)]

    @property
    def titles(self) -> list[str]:
        return [text for text in self.texts if re.fullmatch(r"Layer \d+, head \d+", text)]


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = build_mapped_atlas(tmp_path_factory.mktemp("atlas"))
    facts = {"n_queries": 1, "n_keys": 1}
    add_map_row(root, "evil", 0, "ok", 1, layer=1, head=3, method=EVIL, **facts)
    for head in range(3):
        add_map_row(root, f"l1h{head}", 0, "ok", 1, layer=1, head=head, method="umap", **facts)
    values = {"corpora": "[]", "sample": "s", "n_sequences": 1, "n_tokens": 1, "generation": 1}
    rows = [
        {"model": "tiny", "layer": 0, "head": head, "measure": name, "value": value, **values}
        for head, value in enumerate((0.25, 0.75, None, 0.5))
        for name in ("entropy", EVIL)
    ]
    append_rows(root, "measures", rows)
    return root


@pytest.fixture(scope="module")
def client(atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    cache = tmp_path_factory.mktemp("cache")
    install_fake(cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        with running_app(atlas) as made:
            yield made


def get(client: TestClient, query: str = "") -> Page:
    reply = client.get(f"/atlas/{query}")
    assert reply.status_code == 200, reply.text
    return Page(reply.text)


def test_the_page_lists_the_maps_of_a_layer_with_a_button_each(client: TestClient) -> None:
    page = get(client)
    assert page.titles == [f"Layer 0, head {head}" for head in range(4)]
    found = page.find("input", name="map_id")
    assert [one["value"] for one in found] == ["m0", "m1", "m2", "m3"]
    assert "score order -0.50" in page.texts
    assert all(button.get("aria-label") for button in page.find("button")[1:])


def test_what_is_listed_follows_the_address(client: TestClient) -> None:
    assert get(client, "?layer=1&method=umap").titles == [f"Layer 1, head {n}" for n in range(3)]
    assert len(get(client, "?model=tiny&layer=all").titles) == 8
    ordered = get(client, "?sort=entropy").titles
    assert [title[-1] for title in ordered] == ["1", "3", "0", "2"]  # without a value: last
    ordered = get(client, "?sort=entropy&order=up").titles
    assert [title[-1] for title in ordered] == ["0", "3", "1", "2"]
    assert get(client, "?points=50000").find("input", name="points", value="50000")
    assert get(client, "?layer=0&method=tsne").titles == []


def test_many_heads_come_in_pages(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.atlas_page.PAGE_HEADS", 3)
    first = get(client, "?layer=all&sort=entropy")
    (following,) = first.find("a", rel="next")
    second = get(client, str(following["href"]))
    third = get(client, "?layer=all&page=99&sort=entropy")
    titles = [*first.titles, *second.titles, *third.titles]
    assert len(titles) == len(set(titles)) == 8
    assert not third.find("a", rel="next")


def test_no_text_of_the_atlas_becomes_markup(client: TestClient) -> None:
    for query in ("?layer=all", f"?layer=all&sort={EVIL}&model=tiny"):
        page = get(client, query)
        assert page.find("script") == []
        assert any(EVIL in text for text in page.texts)
        assert page.find("option", value=EVIL)


def test_no_address_leaves_the_service_and_none_is_absolute(client: TestClient) -> None:
    for query in ("", "?layer=all", "?layer=1"):
        page = get(client, query)
        assert page.find("link", rel="icon", href=ICON)
        for address in set(page.addresses) - {ICON}:
            parts = urlsplit(address)
            assert not parts.scheme
            assert not parts.netloc
            assert not parts.path.startswith("/")


def test_the_page_may_load_nothing_but_its_style_and_an_empty_icon(client: TestClient) -> None:
    reply = client.get("/atlas/")
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'; img-src data:; form-action")
    assert "unsafe" not in policy
    # With no-referrer a browser would send `Origin: null` with the form, which is refused.
    assert reply.headers["referrer-policy"] == "same-origin"
    style = client.get("/atlas/atlas.css")
    assert style.headers["content-type"].startswith("text/css")
    assert "url(" not in style.text
    assert "prefers-color-scheme: dark" in style.text


def test_an_address_without_its_slash_leads_to_the_page(client: TestClient) -> None:
    assert client.get("/atlas", follow_redirects=False).headers["location"] == "atlas/"


@pytest.mark.parametrize("query", ["?layer=x", "?page=0", "?order=sideways", "?points=50001"])
def test_a_choice_that_is_none_is_refused(client: TestClient, query: str) -> None:
    assert error_of(client.get(f"/atlas/{query}"))[:2] == (400, "bad_request")


def test_a_model_without_maps_is_said(client: TestClient) -> None:
    reply = client.get(f"/atlas/?model={EVIL}")
    assert reply.status_code == 404
    assert Page(reply.text).find("script") == []


def test_a_map_that_is_not_there_is_said(client: TestClient, atlas: Path) -> None:
    reply = client.post("/atlas/sessions", data={"map_id": EVIL})
    assert reply.status_code == 404
    assert Page(reply.text).find("script") == []
    assert str(atlas) not in reply.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"},
    ],
)
@pytest.mark.parametrize("path", ["sessions", f"s/{'0' * 32}/end"])
def test_forms_of_other_sites_are_not_taken(
    client: TestClient, path: str, headers: dict[str, str]
) -> None:
    reply = client.post(f"/atlas/{path}", data={"map_id": "m0"}, headers=headers)
    assert error_of(reply)[0] == 403


def test_a_form_that_is_none_is_refused(client: TestClient) -> None:
    assert client.post("/atlas/sessions", content=b"\xff=\xff").status_code == 400


def test_an_atlas_without_maps_says_so(
    client: TestClient, atlas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = client.app.state.service.current[1]  # type: ignore[attr-defined]
    monkeypatch.setattr(current, "maps", lambda: current.ask("FROM maps LIMIT 0"))
    page = get(client)
    assert any("no maps yet" in text for text in page.texts)


def test_without_the_viewer_the_command_is_named(
    atlas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with running_app(atlas, token=TOKEN) as client:
        for path in ("/atlas/", "/atlas/sessions"):
            method = "POST" if path.endswith("sessions") else "GET"
            reply = client.request(method, f"/t/{TOKEN}{path}")
            assert reply.status_code == 501
            assert COMMAND in Page(reply.text).texts
            given = {"Accept": "application/json"}
            status, kind, message = error_of(
                client.request(method, f"/t/{TOKEN}{path}", headers=given)
            )
            assert (status, kind) == (501, "viewer_missing")
            assert COMMAND in message
        install_fake(tmp_path)
        assert client.get(f"/t/{TOKEN}/atlas/").status_code == 200  # without a restart
        assert client.get("/atlas/").status_code == 401
