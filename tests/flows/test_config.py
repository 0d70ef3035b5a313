"""The configuration, accepted: what loads and what it becomes."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.config import RunConfig, config_json_schema, describe_config, load_config
from flows.config_values import safe_name
from pipeline.settings import (
    CaptureSpec,
    CorpusSpec,
    MapSpec,
    MeasureSpec,
    ModelSpec,
    SplitSpec,
    WorkerSpec,
)
from store.errors import ConfigError

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
MINIMAL: dict[str, Any] = {
    "atlas": "./atlas",
    "corpus": {"source": "lines.txt"},
    "model": {"name": "org/some-model"},
}
Load = Callable[..., RunConfig]


@pytest.fixture(name="load")
def _load(tmp_path: Path) -> Load:
    """Load a minimal run with some top-level fields replaced, or other text as it is."""

    def load(text: str | None = None, *overrides: str, **fields: Any) -> RunConfig:
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(MINIMAL | fields) if text is None else text, "utf-8")
        return load_config(path, overrides)

    return load


def test_defaults_are_those_of_the_settings(load: Load, tmp_path: Path) -> None:
    assert load() == RunConfig(
        atlas=str(tmp_path / "atlas"),
        corpus=CorpusSpec("lines.txt", (str(tmp_path / "lines.txt"),)),
        model=ModelSpec("org/some-model", "some-model"),
        capture=CaptureSpec(),
        maps=(MapSpec("attention", joint="lift"), MapSpec("umap")),
        measures=MeasureSpec(),
        workers=WorkerSpec(),
        budget_bytes=100 * 10**9,
    )


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_load(path: Path) -> None:
    config = load_config(path)
    assert config.corpus.sources[0].startswith(str(path.parent))
    assert config.maps
    first_line = path.read_text("utf-8").splitlines()[0]
    assert first_line == "# yaml-language-server: $schema=../docs/configuration.schema.json"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_fit_the_json_schema(path: Path) -> None:
    validate = pytest.importorskip("jsonschema").validate
    validate(yaml.safe_load(path.read_text("utf-8")), config_json_schema())


def test_there_are_three_examples() -> None:
    assert [path.stem for path in EXAMPLES] == [
        "decoder_on_jsonl",
        "encoder_on_text",
        "vit_on_images",
    ]


def test_documents_are_made_from_the_code() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text("utf-8") == describe_config()
    schema = json.loads((ROOT / "docs" / "configuration.schema.json").read_text("utf-8"))
    assert schema == config_json_schema()


@pytest.mark.parametrize(
    ("argument", "name"),
    [("markdown", "configuration.md"), ("schema", "configuration.schema.json")],
)
def test_module_prints_the_documents(argument: str, name: str) -> None:
    command = [sys.executable, "-m", "flows.config", argument]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    assert printed == (ROOT / "docs" / name).read_bytes()


def test_module_loads_nothing_heavy() -> None:
    code = (
        "import sys, flows.config; "
        "print({'torch', 'ray', 'prefect', 'transformers', 'numpy'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout == b"set()\n"


def test_paths_are_seen_from_the_file(load: Load, tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    config = load(
        atlas="out/../atlas",
        corpus={"source": ["data/*.txt", "/data/x.txt", "s3://bucket/a/*.txt"]},
        model={"name": "local"},
    )
    assert config.atlas == f"{tmp_path}/atlas"
    assert config.corpus.sources == (
        f"{tmp_path}/data/*.txt",
        "/data/x.txt",
        "s3://bucket/a/*.txt",
    )
    assert config.corpus.name == "data"
    assert config.model.name == f"{tmp_path}/local"
    assert load(model={"name": "../m"}).model.name == f"{tmp_path.parent}/m"
    assert load(model={"name": "./m.gguf"}).model == ModelSpec(f"{tmp_path}/m.gguf", "m.gguf")


def test_home_and_variables_are_replaced(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/me")
    monkeypatch.setenv("QK_DATA", "/data")
    config = load(atlas="~/a", corpus={"source": "$QK_DATA/x"}, model={"name": "${QK_DATA}/m"})
    assert (config.atlas, config.corpus.sources) == ("/me/a", ("/data/x",))
    assert config.model.name == "/data/m"
    monkeypatch.delenv("QK_DATA")
    with pytest.raises(ConfigError, match=r"corpus\.source: the environment variable QK_DATA is"):
        load(corpus={"source": "$QK_DATA/x"})


def test_atlas_of_the_command_line_is_seen_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, here = tmp_path / "run.yaml", tmp_path / "here"
    path.write_text(yaml.safe_dump({k: v for k, v in MINIMAL.items() if k != "atlas"}), "utf-8")
    here.mkdir()
    monkeypatch.chdir(here)
    assert load_config(path, atlas="mine").atlas == str(here / "mine")
    assert load_config(path, atlas="s3://bucket/a").atlas == "s3://bucket/a"
    with pytest.raises(ConfigError, match="atlas: missing; expected text"):
        load_config(path)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/data/my text/*.txt", "my-text"),
        ("s3://bucket/prefix/", "prefix"),
        ("s3://bucket/*.txt", "bucket"),
        ("hub://org/set?config=a/b&split=train", "set"),
        ("org/a--b", "a-b"),
        ("x/_hidden", "hidden"),
        ("日本", ""),
    ],
)
def test_names_made_from_paths_are_safe(source: str, name: str) -> None:
    assert safe_name(source) == name


@pytest.mark.parametrize(
    ("written", "indices"),
    [("all", None), ("0-2", (0, 1, 2)), ([3, 1], (1, 3)), (["4-5", 0], (0, 4, 5))],
)
def test_layers_are_all_or_a_list_or_ranges(load: Load, written: Any, indices: Any) -> None:
    assert load(capture={"layers": written}).capture.layers == indices


@pytest.mark.parametrize(
    ("written", "size"),
    [(1, 1), ("20 GB", 20 * 10**9), ("500 MiB", 500 * 2**20), ("1.5kb", 1500), ("7 B", 7)],
)
def test_sizes_have_units(load: Load, written: Any, size: int) -> None:
    assert load(budget_bytes=written).budget_bytes == size


def test_a_list_of_dims_makes_a_map_each(load: Load) -> None:
    maps = load(maps=[{"method": "pca", "dims": [2, 3]}, {"dims": 3, "n_epochs": 50}]).maps
    assert maps == (MapSpec("pca"), MapSpec("pca", 3), MapSpec("umap", 3, n_epochs=50))
    assert load(maps=[]).maps == ()


def test_the_joint_space_is_that_of_the_method_unless_it_is_named(load: Load) -> None:
    def joints(*maps: dict[str, Any]) -> list[str]:
        return [spec.joint for spec in load(maps=list(maps)).maps]

    methods = ["pca", "umap", "tsne", "attention"]
    chosen = ["translate", "translate", "translate", "lift"]
    assert joints(*({"method": method} for method in methods)) == chosen
    assert joints({"method": "pca", "joint": "lift"}, {"method": "tsne", "joint": "balance"}) == [
        "lift",
        "balance",
    ]
    assert joints({"method": "attention", "joint": "lift"}) == ["lift"]


def test_measures_are_on_off_or_described(load: Load) -> None:
    assert load(measures=True).measures == MeasureSpec()
    assert load(measures=False).measures is None
    assert load(measures={"sequences": 7}).measures == MeasureSpec(7)


@pytest.mark.parametrize("unit", ["record", "line", "paragraph", "sentence"])
def test_split_has_units(load: Load, unit: Any) -> None:
    assert load(corpus={"source": "x", "split": unit}).corpus.split == SplitSpec(unit)


def test_scalars_are_those_of_yaml_1_2(load: Load) -> None:
    text = "atlas: no\ncorpus: {source: 0:5}\nmodel: {name: 012, key: on}\nmaps: [{min_dist: 1e-2}]"
    config = load(text)
    assert config.atlas.endswith("/no")
    assert config.corpus.sources[0].endswith("/0:5")
    assert (config.model.name, config.model.key) == ("012", "on")
    assert config.maps[0].min_dist == 0.01
    assert load(model={"name": "m", "key": "12"}).model.key == "12"


def test_anchors_and_merges_work(load: Load) -> None:
    text = yaml.safe_dump(MINIMAL) + "maps: [&a {max_tokens: 50}, {<<: *a, dims: 3}]\n"
    assert load(text).maps == (MapSpec(max_tokens=50), MapSpec(dims=3, max_tokens=50))
    changed = load(text, "maps.0.max_tokens=60").maps
    assert [entry.max_tokens for entry in changed] == [60, 50]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("capture.max_length=256", {"capture": CaptureSpec(max_length=256)}),
        ("capture.layers=[0,1]", {"capture": CaptureSpec(layers=(0, 1))}),
        ("maps=[{method: pca}]", {"maps": (MapSpec("pca"),)}),
        ("maps=[]", {"maps": ()}),
        ("maps.0.dims=3", {"maps": (MapSpec(dims=3),)}),
        ("measures.sequences=5", {"measures": MeasureSpec(5)}),
        ("budget_bytes=5 MB", {"budget_bytes": 5_000_000}),
        ("model.revision=", {}),
    ],
)
def test_set_replaces_a_field(load: Load, override: str, expected: dict[str, Any]) -> None:
    assert load(None, override) == replace(load(), **expected)


def test_set_counts_entries_of_a_list(load: Load) -> None:
    maps = [{"method": "pca"}, {"method": "umap"}]
    assert load(None, "maps.1.dims=3", maps=maps).maps == (MapSpec("pca"), MapSpec("umap", 3))
    assert len(load(None, "maps.2={dims: 3}", maps=maps).maps) == 3
    assert load(None, "maps.0.dims=3", "maps.0.dims=2", maps=maps) == load(maps=maps)
    for part in ("3", "x"):
        with pytest.raises(ConfigError, match=rf"--set maps\.{part}\.dims: maps is a list of 2"):
            load(None, f"maps.{part}.dims=3", maps=maps)
