"""Every snippet of docs/viewers.md, run as a reader would paste it, and what it gives.

Only addresses are replaced: the page's service and atlas by a small one of the same shape.
"""

import gc
import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import duckdb
import httpx
import pyarrow as pa
import pytest
from playwright.sync_api import Page

import qkatlas
from flows.config import load_config
from store.atlas import Atlas
from tests.api.running_service import ROOT, free_port, running_service
from tests.browser.chromium import MODULES, open_page, running_chromium
from tests.browser.other_origin import bundle, serving
from tests.flows.tiny_run import make_run, run_here, save_model

PAGE = (ROOT / "docs" / "viewers.md").read_text("utf-8")
MOST_LINES = 10

SERVICE, FLIGHT, ATLAS = "http://127.0.0.1:8765/", "grpc://127.0.0.1:8766", "build/demo-atlas"
SITE = "http://localhost:5173"
"""Addresses of the page: of the service, of its files, and of somebody else's site."""

MAP = """
SELECT x, y, kind, token, position FROM points
JOIN current_maps USING (model, layer, head, map_id)
JOIN tokens USING (model, sequence_id, position)
WHERE layer = 1 AND head = 1 AND method = 'umap' AND dims = 2"""


@dataclass(frozen=True)
class Recipe:
    """One code fence."""

    section: str
    number: int
    """Among those of its section, from 0."""
    language: str
    text: str


def list_recipes(page: str) -> Iterator[Recipe]:
    """The fences of a Markdown page, by the headings that they are below."""
    seen: Counter[str] = Counter()
    section = ""
    for heading, language, text in re.findall(
        r"^#+ ([^\n]+)$|^```(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE
    ):
        section = heading or section
        if not heading:
            yield Recipe(section, seen[section], language, text)
            seen[section] += 1


RECIPES = list(list_recipes(PAGE))


@dataclass(frozen=True)
class Place:
    """Where recipes run, in place of the page's addresses."""

    service: str
    flight: str
    atlas: str
    site: str
    site_folder: Path
    folder: Path

    def localise(self, text: str) -> str:
        """A text with this place's addresses."""
        for said, meant in ((SERVICE, self.service), (FLIGHT, self.flight), (ATLAS, self.atlas)):
            text = text.replace(said, meant)
        return text

    def run_python(self, recipe: Recipe) -> dict[str, Any]:
        """The names that a snippet leaves."""
        assert recipe.language == "python"
        names: dict[str, Any] = {"__name__": "__main__"}
        code = compile(self.localise(recipe.text), f"{recipe.section} {recipe.number}", "exec")
        exec(code, names)
        return names

    def run_shell(self, recipe: Recipe) -> str:
        """What a command of ours prints."""
        assert recipe.language == "sh"
        program, *words = shlex.split(self.localise(recipe.text))
        assert program == ".venv/bin/qkatlas"
        command = [sys.executable, str(ROOT / "qkatlas.py"), *words]
        ran = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def ask(self, sql: str) -> pa.Table:
        """The answer of the files themselves."""
        with Atlas(self.atlas) as atlas:
            return atlas.sql(sql)


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two layers of four heads, under the name of the demonstration's model."""
    folder = tmp_path_factory.mktemp("recipes")
    made = save_model(folder / "model")
    make_run(folder, made, maps=[{"method": "umap", "dims": 2, "max_tokens": 200}])
    written = folder / "tiny.yaml"
    written.write_text(written.read_text("utf-8").replace("key: tiny", "key: minilm"), "utf-8")
    config = load_config(written)
    run_here(config)
    return str(config.atlas)


@pytest.fixture(scope="module")
def served(atlas: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The service with all its doors, started by the page's own command, and another's site."""
    command = next(recipe.text for recipe in RECIPES if "qkatlas serve" in recipe.text)
    port, folder = str(free_port()), tmp_path_factory.mktemp("site")
    with serving(folder) as site:
        words = shlex.split(command.replace("8766", port).replace(SITE, site))
        assert words[1:4] == ["serve", "--atlas", ATLAS]
        with running_service(atlas, *words[4:]) as url:
            yield Place(url, f"grpc://127.0.0.1:{port}", atlas, site, folder, folder)


@pytest.fixture
def place(served: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    return replace(served, folder=tmp_path)


def test_every_snippet_of_the_page_is_run() -> None:
    assert len(RECIPES) * 2 == len(re.findall(r"^\s*(```|~~~)", PAGE, re.MULTILINE))
    written = Counter(recipe.section for recipe in RECIPES)
    assert written == {section: len(checks) for section, checks in CHECKS.items()}


def test_every_picture_of_the_page_is_there_and_small() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", PAGE)
    assert pictures
    sizes = {name: (ROOT / "docs" / name).stat().st_size for name in pictures}
    assert {name: size for name, size in sizes.items() if not 10_000 < size < 300_000} == {}


def name_recipe(recipe: Recipe) -> str:
    return f"{recipe.section}-{recipe.number}"


@pytest.mark.parametrize("recipe", RECIPES, ids=name_recipe)
def test_a_snippet_is_short_enough_to_paste(recipe: Recipe) -> None:
    lines = recipe.text.splitlines()
    assert len(lines) <= MOST_LINES
    assert max(map(len, lines)) <= 130


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")  # jscatter's import
@pytest.mark.parametrize("recipe", RECIPES, ids=name_recipe)
def test_a_recipe_does_what_the_page_says(recipe: Recipe, place: Place) -> None:
    """What a snippet leaves open, the end of a reader's process closes; here it is collected."""
    CHECKS[recipe.section][recipe.number](recipe, place)
    gc.collect()


def check_serve(recipe: Recipe, place: Place) -> None:
    with qkatlas.open(place.service) as served:
        assert served.sql("SELECT count(*) FROM points") == place.ask("SELECT count(*) FROM points")


def check_twins(recipe: Recipe, place: Place) -> None:
    expected = place.ask("""SELECT layer, head, round(same_token, 2), round(entropy, 2)
        FROM head_measures ORDER BY head_measures.same_token DESC LIMIT 5""")
    found = place.run_python(recipe)["twins"].fetchall()
    assert found == as_rows(expected) and len(found) == 5


def check_norms(recipe: Recipe, place: Place) -> None:
    expected = place.ask("""SELECT layer, kv_head, avg(sqrt(list_dot_product(vector, vector)))
        FROM keys GROUP BY ALL ORDER BY 3 DESC LIMIT 5""")
    found = place.run_python(recipe)["norms"].fetchall()
    assert [row[:2] for row in found] == [row[:2] for row in as_rows(expected)]
    assert [row[2] for row in found] == pytest.approx([row[2] for row in as_rows(expected)])


def check_export(recipe: Recipe, place: Place) -> None:
    place.run_shell(recipe)
    with duckdb.connect(str(place.folder / "heads.duckdb"), read_only=True) as opened:
        found = opened.sql("SELECT head, count(*) FROM points GROUP BY head ORDER BY head")
        expected = place.ask("""SELECT head, count(*) FROM points
            WHERE layer = 1 GROUP BY head ORDER BY head""")
        assert found.fetchall() == as_rows(expected)


def check_trust(recipe: Recipe, place: Place) -> None:
    expected = place.ask("""SELECT method, dims, count(*), avg(score_spearman),
        avg(top_key_recall_3) FROM current_maps GROUP BY ALL""")
    (found,) = place.run_python(recipe)["trust"].rows()
    assert found[:3] == as_rows(expected)[0][:3]
    assert found[3:] == pytest.approx(as_rows(expected)[0][3:])


def check_words(recipe: Recipe, place: Place) -> None:
    expected = place.ask("""SELECT token, count(*) AS n FROM tokens
        WHERE regexp_full_match(token, '[a-z]{2,}') GROUP BY token ORDER BY n DESC, token""")
    assert place.run_python(recipe)["words"].rows() == as_rows(expected)


def check_entropy(recipe: Recipe, place: Place) -> None:
    found = place.run_python(recipe)["entropy"]
    expected = place.ask("SELECT layer, head, entropy FROM head_measures")
    assert {(layer, head, found.loc[layer, head]) for layer in (0, 1) for head in range(4)} == set(
        as_rows(expected)
    )
    assert found.shape == (2, 4)


def check_package(recipe: Recipe, place: Place) -> None:
    wanted = json.loads(recipe.text)
    ours = json.loads((MODULES.parent / "package.json").read_text("utf-8"))
    assert wanted["overrides"] == ours["overrides"]
    assert wanted["dependencies"].items() <= ours["dependencies"].items()


def check_mosaic(recipe: Recipe, place: Place) -> None:
    (place.folder / "page.js").write_text(place.localise(recipe.text), "utf-8")
    (place.folder / "index.html").write_text('<script type="module" src="page.js"></script>')
    with pytest.MonkeyPatch.context() as resolving:
        resolving.setenv("NODE_PATH", str(MODULES))
        bundle(place.folder, place.site_folder)
    of_token = Counter(place.ask(MAP)["token"].to_pylist())
    with running_chromium() as browser, open_page(browser) as (page, heard):
        page.goto(f"{place.site}/index.html")
        wait_for_dots(page, of_token.total())
        label = page.locator("g[aria-label='y-axis tick label'] text").last
        box, token = label.bounding_box(), label.text_content()
        assert box is not None
        page.mouse.click(box["x"] + box["width"] + 14, box["y"] + box["height"] / 2)
        wait_for_dots(page, of_token[token or ""])
        assert (heard.errors, heard.refused) == ([], [])


def wait_for_dots(page: Page, count: int) -> None:
    dots = "document.querySelectorAll('g[aria-label=dot] circle').length"
    page.wait_for_function(f"{dots} === {count}")


def check_viewer(recipe: Recipe, place: Place) -> None:
    assert "embedding-atlas 0.22.0" in place.run_shell(recipe)
    page = httpx.get(f"{place.service}atlas/?layer=1").raise_for_status()
    (map_id,) = place.ask("SELECT map_id FROM current_maps WHERE layer = 1 AND head = 1")["map_id"]
    assert map_id.as_py() in page.text
    opened = httpx.post(f"{place.service}atlas/sessions", data={"map_id": map_id.as_py()})
    assert opened.status_code == 303
    session = urljoin(str(opened.url), opened.headers["location"])
    facts = httpx.get(f"{session}data/metadata.json").raise_for_status().json()
    asked = {"type": "json", "sql": f"SELECT count(*) AS n FROM {facts['props']['data']['table']}"}
    counted = httpx.post(f"{session}data/query", json=asked).raise_for_status().json()
    assert counted == [{"n": len(place.ask(MAP))}]


def check_flight(recipe: Recipe, place: Place) -> None:
    names = place.run_python(recipe)
    expected = place.ask(
        "SELECT layer, head, entropy FROM head_measures WHERE layer = 1 ORDER BY entropy"
    )
    assert list(names["heads"].itertuples(index=False, name=None)) == as_rows(expected)
    assert names["models"]["model"].to_list() == ["minilm"]


def check_scatter(recipe: Recipe, place: Place) -> None:
    names = place.run_python(recipe)
    drawn, expected = names["scatter"].widget, place.ask(MAP)
    assert len(drawn.points) == len(expected) > 100
    kinds = names["points"]["kind"].value_counts().to_dict()
    assert kinds == Counter(expected["kind"].to_pylist())
    assert set(drawn.tooltip_properties) == {"token", "kind", "position"}


def check_datamapplot(recipe: Recipe, place: Place) -> None:
    with pytest.MonkeyPatch.context() as offline:
        offline.setattr("datamapplot.plot_rendering.get_google_font", lambda name: None)
        names = place.run_python(recipe)
    common = Counter(
        token for token in place.ask(MAP)["token"].to_pylist() if re.fullmatch("[a-z]{2,}", token)
    )
    written = {text.get_text() for text in names["axes"].texts}
    assert written == {token for token in common if token in set(names["words"])}
    assert len(written) == min(18, len(common))
    assert (place.folder / "datamapplot.png").stat().st_size > 10_000


def as_rows(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*table.to_pydict().values(), strict=True))


CHECKS: dict[str, list[Callable[[Recipe, Place], None]]] = {
    "Viewers and tools": [check_serve],
    "DuckDB": [check_twins, check_norms, check_export],
    "polars": [check_trust, check_words],
    "pandas": [check_entropy],
    "Mosaic": [check_package, check_mosaic],
    "Embedding Atlas": [check_viewer],
    "ADBC and JDBC": [check_flight],
    "jupyter-scatter": [check_scatter],
    "DataMapPlot": [check_datamapplot],
}
