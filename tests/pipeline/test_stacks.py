"""Stacks, layers and heads are told apart by what a model's forward pass shows."""

from dataclasses import replace
from typing import Any

import pytest

from pipeline.inputs import Inputs
from pipeline.stacks import (
    CallSite,
    choose_heads,
    choose_layers,
    kv_head_of,
    list_stacks,
    trace_calls,
)
from store.errors import ConfigError, UnsupportedModelError
from tests.pipeline.tiny_models import Kind, tiny_model


@pytest.mark.parametrize(
    ("name", "modality", "expected"),
    [
        ("bert", "text", [("m", "m", "m")]),
        ("vit", "image", [("m", "m", "m")]),
        ("clip", "text", [("m--text", "m--text", "m--text")]),
        ("clip", "image", [("m--vision", "m--vision", "m--vision")]),
        *(
            (
                name,
                "text",
                [
                    ("m--encoder", "m--encoder", "m--encoder"),
                    ("m--decoder", "m--decoder", "m--decoder"),
                    ("m--cross", "m--decoder", "m--encoder"),
                ],
            )
            for name in ("t5", "bart")
        ),
    ],
)
def test_stacks_have_a_key_each_and_name_whose_tokens_they_read(
    name: str, modality: Kind, expected: list[tuple[str, str, str]]
) -> None:
    stacks = list_stacks("m", trace_calls(tiny_model(name, modality)))
    assert [(s.model, s.query_model, s.key_model) for s in stacks] == expected
    assert all(stack.n_layers == 2 for stack in stacks)


def test_shared_modules_are_numbered_by_call() -> None:
    sites = trace_calls(tiny_model("albert"))
    assert [site.layer for site in sites] == [0, 1, 2]
    assert len({site.module for site in sites}) == 1


def test_layers_of_an_encoder_and_a_decoder_are_counted_apart() -> None:
    sites = trace_calls(tiny_model("t5"))
    seen = [(site.stack, site.layer) for site in sites]
    assert seen == [
        ("encoder", 0), ("encoder", 1),
        ("decoder", 0), ("cross", 0), ("decoder", 1), ("cross", 1),
    ]  # fmt: skip


def test_grouped_key_heads_are_seen() -> None:
    site = trace_calls(tiny_model("llama"))[0]
    assert (site.n_heads, site.n_kv_heads, site.d_head) == (4, 2, 8)
    assert [kv_head_of(site, head) for head in range(4)] == [0, 0, 1, 1]


def test_model_that_calls_no_attention_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: Any) -> None:
        return None

    monkeypatch.setattr("pipeline.stacks.forward", nothing)
    with pytest.raises(UnsupportedModelError, match="BertModel computes attention outside"):
        trace_calls(tiny_model("bert"))


def test_model_that_changes_its_batch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.inputs import probe_inputs

    def fewer(loaded: Any) -> Inputs:
        found = probe_inputs(loaded)
        return replace(found, lengths=found.lengths[:2])

    monkeypatch.setattr("pipeline.stacks.probe_inputs", fewer)
    with pytest.raises(UnsupportedModelError, match=r"batch and query length 3 x 9, expected 2"):
        trace_calls(tiny_model("bert"))


def site(layer: int = 0, n_heads: int = 4, n_kv_heads: int = 2) -> CallSite:
    return CallSite(f"layers.{layer}", "", layer, n_heads, n_kv_heads, 8)


def test_layers_and_heads_are_chosen_in_order() -> None:
    (stack,) = list_stacks("m", [site(0), site(1), site(2)])
    assert choose_layers(stack, None) == (0, 1, 2)
    assert choose_layers(stack, (2, 0)) == (0, 2)
    assert choose_heads(site(), None) == (0, 1, 2, 3)
    assert choose_heads(site(), (3, 1)) == (1, 3)


def test_layer_or_head_that_is_not_there_is_refused() -> None:
    (stack,) = list_stacks("m", [site(0), site(1)])
    with pytest.raises(ConfigError, match=r"capture.layers: \[2, 7\] .* m has layers 0 to 1"):
        choose_layers(stack, (0, 7, 2))
    with pytest.raises(ConfigError, match=r"capture.heads: \[4\] .* layer 0 has heads 0 to 3"):
        choose_heads(site(), (4,))


def test_layer_numbers_of_a_hybrid_model_may_have_gaps() -> None:
    (stack,) = list_stacks("m", [site(1), site(3)])
    assert stack.n_layers == 4
    assert choose_layers(stack, None) == (1, 3)
    with pytest.raises(ConfigError, match=r"\[2\] not in the model"):
        choose_layers(stack, (2,))
