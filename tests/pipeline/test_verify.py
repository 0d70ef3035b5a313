"""A capture that does not give the model's attention back is refused, and so is a blind check."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline import verify
from pipeline.inputs import encode_texts
from pipeline.models import LoadedModel, load_model
from pipeline.stacks import trace_calls
from pipeline.tap import AttentionCall, run_forward
from pipeline.verify import SiteCheck, check_attention
from store.errors import CaptureMismatchError, UnsupportedModelError
from tests.pipeline.tiny_models import make_text, tiny_model, tiny_spec

Change = Callable[[AttentionCall], AttentionCall]


def check(loaded: LoadedModel, precision: str = "float16") -> list[SiteCheck]:
    encoded = encode_texts(loaded.tokenizer, [make_text(18), make_text(5)], 24)
    return check_attention(loaded, trace_calls(loaded), encoded, precision)


def corrupt(monkeypatch: pytest.MonkeyPatch, change: Change) -> None:
    """Falsify what the check sees of every call."""

    def run_changed(forward: Any, visit: Any) -> None:
        run_forward(forward, lambda call: visit(change(call)))

    monkeypatch.setattr(verify, "run_forward", run_changed)


def swap_heads(call: AttentionCall) -> AttentionCall:
    return replace(call, query=call.query.flip(1))


def unscale(call: AttentionCall) -> AttentionCall:
    return replace(call, options={**call.options, "scaling": 1.0})


def shift_keys(call: AttentionCall) -> AttentionCall:
    return replace(call, key=call.key.roll(1, dims=2))


def spoil(call: AttentionCall) -> AttentionCall:
    return replace(call, query=call.query * float("nan"))


@pytest.mark.parametrize("change", [swap_heads, unscale, shift_keys, spoil])
def test_corrupted_capture_is_refused(change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    corrupt(monkeypatch, change)
    with pytest.raises(CaptureMismatchError, match="captured vectors differs from the model's own"):
        check(tiny_model("bert"))


def test_errors_are_small_and_grow_with_rounding() -> None:
    loaded = tiny_model("llama")
    exact, coarse = check(loaded, "float32"), check(loaded, "bfloat16")
    assert all(0 < site.max_abs_error < 1e-5 for site in exact)
    assert all(site.stored_max_abs_error == site.max_abs_error for site in exact)
    assert all(1e-4 < site.stored_max_abs_error < 5e-2 for site in coarse)


def test_rounding_that_costs_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(verify.STORED_LIMIT, "bfloat16", 1e-4)
    message = r"rounded to bfloat16 .* set capture\.precision to float32"
    with pytest.raises(CaptureMismatchError, match=message):
        check(tiny_model("bert"), "bfloat16")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_checked_in_full_and_goes_back(dtype: str) -> None:
    loaded = load_model(tiny_spec("t5", dtype), "text")
    before = {name: (part.dtype, part.clone()) for name, part in loaded.model.state_dict().items()}
    assert all(site.max_abs_error < 1e-5 for site in check(loaded))
    for name, part in loaded.model.state_dict().items():
        assert part.dtype == before[name][0]
        assert torch.equal(part, before[name][1])


def test_overflow_in_half_precision_is_refused() -> None:
    loaded = load_model(tiny_spec("bert", "float16"), "text")
    with torch.no_grad():
        loaded.model.encoder.layer[0].attention.self.query.weight.fill_(60_000)
    with pytest.raises(CaptureMismatchError, match=r"not finite in float16; set model.dtype"):
        check(loaded)


def test_model_that_shows_no_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = tiny_model("bert")
    attention = loaded.model.encoder.layer[1].attention.self

    def hide(module: object, arguments: object, output: tuple[Tensor, ...]) -> tuple[Tensor, None]:
        return output[0], None

    hook = attention.register_forward_hook(hide)
    try:
        with pytest.raises(UnsupportedModelError, match="returns no attention weights"):
            check(loaded)
    finally:
        hook.remove()
    check(loaded)


def test_check_of_a_shared_module_looks_at_every_call() -> None:
    checks = check(tiny_model("albert"))
    assert [site.site.layer for site in checks] == [0, 1, 2]
    assert len({site.max_abs_error for site in checks}) > 1


def test_long_probe_is_cut_to_what_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    corrupt(monkeypatch, lambda call: lengths.append(call.query.shape[2]) or call)  # type: ignore[func-returns-value]
    monkeypatch.setattr(verify, "_ATTENTION_BYTES", 2 * 8 * 4 * 100)
    check(tiny_model("bert"))
    assert set(lengths) == {10}


def test_checked_model_is_tapped_as_before(tmp_path: Path) -> None:
    loaded = tiny_model("gpt2")
    check(loaded)
    assert loaded.model.config._attn_implementation == "qkatlas_sdpa"
