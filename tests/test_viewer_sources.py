"""The viewer's sources: short modules named after their idea, and no circles of imports.

Read line by line; types alone may be imported in circles, as they are gone once it is built.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.test_imports import MAX_LINES, VAGUE_NAMES, find_circle, plant

SOURCES = Path(__file__).parents[1] / "api" / "viewer" / "src"
SUFFIXES = (".ts", ".tsx")
IMPORT = re.compile(
    r"""^\s*(?:import|export)\s(?!type\b)(?:[^;"']*?\sfrom\s*)?\s*["'](\.[^"']*)["']""",
    re.MULTILINE,
)
VAGUE = {*VAGUE_NAMES, "util", "helper", "shared", "stuff", "index"}


def list_sources(root: Path) -> dict[str, Path]:
    """Find the modules: their paths below the root, and their files."""
    files = (path for path in sorted(root.rglob("*")) if path.suffix in SUFFIXES)
    return {path.relative_to(root).as_posix(): path for path in files}


def list_edges(root: Path) -> dict[str, set[str]]:
    """Find for each module those of ours that it imports as it loads."""
    modules = list_sources(root)
    found: dict[str, set[str]] = {}
    for name, path in modules.items():
        targets = IMPORT.findall(path.read_text("utf-8"))
        resolved = ((path.parent / target).resolve() for target in targets)
        found[name] = {
            known for target in resolved if (known := _resolve(target, root.resolve(), modules))
        }
    return found


def _resolve(target: Path, root: Path, modules: Mapping[str, Path]) -> str | None:
    """Name the module that a path stands for; styles are none."""
    name = target.relative_to(root).as_posix() if target.is_relative_to(root) else ""
    return next((each for each in (name, f"{name}.ts", f"{name}.tsx") if each in modules), None)


def find_long(root: Path) -> list[str]:
    """List modules that are too long, or whose name says nothing."""
    found = []
    for name, path in list_sources(root).items():
        n_lines = len(path.read_text("utf-8").splitlines())
        if n_lines >= MAX_LINES or path.name.partition(".")[0].lower() in VAGUE:
            found.append(f"{name}: {n_lines} lines")
    return found


def test_sources_are_short_and_named_after_their_idea() -> None:
    assert find_long(SOURCES) == []


def test_sources_do_not_import_in_circles() -> None:
    assert find_circle(list_edges(SOURCES)) == []


def test_this_reads_the_real_sources() -> None:
    edges = list_edges(SOURCES)
    assert edges.get("main.tsx")
    assert sum(len(targets) for targets in edges.values()) >= len(edges) / 2


@pytest.mark.parametrize(
    "back",
    [
        'import { a } from "../draw/a";',
        'import "../draw/a";',
        'export { a } from "../draw/a";',
        'export * from "../draw/a.ts";',
        'import {\n  a,\n  type B,\n} from "../draw/a";',
        'const x = 1;\nimport a, { b } from "../draw/a";',
    ],
)
def test_checker_finds_a_circle(tmp_path: Path, back: str) -> None:
    files = {"draw/a.ts": 'import { b } from "../shell/b";', "shell/b.tsx": back}
    circle = find_circle(list_edges(plant(tmp_path, files)))
    assert circle == ["draw/a.ts", "shell/b.tsx", "draw/a.ts"]


@pytest.mark.parametrize(
    "back",
    [
        'import type { A } from "../draw/a";',
        'export type { A } from "../draw/a";',
        'const a = () => import("../draw/a");',
        'import { h } from "preact";\nimport "./b.css";',
        '// import { a } from "../draw/a";',
    ],
)
def test_checker_lets_types_and_late_imports_pass(tmp_path: Path, back: str) -> None:
    files = {"draw/a.ts": 'import { b } from "../shell/b";', "shell/b.tsx": back}
    assert find_circle(list_edges(plant(tmp_path, files))) == []


def test_checker_finds_long_and_vague_sources(tmp_path: Path) -> None:
    files = {"draw/a.ts": "x\n" * 400, "draw/b.tsx": "x\n" * 399, "draw/utils.test.ts": ""}
    assert find_long(plant(tmp_path, files)) == [
        "draw/a.ts: 400 lines",
        "draw/utils.test.ts: 0 lines",
    ]
