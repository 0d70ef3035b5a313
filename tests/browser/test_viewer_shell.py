"""What surrounds the viewer's views in a real browser: search, share, export, help."""

import csv
import re
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from playwright.sync_api import Download, expect

from tests.browser.viewer_page import Viewer, only

HEAD = {"model": "minilm", "layer": 0, "head": 3, "method": "pca"}
IN_MAP = """
SELECT kind, sequence_id, position, x, y, token FROM points
JOIN current_maps USING (map_id, model, layer, head)
JOIN tokens USING (model, sequence_id, position)
WHERE model = 'minilm' AND layer = 0 AND head = 3 AND method = 'pca' AND dims = 2
"""
GROUND = "() => getComputedStyle(document.documentElement).backgroundColor"
SELECTION = {"by": "sequence", "sequenceIds": [3, 5]}


def save(viewer: Viewer, name: str) -> Download:
    """What a button of the export menu saves."""
    viewer.page.get_by_role("button", name="Export").click()
    with viewer.page.expect_download() as saved:
        viewer.page.get_by_role("button", name=name).click()
    return saved.value


def read(download: Download) -> bytes:
    return Path(download.path()).read_bytes()


@pytest.mark.parametrize(
    ("match", "any_case", "where"),
    [
        ("exact", False, "token = 'for'"),
        ("prefix", False, "starts_with(token, 'for')"),
        ("substring", False, "contains(token, 'for')"),
        ("substring", True, "contains(lower(token), 'for')"),
    ],
)
def test_search_counts_as_sql_does(viewer: Viewer, match: str, any_case: bool, where: str) -> None:
    viewer.open("table", model="minilm", search="for", match=match, anyCase=any_case)
    row = only(viewer.sql(f"SELECT count(*) n FROM tokens WHERE model = 'minilm' AND {where}"))
    expect(viewer.page.locator(".search-found output")).to_contain_text(f"{row['n']} in the corpus")


def test_search_is_typed_reached_by_key_and_cleared(viewer: Viewer) -> None:
    viewer.open("table", model="minilm")
    viewer.page.keyboard.press("/")
    viewer.page.keyboard.type("class")
    found = viewer.page.locator(".search-found output")
    expect(found).to_contain_text("in the corpus")
    assert viewer.state["search"] == "class"
    viewer.page.keyboard.press("Escape")
    expect(found).to_have_text("")
    assert "search" not in viewer.state
    viewer.page.get_by_label("Search tokens").fill("no-such-token")
    expect(found).to_have_text("None in the corpus")


def test_shared_link_opens_the_same_view(viewer: Viewer, viewer_service: str) -> None:
    viewer.open("sentence", model="minilm", layer=2, head=4, sequenceId=7, hidden=[1, 2])
    viewer.page.get_by_role("button", name="Share").click()
    link = viewer.page.get_by_label("Link to this view").input_value()
    assert link == viewer.page.url
    viewer.page.goto(viewer.base)
    viewer.page.goto(link)
    viewer.wait_drawn("sentence")
    expect(viewer.page.get_by_role("button", name="Show 2 hidden keys")).to_be_visible()
    expect(viewer.page.get_by_label("Id of the sequence")).to_have_value("7")


def test_back_and_forward_follow_the_steps(viewer: Viewer) -> None:
    viewer.open("table", model="minilm")
    for name, view in {"SQL": "sql", "Sentence": "sentence", "Single": "single"}.items():
        viewer.page.get_by_role("link", name=name, exact=True).click()
        viewer.wait_drawn(view)
    for view in ("sentence", "sql", "table"):
        viewer.page.go_back()
        viewer.wait_drawn(view)
    viewer.page.go_forward()
    viewer.wait_drawn("sql")


@pytest.mark.parametrize("view", ["matrix", "single", "sentence"])
def test_picture_is_saved_as_the_view_shows_it(viewer: Viewer, view: str) -> None:
    viewer.open(view, **HEAD, sequenceId=3)
    saved = save(viewer, "Picture of the view (PNG)")
    assert saved.suggested_filename.endswith(".png")
    pixels = np.asarray(Image.open(BytesIO(read(saved))).convert("RGB")).astype(int)
    assert min(pixels.shape[:2]) > 200
    ground = np.median(pixels.reshape(-1, 3), axis=0)
    drawn = (np.abs(pixels - ground).max(axis=2) > 60).mean()
    assert 0.005 < drawn < 0.6


def test_selection_is_saved_as_csv_and_parquet(viewer: Viewer) -> None:
    viewer.open("single", **HEAD)
    chosen = sorted({row["sequence_id"] for row in viewer.sql(IN_MAP)})[:2]
    selector = {"by": "sequence", "sequenceIds": chosen}
    viewer.open("single", **HEAD, selector=selector)
    sql = f"{IN_MAP} AND sequence_id IN (SELECT unnest($chosen)) ORDER BY ALL"
    expected = [
        (row["kind"], row["sequence_id"], row["position"], row["token"])
        for row in viewer.sql(sql, chosen=chosen)
    ]
    assert len(expected) > 20
    text = read(save(viewer, "CSV")).decode()
    rows = list(csv.DictReader(StringIO(text)))
    found = [(r["kind"], int(r["sequence_id"]), int(r["position"]), r["token"]) for r in rows]
    assert sorted(found) == sorted(expected)
    viewer.page.reload()
    viewer.wait_drawn("single")
    table = pq.read_table(BytesIO(read(save(viewer, "Parquet")))).to_pylist()
    found = [(r["kind"], r["sequence_id"], r["position"], r["token"]) for r in table]
    assert sorted(found) == sorted(expected)


def test_help_lists_keys_figures_and_the_data(viewer: Viewer) -> None:
    viewer.open("single", **HEAD)
    viewer.page.keyboard.press("?")
    dialog = viewer.page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    model = only(viewer.sql("SELECT * FROM models WHERE model = 'minilm'"))
    for text in ("Head after", "score_spearman", "induction", model["weights_sha256"]):
        expect(dialog).to_contain_text(text)
    expect(dialog).to_contain_text(viewer.ask("models")["version"])
    viewer.page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)


def test_theme_follows_the_system_and_the_menu(viewer: Viewer) -> None:
    viewer.open("matrix", model="minilm", method="pca")
    page = viewer.page

    def ground() -> str:
        return str(page.evaluate(GROUND))

    light = ground()
    page.emulate_media(color_scheme="dark")
    viewer.wait_drawn("matrix")
    dark = ground()
    assert dark != light
    page.get_by_label("Theme").select_option("light")
    viewer.wait_drawn("matrix")
    assert ground() == light


def test_table_filters_sorts_and_counts_as_sql_does(viewer: Viewer) -> None:
    viewer.open("table", model="minilm", contains="class")
    n_all, n = (
        only(viewer.sql(f"SELECT count(*) n FROM sequences WHERE model = 'minilm' {where}"))["n"]
        for where in ("", "AND contains(lower(text), 'class')")
    )
    counts = viewer.page.locator(".table-counts")
    expect(counts).to_contain_text(re.compile(rf"^{n} of {n_all} sequences"))
    page = viewer.page
    page.get_by_label("Text contains").fill("")
    page.get_by_label("Value").fill("30")
    page.get_by_role("button", name="Add filter").click()
    sql = """SELECT sequence_id AS id FROM sequences WHERE model = 'minilm' AND n_tokens > 30
        ORDER BY n_tokens DESC, sequence_id"""
    ids = [str(row["id"]) for row in viewer.sql(sql)]
    expect(counts).to_contain_text(re.compile(rf"^{len(ids)} of {n_all} sequences"))
    heading = page.get_by_role("columnheader", name="n_tokens")
    while heading.get_attribute("aria-sort") != "descending":
        heading.get_by_role("button").click()
        viewer.wait_drawn("table")
    shown = page.locator("table.table-rows tbody tr td:nth-child(2)")
    assert shown.all_inner_texts() == ids[:50]


def test_sequences_checked_in_the_table_become_the_selection(viewer: Viewer) -> None:
    viewer.open("table", model="minilm")
    for id in (3, 5):
        viewer.page.get_by_label(f"select sequence {id}", exact=True).check()
    sql = "SELECT count(*) n FROM tokens WHERE model = 'minilm' AND sequence_id IN (3, 5)"
    n = only(viewer.sql(sql))["n"]
    expect(viewer.page.locator(".selected")).to_contain_text(f"{2 * n} selected in 2 sequences")
    assert viewer.state["selector"] == SELECTION
    viewer.page.get_by_role("row").filter(
        has=viewer.page.get_by_label("select sequence 5")
    ).locator("button.table-open").click()
    viewer.wait_drawn("sentence")
    assert viewer.state["sequenceId"] == 5


def test_result_of_sql_is_shown_and_becomes_selection_and_colour(viewer: Viewer) -> None:
    sql = """SELECT sequence_id, position, length(token) AS n FROM tokens
WHERE model = 'minilm' AND token = 'class' ORDER BY ALL"""
    viewer.open("sql", model="minilm")
    box = viewer.page.get_by_label("SQL", exact=True)
    box.fill(sql)
    box.press("Control+Enter")
    result = viewer.page.locator("table.sql-result tbody tr")
    rows = viewer.sql(sql)
    expect(result).to_have_count(len(rows))
    first = result.first.locator("td").all_inner_texts()
    assert first == [str(value) for value in rows[0].values()]
    viewer.page.get_by_role("button", name="Select these points").click()
    n = 2 * len(rows)
    expect(viewer.page.locator(".selected")).to_contain_text(f"{n} selected")
    viewer.page.get_by_role("button", name="Colour by it").click()
    viewer.page.get_by_role("link", name="Matrix", exact=True).click()
    viewer.wait_drawn("matrix")
    expect(viewer.page.locator(".colour-legend")).to_be_visible()
    assert viewer.state["colour"].startswith("column:n:")


def test_colour_of_a_result_knows_kinds_and_models(viewer: Viewer) -> None:
    sql = """SELECT model, sequence_id, position, kind, upper(kind) AS upper
FROM points WHERE model = 'minilm' UNION ALL
SELECT 'another', sequence_id, position, kind, 'WRONG' FROM points WHERE model = 'minilm'"""
    viewer.open("single", **HEAD, colour=f"column:upper:{sql}")
    rows = viewer.sql(f"SELECT kind, count(*) AS n FROM ({IN_MAP}) GROUP BY kind")
    legend = viewer.page.locator(".colour-legend")
    for row in rows:
        entry = legend.get_by_role("listitem").filter(has_text=row["kind"].upper())
        expect(entry).to_contain_text(str(row["n"]))
    expect(legend).not_to_contain_text("WRONG")


def test_labels_of_images_are_searched(viewer: Viewer) -> None:
    viewer.open("table", model="vit")
    viewer.page.get_by_label("Search labels and tokens").fill("discs")
    sql = """SELECT count(*) AS n FROM tokens JOIN sequences USING (model, sequence_id)
WHERE model = 'vit' AND list_contains(map_values(labels), 'discs')"""
    n = only(viewer.sql(sql))["n"]
    found = viewer.page.locator(".search-found output")
    expect(found).to_contain_text(f"{n} in the corpus")
    viewer.page.get_by_role("button", name="Select them").click()
    expect(viewer.page.locator(".selected")).to_contain_text(f"{2 * n} selected")


def test_page_of_the_table_is_in_the_link(viewer: Viewer) -> None:
    viewer.open("table", model="minilm")
    viewer.page.get_by_role("button", name="Next").click()
    pages = viewer.page.get_by_role("navigation", name="Pages")
    expect(pages).to_contain_text("51–")
    first = viewer.page.locator("table.table-rows tbody tr td:nth-child(2)").first
    at = first.inner_text()
    viewer.page.reload()
    viewer.wait_drawn("table")
    expect(first).to_have_text(at)
    viewer.page.get_by_role("button", name="First page").click()
    expect(pages).to_contain_text("1–50")
    assert "cursor" not in viewer.state


def test_statement_not_run_outlives_a_look_at_another_view(viewer: Viewer) -> None:
    viewer.open("sql", model="minilm")
    viewer.page.get_by_label("SQL", exact=True).fill("SELECT 1")
    viewer.page.get_by_role("link", name="Sequences", exact=True).click()
    viewer.wait_drawn("table")
    viewer.page.get_by_role("link", name="SQL", exact=True).click()
    expect(viewer.page.get_by_label("SQL", exact=True)).to_have_value("SELECT 1")


def test_error_in_sql_is_said_in_place(viewer: Viewer) -> None:
    viewer.may_fail = True
    viewer.open("sql", sql="SELECT nothing FROM nowhere")
    expect(viewer.page.get_by_role("alert")).to_contain_text("nowhere")


def test_html_in_results_and_rows_is_text(viewer: Viewer) -> None:
    sql = "SELECT token FROM tokens WHERE token LIKE '<%' AND model = 'decoder' ORDER BY ALL"
    viewer.open("sql", model="decoder", sql=sql)
    shown = viewer.page.locator("table.sql-result tbody td").all_inner_texts()
    assert shown == [row["token"] for row in viewer.sql(sql)]
    viewer.open("table", model="decoder", contains="<img/")
    expect(viewer.page.locator(".table-open")).to_contain_text('<img/src="x"/onerror=')
    viewer.page.get_by_label("Search tokens").fill("<script>window.harmed=1</script>")
    expect(viewer.page.locator(".search-found output")).to_contain_text("1 in the corpus")
    assert viewer.page.evaluate("() => window.harmed ?? null") is None
