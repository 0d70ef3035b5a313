"""Sentence View in a real browser: the service’s numbers, and texts that stay texts."""

import numpy as np
import pytest
from playwright.sync_api import Locator, expect

from tests.browser.demo_atlas import DECODER_LENGTH
from tests.browser.strange_texts import LONG_WORD, MARKUP, SCRIPTS
from tests.browser.viewer_page import Viewer, find_pixel, nearly, only, read_canvas
from tests.browser.viewer_pictures import check_picture

HEAD = {"model": "minilm", "layer": 2, "head": 4}
HARMED = "() => window.harmed ?? null"
STRANGERS = """
SELECT sequence_id FROM sequences WHERE model = 'decoder' AND corpus = $corpus ORDER BY row
"""
TOKENS = """
SELECT token FROM tokens WHERE model = $model AND sequence_id = $id ORDER BY position
"""


def tokens_of(viewer: Viewer, model: str, id: int) -> list[str]:
    return [row["token"] for row in viewer.sql(TOKENS, model=model, id=id)]


def list_of(viewer: Viewer, title: str) -> Locator:
    return viewer.page.get_by_role("list", name=title, exact=True)


def row_of(viewer: Viewer, title: str, position: int) -> Locator:
    own = viewer.page.locator(".sentence-position").get_by_text(str(position), exact=True)
    return list_of(viewer, title).get_by_role("button").filter(has=own)


def numbers(viewer: Viewer, title: str) -> list[str]:
    return list_of(viewer, title).locator(".sentence-number").all_inner_texts()


def weights_of(viewer: Viewer, id: int, **asked: object) -> np.ndarray:
    path = "models/{model}/layers/{layer}/heads/{head}/attention".format(**HEAD)
    return np.array(viewer.ask(path, sequence_id=id, **asked)["weights"])


def all_nearly(shown: list[str], values: np.ndarray) -> bool:
    """Whether each number shown, `<.001` among them, is that of the service to three digits."""
    return len(shown) == len(values) and all(
        (text == "<.001" and value < 5.1e-4) or (text != "<.001" and nearly(text, value, 3))
        for text, value in zip(shown, values, strict=True)
    )


def test_tokens_and_weights_at_hover_are_those_of_the_service(viewer: Viewer) -> None:
    viewer.open("sentence", **HEAD, sequenceId=3)
    for title in ("Queries", "Keys"):
        shown = list_of(viewer, title).locator(".sentence-token").all_inner_texts()
        assert shown == tokens_of(viewer, "minilm", 3)
    weights = weights_of(viewer, 3)
    row_of(viewer, "Queries", 5).hover()
    assert all_nearly(numbers(viewer, "Keys"), weights[5])
    row_of(viewer, "Keys", 2).hover()
    assert all_nearly(numbers(viewer, "Queries"), weights[:, 2])


def test_hovering_a_token_draws_its_own_lines_alone(viewer: Viewer) -> None:
    viewer.open("sentence", **HEAD, sequenceId=3)
    lines = viewer.page.locator("canvas.sentence-lines")
    all_lines = read_canvas(lines)
    row_of(viewer, "Queries", 5).hover()
    viewer.wait_drawn("sentence")
    own = read_canvas(lines)
    assert 0 < (own < 250).any(axis=2).sum() < 0.5 * (all_lines < 250).any(axis=2).sum()


def test_hidden_key_leaves_its_weight_to_the_others(viewer: Viewer) -> None:
    viewer.open("sentence", **HEAD, sequenceId=3)
    row_of(viewer, "Keys", 0).click()
    row_of(viewer, "Queries", 5).hover()
    expect(row_of(viewer, "Keys", 0)).to_contain_text("hidden")
    own = weights_of(viewer, 3)[5, 1:]
    assert all_nearly(numbers(viewer, "Keys")[1:], own / own.sum())
    assert viewer.state["hidden"] == [0]

    row_of(viewer, "Keys", 0).click()
    row_of(viewer, "Queries", 5).hover()
    assert all_nearly(numbers(viewer, "Keys"), weights_of(viewer, 3)[5])


def test_special_and_first_tokens_hide_and_value_norms_weigh(viewer: Viewer) -> None:
    viewer.open("sentence", **HEAD, sequenceId=3)
    viewer.page.get_by_label("Hide special tokens").check()
    row_of(viewer, "Queries", 5).hover()
    n = len(tokens_of(viewer, "minilm", 3))
    shown = numbers(viewer, "Keys")
    assert [at for at in range(n) if shown[at] == "hidden"] == [0, n - 1]
    viewer.page.get_by_label("Hide special tokens").uncheck()
    viewer.page.get_by_label("Hide first token").check()
    row_of(viewer, "Queries", 5).hover()
    assert [at for at, text in enumerate(numbers(viewer, "Keys")) if text == "hidden"] == [0]
    viewer.page.get_by_label("Hide first token").uncheck()

    viewer.page.get_by_label("Weight", exact=True).select_option("value_norm")
    viewer.wait_drawn("sentence")
    row_of(viewer, "Queries", 5).hover()
    weighed = weights_of(viewer, 3, weight="value_norm")
    assert np.abs(weighed - weights_of(viewer, 3)).max() > 1e-3
    assert all_nearly(numbers(viewer, "Keys"), weighed[5])


def test_row_without_any_key_left_says_so(viewer: Viewer) -> None:
    viewer.open("sentence", model="decoder", layer=0, head=0, sequenceId=0, hidden=[0])
    expect(row_of(viewer, "Queries", 0)).to_contain_text("nothing left")
    expect(row_of(viewer, "Queries", 1)).not_to_contain_text("nothing left")


def test_average_follows_the_sentence_and_says_how_many_sequences(viewer: Viewer) -> None:
    viewer.open("sentence", **HEAD, sequenceId=3)
    matrix = viewer.page.locator(".sentence-matrix canvas")
    n = len(tokens_of(viewer, "minilm", 3))
    matrix.hover(position=find_pixel(matrix, n, n, 5, 2))
    caption = viewer.page.locator(".sentence-aggregate figcaption")
    (own,) = (
        row
        for row in viewer.ask(
            "models/{model}/layers/{layer}/heads/{head}/mean_attention".format(**HEAD),
            max_position=64,
            limit=100_000,
        )["rows"]
        if (row["query_position"], row["key_position"]) == (5, 2)
    )
    counted = only(
        viewer.sql("SELECT count(*) n FROM sequences WHERE model = 'minilm' AND n_tokens > 5")
    )
    assert own["n_sequences"] == counted["n"]
    expect(caption).to_contain_text("query position 5 → key position 2")
    expect(caption).to_contain_text(f"mean of {counted['n']} sequences")
    shown = caption.inner_text().partition(": ")[2].partition(",")[0]
    assert nearly(shown, own["weight"], 3)
    expect(row_of(viewer, "Queries", 5).locator("xpath=..")).to_have_class(
        "sentence-row is-query is-lit"
    )


def test_strip_has_all_heads_and_opens_the_one_clicked(viewer: Viewer) -> None:
    viewer.open("sentence", **HEAD, sequenceId=3)
    heads = viewer.page.locator(".sentence-strip").get_by_role("button")
    heads.last.scroll_into_view_if_needed()
    viewer.wait_drawn("sentence")
    expect(heads).to_have_count(72)
    drawn = [read_canvas(heads.nth(at).locator("canvas")) for at in (0, 40, 71)]
    assert all((pixels < 250).any() for pixels in drawn)
    assert not np.array_equal(drawn[0], drawn[1])
    viewer.page.get_by_role("button", name="Layer 4, head 7", exact=True).click()
    viewer.wait_drawn("sentence")
    assert (viewer.state["layer"], viewer.state["head"]) == (4, 7)


def test_causal_mask_is_said_and_hatched(viewer: Viewer) -> None:
    viewer.open("sentence", model="decoder", layer=1, head=0, sequenceId=0)
    expect(viewer.page.get_by_text("causal mask: no query reaches a key after it")).to_be_visible()
    pixels = read_canvas(viewer.page.locator(".sentence-matrix canvas"))
    corner = pixels[: pixels.shape[0] // 4, -pixels.shape[1] // 4 :]
    hatched = (corner < 250).any(axis=2).mean()
    assert 0.05 < hatched < 0.95, "lines and ground beyond the diagonal"
    viewer.open("sentence", **HEAD, sequenceId=0)
    expect(viewer.page.get_by_text("causal mask")).to_have_count(0)


def test_sequence_of_2048_tokens_is_shown_in_windows(viewer: Viewer) -> None:
    id = only(viewer.sql(STRANGERS, corpus="long"))["sequence_id"]
    viewer.open("sentence", model="decoder", layer=0, head=0, sequenceId=id)
    expect(viewer.page.get_by_text(f"queries 0–127 of {DECODER_LENGTH:,}")).to_be_visible()
    assert viewer.page.locator(".sentence-row").count() < 300
    for _ in range(2):
        viewer.page.get_by_role("button", name="Next queries").click()
        viewer.wait_drawn("sentence")
    expect(viewer.page.get_by_text(f"queries 256–383 of {DECODER_LENGTH:,}")).to_be_visible()
    row_of(viewer, "Queries", 300).hover()
    asked = {"sequence_id": id, "first_query": 300, "n_queries": 1}
    (own,) = viewer.ask("models/decoder/layers/0/heads/0/attention", **asked)["weights"]
    outside = sum(own) - sum(own[256:384])
    expect(viewer.page.locator(".sentence-focus")).to_contain_text(f"hold {outside:.2f}")
    assert viewer.page.locator(".sentence-row").count() < 300


@pytest.mark.parametrize("name", ["markup", *SCRIPTS, "long word"])
def test_strangers_text_is_shown_as_it_is(viewer: Viewer, name: str) -> None:
    number = ["markup", *SCRIPTS, "long word"].index(name)
    id = viewer.sql(STRANGERS, corpus="strangers")[number]["sequence_id"]
    viewer.open("sentence", model="decoder", layer=0, head=0, sequenceId=id)
    shown = list_of(viewer, "Keys").locator(".sentence-token").all_inner_texts()
    tokens = tokens_of(viewer, "decoder", id)
    assert len(shown) == len(tokens)
    for text, token in zip(shown, tokens, strict=True):
        if token.isprintable() and len(token) <= 24:
            assert text == token
        elif len(token) > 24:
            assert text == f"{token[:23]}…"
        else:
            assert text.strip(), f"{token!r} is not to be seen"
    assert viewer.page.evaluate(HARMED) is None
    assert viewer.page.locator("img, svg[onload], b:text-is('bold')").count() == 0
    if name == "long word":
        title = list_of(viewer, "Keys").get_by_role("button").nth(2).get_attribute("title")
        assert title is not None and LONG_WORD in title
    if name == "markup":
        assert set(MARKUP) <= set(tokens)
        expect(viewer.page.locator(".sentence-text")).to_contain_text(MARKUP[0])


def test_sentence_view_looks_as_it_did(viewer: Viewer) -> None:
    viewer.open("sentence", **HEAD, sequenceId=3)
    check_picture(viewer.page.locator(".sentence-view"), "sentence")
