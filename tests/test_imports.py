"""Who imports whom: the table of the design, no circles, no long modules, read with `ast`."""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_LINES = 400
VAGUE_NAMES = {"utils", "helpers", "common", "manager", "misc"}
HEAVY = frozenset({"torch", "transformers", "ray", "prefect", "umap"})
OWN = ("store", "pipeline", "flows", "api", "qkatlas")


@dataclass(frozen=True)
class Rule:
    """What a folder may and must not import."""

    own: frozenset[str]
    """Other folders of ours."""
    never: frozenset[str]
    """Packages of others."""


RULES = {
    "store": Rule(frozenset(), frozenset({"torch", "transformers", "ray", "prefect", "fastapi"})),
    "pipeline": Rule(frozenset({"store"}), frozenset({"ray", "prefect", "fastapi"})),
    "flows": Rule(frozenset({"store", "pipeline"}), frozenset({"fastapi"})),
    "api": Rule(
        frozenset({"store"}), frozenset({"torch", "transformers", "ray", "prefect", "umap"})
    ),
    "qkatlas": Rule(frozenset({"store", "pipeline", "flows", "api"}), frozenset()),
}


@dataclass(frozen=True)
class Import:
    """One imported name."""

    name: str
    """Dotted, and with `from X import y` it is `X.y`."""
    line: int
    late: bool
    """True inside a function."""


def list_modules(root: Path) -> dict[str, Path]:
    """Find our modules: their dotted names and files."""
    paths = [path for folder in OWN for path in sorted((root / folder).rglob("*.py"))]
    paths += [root / "qkatlas.py"] if (root / "qkatlas.py").exists() else []
    named = {path: path.relative_to(root).with_suffix("").parts for path in paths}
    return {
        ".".join(parts[:-1] if parts[-1] == "__init__" else parts): path
        for path, parts in named.items()
    }


def read_imports(module: str, path: Path) -> list[Import]:
    """Read every import of a module, those in functions too, relative ones made absolute."""
    tree = ast.parse(path.read_text("utf-8"))
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return list(_walk(tree, package, late=False))


def _walk(node: ast.AST, package: str, late: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        for name in _names(child, package):
            yield Import(name, getattr(child, "lineno", 0), late)
        is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _walk(child, package, late or is_function)


def _names(node: ast.AST, package: str) -> list[str]:
    """List what one node imports, `import_module("x")` and `__import__("x")` included."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        parts = package.split(".")
        above = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
        base = ".".join(part for part in (above, node.module) if part)
        return [f"{base}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in (
        "import_module",
        "__import__",
    ):
        return [
            argument.value
            for argument in node.args[:1]
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
        ]
    return []


def find_forbidden(root: Path) -> list[str]:
    """List every import that the table of the design does not allow."""
    found = []
    for module, path in list_modules(root).items():
        home = module.split(".")[0]
        for imported in read_imports(module, path):
            top = imported.name.split(".")[0]
            foreign = top in OWN and top != home and top not in RULES[home].own
            if foreign or top in RULES[home].never or top in ("tests", "bench"):
                found.append(f"{path.relative_to(root)}:{imported.line} imports {imported.name}")
    return found


def list_edges(root: Path) -> dict[str, set[str]]:
    """Find for each of our modules those that it imports as it loads."""
    modules = list_modules(root)
    return {
        module: {
            target
            for imported in read_imports(module, path)
            if not imported.late and (target := _own_module(imported.name, modules))
        }
        for module, path in modules.items()
    }


def _own_module(name: str, modules: Mapping[str, Path]) -> str | None:
    """Name our module that an imported name lies in."""
    if name in modules:
        return name
    parent = name.rpartition(".")[0]
    return parent if parent in modules else None


def find_circle(edges: Mapping[str, set[str]]) -> list[str]:
    """Find modules that import each other in a circle; empty when there are none."""
    finished: set[str] = set()

    def visit(module: str, trail: list[str]) -> list[str]:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in finished:
            return []
        for target in sorted(edges[module]):
            if circle := visit(target, [*trail, module]):
                return circle
        finished.add(module)
        return []

    return next((circle for module in sorted(edges) if (circle := visit(module, []))), [])


def find_heavy(root: Path, start: str) -> list[str]:
    """List what is heavy among all that a module loads, directly or through ours."""
    modules, edges = list_modules(root), list_edges(root)
    reached, waiting, found = set[str](), [start], []
    while waiting:
        module = waiting.pop()
        parents = [module.rsplit(".", n)[0] for n in range(1, module.count(".") + 1)]
        reached.add(module)
        loaded = edges[module] | (set(parents) & set(modules))
        waiting += sorted(loaded - reached)
        found += [
            f"{module} imports {imported.name}"
            for imported in read_imports(module, modules[module])
            if not imported.late and imported.name.split(".")[0] in HEAVY
        ]
    return found


def find_long(root: Path, folders: tuple[str, ...]) -> list[str]:
    """List modules that are too long, or whose name says nothing."""
    paths = [path for folder in folders for path in (root / folder).rglob("*.py")]
    paths += root.glob("*.py")
    found = []
    for path in sorted(set(paths)):
        n_lines = len(path.read_text("utf-8").splitlines())
        if n_lines >= MAX_LINES or path.stem in VAGUE_NAMES:
            found.append(f"{path.relative_to(root)}: {n_lines} lines")
    return found


def test_modules_import_only_what_the_design_allows() -> None:
    assert find_forbidden(ROOT) == []


def test_modules_do_not_import_in_circles() -> None:
    assert find_circle(list_edges(ROOT)) == []


@pytest.mark.parametrize("module", ["flows.config", "store.schema", "qkatlas"])
def test_the_first_modules_of_a_command_load_nothing_heavy(module: str) -> None:
    if module not in list_modules(ROOT):
        pytest.skip(f"{module} is not there")
    assert find_heavy(ROOT, module) == []


def test_modules_are_short_and_named_after_their_idea() -> None:
    assert find_long(ROOT, (*OWN, "bench", "infra", "tests")) == []


def test_this_reads_the_real_tree() -> None:
    modules = list_modules(ROOT)
    assert {"store.errors", "pipeline.settings", "flows.config", "flows"} <= set(modules)
    assert "pipeline.settings" in list_edges(ROOT)["flows.config"]


def plant(root: Path, files: Mapping[str, str]) -> Path:
    """Write a made-up tree."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return root


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("store/a.py", "import torch"),
        ("store/a.py", "import torch.nn as nn"),
        ("store/a.py", "from transformers import AutoModel"),
        ("store/a.py", "def f():\n    import ray"),
        ("store/a.py", "class A:\n    async def f(self):\n        from prefect.x import y"),
        ("store/a.py", "try:\n    import fastapi\nexcept ImportError:\n    pass"),
        ("store/a.py", "import importlib\nx = importlib.import_module('torch.nn')"),
        ("store/a.py", "x = __import__('ray')"),
        ("store/a.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch"),
        ("store/a.py", "from pipeline import settings"),
        ("store/a.py", "import pipeline.settings"),
        ("store/deep/b.py", "from ...flows import config"),
        ("pipeline/a.py", "import ray"),
        ("pipeline/a.py", "from flows.config import load_config"),
        ("flows/a.py", "from fastapi import FastAPI"),
        ("flows/a.py", "import api.server"),
        ("flows/a.py", "import qkatlas"),
        ("api/a.py", "import umap"),
        ("api/a.py", "from pipeline.settings import MapSpec"),
        ("api/__init__.py", "import torch"),
        ("qkatlas.py", "from tests import x"),
    ],
)
def test_checker_finds_a_forbidden_import(tmp_path: Path, path: str, text: str) -> None:
    found = find_forbidden(plant(tmp_path, {path: text}))
    assert len(found) == 1
    assert found[0].startswith(f"{path}:{len(text.splitlines()) - ('try' in text) * 2}")


def test_checker_allows_what_the_table_allows(tmp_path: Path) -> None:
    files = {
        "store/__init__.py": "from . import errors",
        "store/errors.py": "import pyarrow, raylib\nfrom store.a import b",
        "pipeline/a.py": "import torch\nfrom store.errors import AtlasError",
        "flows/a.py": "import ray, prefect\nfrom pipeline import a",
        "api/a.py": "import fastapi\nfrom store import errors",
        "qkatlas.py": "def run():\n    import flows.a, api.a, pipeline.a, torch",
        "tests/a.py": "import torch, store",
    }
    assert find_forbidden(plant(tmp_path, files)) == []


def test_checker_finds_a_circle(tmp_path: Path) -> None:
    files = {
        "store/a.py": "from store import b",
        "store/b.py": "if True:\n    from .deep.c import x",
        "store/deep/c.py": "import store.a",
        "store/d.py": "import store.a",
    }
    circle = find_circle(list_edges(plant(tmp_path, files)))
    assert circle == ["store.a", "store.b", "store.deep.c", "store.a"]


def test_checker_lets_a_late_import_break_a_circle(tmp_path: Path) -> None:
    files = {"store/a.py": "import store.b", "store/b.py": "def f():\n    import store.a"}
    assert find_circle(list_edges(plant(tmp_path, files))) == []


def test_checker_finds_what_loads_heavy_modules(tmp_path: Path) -> None:
    files = {
        "qkatlas.py": "import flows.deep.a",
        "flows/deep/__init__.py": "import ray",
        "flows/deep/a.py": "from pipeline import b",
        "pipeline/b.py": "import torch\ndef f():\n    import umap",
    }
    found = find_heavy(plant(tmp_path, files | {"flows/__init__.py": ""}), "qkatlas")
    assert sorted(found) == ["flows.deep imports ray", "pipeline.b imports torch"]


def test_checker_finds_long_and_vague_modules(tmp_path: Path) -> None:
    files = {"store/a.py": "x = 1\n" * 400, "store/b.py": "x = 1\n" * 399, "api/utils.py": ""}
    assert find_long(plant(tmp_path, files | {"qkatlas.py": "\n" * 400}), OWN) == [
        "api/utils.py: 0 lines",
        "qkatlas.py: 400 lines",
        "store/a.py: 400 lines",
    ]
