"""The viewer's page in a real browser: its weight, and how soon and how smoothly it draws.

Run with `python -m bench.viewer TEXT`. Chromium draws in software. Parts, chosen by `--only`:
w weight of the page, m Matrix View of 144 heads, j their decoding beside AttentionViz's JSON, s
Single View of a million points, h switches of heads and what memory they leave. The atlases are
those of `bench.serve_atlases` and of `bench.maps_scale`. The last line is JSON.
"""

import gzip
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import httpx
import typer
from playwright.sync_api import Browser, CDPSession
from rich.console import Console
from rich.table import Table

from api.viewer_page import DIST
from bench.atlases import make_atlas
from bench.maps_scale import HEAD, LAYER
from bench.serve import AS_SERVED, N_MATRIX, as_attentionviz, ask, decode_matrix
from bench.serve_atlases import MODEL, build_serve
from tests.api.own_server import running_server
from tests.browser.chromium import running_chromium
from tests.browser.other_origin import bundle, serving
from tests.browser.viewer_page import Viewer, open_viewer

N_LARGE = 1_000_000
"""Points of the large map; half as many tokens."""
N_PANS, N_SWITCHES = 40, 100
HERE = Path(__file__).parent

PAN = """
async ([x, y, n]) => {
  const over = document.querySelector("canvas.single-over");
  const fire = (name, dx) => over.dispatchEvent(new PointerEvent(name, {
    pointerId: 1, pointerType: "mouse", bubbles: true, buttons: 1,
    clientX: x + dx, clientY: y,
  }));
  over.setPointerCapture = () => undefined;
  fire("pointerdown", 0);
  const gl = document.querySelector("canvas.single-canvas:not(.single-over)").getContext("webgl2");
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  const times = [];
  for (let i = 1; i <= n; i++) {
    const started = performance.now();
    fire("pointermove", 4 * i);
    await frame();
    await frame();
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
    times.push(performance.now() - started);
  }
  fire("pointerup", 4 * n);
  return times;
}
"""
"""Moves, each until its frame has been drawn and read back: a frame of the display is waited for
twice, and so counted with it."""

IDLE = """
async (n) => {
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  const times = [];
  for (let i = 0; i < n; i++) {
    const started = performance.now();
    await frame();
    await frame();
    times.push(performance.now() - started);
  }
  return times;
}
"""
SINCE_NAVIGATION = "() => performance.now()"

Row = dict[str, Any]


def measure(
    texts: Annotated[list[Path], typer.Argument(help="Plain text, a paragraph a line.")],
    only: Annotated[str, typer.Option(help="Parts, of w,m,j,s,h.")] = "w,m,j,s,h",
    repetitions: Annotated[int, typer.Option(help="Of each figure.")] = 5,
) -> None:
    """Measure the page."""
    parts = set(only.split(","))
    result: Row = {"bench": "viewer", "cores": os.cpu_count()}
    if "w" in parts:
        result["w"] = weigh_page()
    with running_chromium() as browser:
        if parts & {"m", "j", "h"}:
            with serving_atlas(build_serve(texts)) as base:
                if "m" in parts:
                    result["m"] = measure_matrix(browser, base, repetitions)
                if "j" in parts:
                    result["j"] = measure_decoding(browser, base, repetitions)
                if "h" in parts:
                    result["h"] = measure_switches(browser, base)
        if "s" in parts:
            with serving_atlas(build_large(texts)) as base:
                result["s"] = measure_large(browser, base)
    print_figures(result)
    print(json.dumps(result))


def build_large(texts: list[Path]) -> str:
    """The atlas of `bench.maps_scale` with a map of a million points; gives its folder."""
    maps = [{"method": "pca", "dims": 2, "max_tokens": N_LARGE // 2}]
    return make_atlas("scale", texts, layers=[LAYER], heads=[HEAD], maps=maps)


@contextmanager
def serving_atlas(uri: str) -> Iterator[str]:
    """The address of a server on an atlas."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(Path(uri), Path(folder)) as server,
    ):
        yield server.urls[0]


def weigh_page() -> Row:
    """Bytes of the page before any data: all files, and each one gzipped as it is sent."""
    files = [path for path in DIST.rglob("*") if path.is_file()]
    bodies = [path.read_bytes() for path in files]
    packed = [len(gzip.compress(body, 9)) for body in bodies]
    return {"files": len(files), "bytes": sum(map(len, bodies)), "gzip_bytes": sum(packed)}


def measure_matrix(browser: Browser, base: str, repetitions: int) -> Row:
    """Part m: from navigation until all heads are drawn, in a fresh profile each time."""
    times = []
    for _ in range(repetitions + 1):
        with open_quietly(browser, base) as viewer:
            viewer.open("matrix", model=MODEL, method="pca")
            times.append(float(viewer.page.evaluate(SINCE_NAVIGATION)))
            n_heads = viewer.page.locator(".matrix-cell").count()
            said = viewer.page.locator(".matrix-fidelity p").inner_text()
    return {"heads": n_heads, "said": said, "ms": round(median(times[1:])), "first": times[0]}


def measure_decoding(browser: Browser, base: str, repetitions: int) -> Row:
    """Part j: fetch and decoding of the matrix beside its points in AttentionViz's JSON."""
    with httpx.Client(base_url=base, timeout=60) as client:
        path = f"/v1/models/{MODEL}/matrix"
        body = ask(client, path, method="pca", max_points=N_MATRIX).raise_for_status().content
    heads, places = decode_matrix(body)
    result: Row = {"bytes": len(body)}
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as origin:
        site = bundle(HERE / "viewer_decoding", Path(folder))
        reply = site / "v1" / "models" / MODEL / "matrix"
        reply.parent.mkdir(parents=True)
        reply.write_bytes(body)
        for name, form in {"as_served": AS_SERVED, "one_method": ("pca_x", "pca_y")}.items():
            text = as_attentionviz(heads, places, form)
            (site / f"{name}.json").write_bytes(text)
            result[name] = {"bytes": len(text)} | time_decoding(browser, origin, name, repetitions)
    return result


def time_decoding(browser: Browser, origin: str, name: str, repetitions: int) -> Row:
    """Median milliseconds of both in turns in one page, and their ratio."""
    with open_quietly(browser, f"{origin}/") as viewer:
        viewer.page.goto(f"{origin}/index.html")
        viewer.page.wait_for_function("() => window.time !== undefined")
        asked = [MODEL, f"{name}.json", repetitions]
        ours, theirs = viewer.page.evaluate("(asked) => window.time(...asked)", asked)
    ms, reference_ms = median(ours), median(theirs)
    return {
        "ms": round(ms, 1),
        "reference_ms": round(reference_ms, 1),
        "times_slower": round(reference_ms / ms, 1),
    }


def measure_large(browser: Browser, base: str) -> Row:
    """Part s: a map of a million points: points a frame, a pan's frame, more by zooming in."""
    with open_quietly(browser, base) as viewer:
        viewer.open("single", model="minilm", layer=LAYER, head=HEAD, method="pca")
        shown = drawn_points(viewer)
        said = viewer.page.locator(".single-count").inner_text()
        box = viewer.page.locator("canvas.single-over").bounding_box()
        assert box is not None
        middle = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
        pans = viewer.page.evaluate(PAN, [*middle, N_PANS])
        idle = viewer.page.evaluate(IDLE, N_PANS)
        viewer.page.keyboard.press("0")
        viewer.page.mouse.move(*middle)
        for _ in range(4):
            viewer.page.mouse.wheel(0, -300)
        viewer.page.locator(".single-count", has_text="in view").wait_for()
        viewer.wait_drawn("single")
        in_view = viewer.page.locator(".single-count").inner_text()
        zoomed = drawn_points(viewer)
    return {
        "said": said,
        "points_a_frame": shown,
        "pan_frame_ms": round(median(pans), 1),
        "two_idle_frames_ms": round(median(idle), 1),
        "zoomed_said": in_view,
        "zoomed_points": zoomed,
    }


def measure_switches(browser: Browser, base: str) -> Row:
    """Part h: from a key's press until the next head is drawn, and memory over many heads."""
    with open_quietly(browser, base) as viewer:
        viewer.open("single", model=MODEL, layer=3, head=4, method="pca")
        session = viewer.page.context.new_cdp_session(viewer.page)
        walk(viewer, 10)
        before = read_memory(session)
        warm = walk(viewer, N_SWITCHES)
        after = read_memory(session)
    return {
        "switches": N_SWITCHES,
        "warm_ms": round(median(warm)),
        "p90_ms": round(sorted(warm)[int(0.9 * len(warm))]),
        "heap_bytes": [before["heap"], after["heap"]],
        "heap_grown": round(after["heap"] / before["heap"], 2),
        "array_bytes": [before["arrays"], after["arrays"]],
        "nodes": [before["nodes"], after["nodes"]],
    }


def walk(viewer: Viewer, n: int) -> list[float]:
    """Milliseconds of each step around four adjacent heads, which are loaded ahead."""
    times = []
    viewer.page.locator("canvas.single-over").focus()
    for step in range(n):
        key = ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp")[step % 4]
        viewer.page.wait_for_load_state("networkidle")
        times.append(float(viewer.page.evaluate(SWITCH, key)))
    return times


SWITCH = """
async (key) => {
  const view = document.querySelector(".single-view");
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  const pressed = { key, bubbles: true, cancelable: true };
  const started = performance.now();
  document.activeElement.dispatchEvent(new KeyboardEvent("keydown", pressed));
  await frame();
  while (view.dataset.drawn !== "yes") await frame();
  return performance.now() - started;
}
"""


def read_memory(session: CDPSession) -> Row:
    """Bytes of the page's heap, of arrays outside it, and its nodes, once all waste is freed."""
    for _ in range(2):
        session.send("HeapProfiler.collectGarbage")
    heap = session.send("Runtime.getHeapUsage")
    counts = session.send("Memory.getDOMCounters")
    return {
        "heap": int(heap["usedSize"]),
        "arrays": int(heap.get("backingStorageSize", 0)),
        "nodes": int(counts["nodes"]),
    }


def drawn_points(viewer: Viewer) -> int:
    """Points that Single View draws a frame."""
    return int(viewer.page.locator(".single-view").get_attribute("data-n-drawn") or 0)


@contextmanager
def open_quietly(browser: Browser, base: str) -> Iterator[Viewer]:
    """A fresh page whose sayings are of no interest."""
    with open_viewer(browser, base) as viewer:
        viewer.may_fail = True
        yield viewer


def list_figures(result: Row) -> Iterator[tuple[str, float, str, float]]:
    """Name, figure, relation and bound of everything that issue 6 sets a bound for."""
    if "w" in result:
        yield "w. page, kB gzipped", result["w"]["gzip_bytes"] / 1e3, "≤", 200
    if "m" in result:
        yield "m. heads drawn", result["m"]["heads"], "≥", 144
        yield "m. s from navigation to all heads", result["m"]["ms"] / 1e3, "≤", 3
    if "j" in result:
        yield "j. AttentionViz's JSON ÷ matrix", result["j"]["as_served"]["times_slower"], "≥", 5
    if "s" in result:
        yield "s. points a frame", result["s"]["points_a_frame"], "≤", 250_000
        yield "s. ms of a pan's frame", result["s"]["pan_frame_ms"], "≤", 100
    if "h" in result:
        yield "h. ms of a switch, warm", result["h"]["warm_ms"], "≤", 300
        yield "h. heap after ÷ before", result["h"]["heap_grown"], "≤", 1.2


def print_figures(result: Row) -> None:
    """What was asked for."""
    table = Table("figure", "measured", "wanted", "")
    for name, value, relation, bound in list_figures(result):
        held = value <= bound if relation == "≤" else value >= bound
        table.add_row(name, f"{value:,.2f}", f"{relation} {bound:,g}", "✓" if held else "✗")
    Console().print(table)


if __name__ == "__main__":
    typer.run(measure)
