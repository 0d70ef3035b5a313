"""What the atlas says about a model and its heads: rows of `models` and `heads`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.buffers import Wanted
from pipeline.inputs import Encoded
from pipeline.models import LoadedModel
from pipeline.stacks import CallSite, StackShape, kv_head_of
from pipeline.verify import SiteCheck, check_attention

Row = dict[str, Any]


def check_model(
    loaded: LoadedModel,
    sites: Sequence[CallSite],
    encoded: Sequence[Encoded],
    precision: str,
    length: int,
) -> list[SiteCheck]:
    """Check a model on its longest sequence, repeated up to `length`, and on its shortest.

    The corpus may grow by sequences of any length up to `length`: windows, chunks and biases must
    show now. The short sequence has padding behind it, being at most half as long.

    Args:
        loaded: the model.
        sites: its calls, from `trace_calls`.
        encoded: sequences of the corpus, at least one.
        precision: that vectors will be stored with.
        length: longest sequence that may come, in tokens.

    Raises:
        CaptureMismatchError, UnsupportedModelError: see `check_attention`.
    """
    longest = max(encoded, key=lambda sequence: sequence.n_tokens)
    shortest = min(encoded, key=lambda sequence: sequence.n_tokens)
    half = max(1, min(shortest.n_tokens, length // 2))
    chosen = [_resize(longest, length), _resize(shortest, half)]
    return check_attention(loaded, sites, chosen, precision)


def _resize(sequence: Encoded, length: int) -> Encoded:
    """A text cut or repeated to a length; an image as it is."""
    if sequence.vocab_id is None:
        return sequence
    return replace(
        sequence,
        n_tokens=length,
        vocab_id=np.resize(sequence.vocab_id, length),
        is_special=np.resize(sequence.is_special, length),
    )


def describe_models(
    loaded: LoadedModel, stacks: Sequence[StackShape], checks: Sequence[SiteCheck]
) -> list[Row]:
    """Rows of `models` without the capture settings, one a stack."""
    rows = []
    for stack in stacks:
        own = [check for check in checks if check.site.stack == stack.stack]
        has_bias = any(facts.offset_bias is not None for check in own for facts in check.facts)
        rows.append(
            {
                "model": stack.model,
                "architecture": loaded.architecture,
                "query_model": stack.query_model,
                "key_model": stack.key_model,
                "n_layers": stack.n_layers,
                "n_heads": max(site.n_heads for site in stack.sites),
                "n_kv_heads": max(site.n_kv_heads for site in stack.sites),
                "d_head": max(site.d_head for site in stack.sites),
                "position_encoding": "offset_bias" if has_bias else position_encoding(loaded),
                "attention_max_abs_error": max(check.max_abs_error for check in own),
                "attention_stored_max_abs_error": max(c.stored_max_abs_error for c in own),
            }
        )
    return rows


def position_encoding(loaded: LoadedModel) -> str:
    """How a model without offset bias tells positions: rotary, absolute or none."""
    configs = [loaded.model.config, getattr(loaded.model.config, "text_config", None)]
    if any(getattr(config, "rope_parameters", None) for config in configs):
        return "rotary"
    names = [name for name, _ in loaded.model.named_parameters()]
    learned = any("position" in name or ".wpe" in f".{name}" for name in names)
    return "absolute" if learned else "none"


def describe_heads(wanted: Sequence[Wanted], checks: Sequence[SiteCheck]) -> list[Row]:
    """Rows of `heads` for the heads that are captured."""
    rows = []
    for want in wanted:
        site, check = want.site, checks[want.call]
        for head in want.heads:
            facts = check.facts[head]
            rows.append(
                {
                    "model": want.model,
                    "layer": site.layer,
                    "head": head,
                    "kv_head": kv_head_of(site, head),
                    "d_head": site.d_head,
                    "scaling": facts.scaling,
                    "mask": facts.mask,
                    "window": facts.window,
                    "soft_cap": facts.soft_cap,
                    "sink": facts.sink,
                    "offset_bias": facts.offset_bias and list(facts.offset_bias),
                }
            )
    return rows
