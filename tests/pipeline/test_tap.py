"""The tap sees every attention call and changes nothing."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.inputs import encode_texts, forward, make_inputs
from pipeline.models import LoadedModel
from pipeline.tap import AttentionCall, StopForward, eager_attention, run_forward, tap_model
from store.errors import UnsupportedModelError
from tests.pipeline.tiny_models import make_text, tiny_folder, tiny_model


def encode(loaded: LoadedModel, *n_words: int) -> dict[str, Tensor]:
    texts = [make_text(n, n) for n in n_words]
    return make_inputs(loaded, encode_texts(loaded.tokenizer, texts, 24)).tensors


@pytest.mark.parametrize("name", ["bert", "llama", "gemma2", "t5"])
def test_tapped_model_gives_what_it_gave_untapped(name: str) -> None:
    from transformers import AutoModel

    loaded = tiny_model(name)
    inputs = encode(loaded, 3, 11)
    untapped = AutoModel.from_pretrained(tiny_folder(name)).eval()
    calls: list[AttentionCall] = []
    found: list[Tensor] = []

    def run() -> None:
        found.append(loaded.model(**inputs).last_hidden_state)

    run_forward(run, calls.append)
    with torch.inference_mode():
        expected = untapped(**inputs).last_hidden_state
    assert torch.equal(found[0], expected)
    assert len(calls) == (6 if name == "t5" else 2)


def test_kernel_of_the_model_is_kept() -> None:
    assert tiny_model("bert").model.config._attn_implementation == "qkatlas_sdpa"
    assert tiny_model("gemma2").model.config._attn_implementation == "qkatlas_eager"


def test_tapping_twice_is_tapping_once() -> None:
    loaded = tiny_model("bert")
    tap_model(loaded.model)
    assert loaded.model.config._attn_implementation == "qkatlas_sdpa"


def test_nobody_is_shown_a_call_outside_run_forward() -> None:
    loaded = tiny_model("bert")
    calls: list[AttentionCall] = []
    run_forward(lambda: loaded.model(**encode(loaded, 2)), calls.append)
    seen = len(calls)
    with torch.inference_mode():
        loaded.model(**encode(loaded, 2))
    assert len(calls) == seen


def test_visitor_is_removed_when_the_forward_pass_raises() -> None:
    loaded = tiny_model("bert")
    calls: list[AttentionCall] = []

    def broken() -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        run_forward(broken, calls.append)
    with torch.inference_mode():
        loaded.model(**encode(loaded, 2))
    assert calls == []


def test_stop_ends_the_forward_pass() -> None:
    loaded = tiny_model("albert")
    calls = 0

    def visit(call: AttentionCall) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise StopForward

    run_forward(lambda: loaded.model(**encode(loaded, 2)), visit)
    assert calls == 2


def test_masks_arrive_with_padding() -> None:
    loaded = tiny_model("bert")
    masks: list[Tensor | None] = []
    run_forward(lambda: loaded.model(**encode(loaded, 2, 9)), lambda call: masks.append(call.mask))
    assert all(mask is not None and mask.shape[-1] == 11 for mask in masks)
    assert not masks[0][0, 0, 0, 4:].any()  # type: ignore[index]


@pytest.mark.parametrize("name", ["llama", "clip"])
def test_eager_block_is_untapped_and_ends(name: str) -> None:
    loaded = tiny_model(name)
    before = [module.config._attn_implementation for module in parts(loaded.model)]
    with pytest.raises(RuntimeError, match="inside"), eager_attention(loaded.model):
        assert {m.config._attn_implementation for m in parts(loaded.model)} == {"eager"}
        raise RuntimeError("inside")
    assert [module.config._attn_implementation for module in parts(loaded.model)] == before


def parts(model: nn.Module) -> list[Any]:
    from transformers import PreTrainedModel

    return [part for part in model.modules() if isinstance(part, PreTrainedModel)]


def test_scaling_defaults_to_the_kernels() -> None:
    zeros = torch.zeros(1, 1, 3, 16)
    assert AttentionCall(nn.Identity(), zeros, zeros, zeros, None, {}).scaling == 0.25
    assert AttentionCall(nn.Identity(), zeros, zeros, zeros, None, {"scaling": 2}).scaling == 2


def test_causality_is_the_options_then_the_modules() -> None:
    module = nn.Identity()
    zeros = torch.zeros(1, 1, 3, 16)
    assert AttentionCall(module, zeros, zeros, zeros, None, {}).is_causal
    assert not AttentionCall(module, zeros, zeros, zeros, None, {"is_causal": False}).is_causal
    module.is_causal = False  # type: ignore[assignment]
    assert not AttentionCall(module, zeros, zeros, zeros, None, {}).is_causal
    assert AttentionCall(module, zeros, zeros, zeros, None, {"is_causal": True}).is_causal
    one = torch.zeros(1, 1, 1, 16)
    assert not AttentionCall(module, one, zeros, zeros, None, {"is_causal": True}).is_causal


def test_attention_that_picks_keys_by_content_is_refused() -> None:
    from transformers import AttentionInterface

    loaded = tiny_model("bert")
    module = loaded.model.encoder.layer[0].attention.self
    zeros = torch.zeros(1, 4, 3, 8)
    tapped = AttentionInterface()["qkatlas_sdpa"]
    with pytest.raises(UnsupportedModelError, match="picks by content"):
        run_forward(
            lambda: tapped(module, zeros, zeros, zeros, None, indices=torch.zeros(1)),
            lambda call: None,
        )


def test_forward_takes_the_tower_of_the_input() -> None:
    loaded = tiny_model("clip")
    names: list[str] = []
    modules = {id(module): name for name, module in loaded.model.named_modules()}
    inputs = make_inputs(loaded, encode_texts(loaded.tokenizer, [make_text(3), make_text(5)], 24))
    run_forward(lambda: forward(loaded, inputs), lambda c: names.append(modules[id(c.module)]))
    assert len(names) == 2
    assert all(name.startswith("text_model.") for name in names)
