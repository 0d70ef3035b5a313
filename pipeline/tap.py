"""The one place where a model's attention is seen: a function in transformers' AttentionInterface.

Every attention call of a tapped model shows its query, key and value exactly as the score product
uses them to a visitor, then runs the kernel that transformers had chosen. No model is patched and
nothing here knows an architecture.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from store.errors import UnsupportedModelError

_PREFIX = "qkatlas_"
_SPARSE = ("indices", "block_indices")  # top-k attention: reach depends on the content


@dataclass(frozen=True)
class AttentionCall:
    """What one attention module was given for one batch, before the softmax."""

    module: nn.Module
    query: Tensor  # (batch, n_heads, n_queries, d_head)
    key: Tensor  # (batch, n_kv_heads, n_keys, d_head)
    value: Tensor  # (batch, n_kv_heads, n_keys, d_value)
    mask: Tensor | None  # broadcasts to (batch, n_heads, n_queries, n_keys); bool or additive
    options: dict[str, Any]

    @property
    def scaling(self) -> float:
        """Factor on the dot product."""
        scaling = self.options.get("scaling")
        return float(self.query.shape[-1] ** -0.5 if scaling is None else scaling)

    @property
    def is_causal(self) -> bool:
        """Whether a kernel that gets no mask hides later keys."""
        chosen = self.options.get("is_causal")
        causal = getattr(self.module, "is_causal", True) if chosen is None else chosen
        return bool(causal) and self.query.shape[2] > 1


Visitor = Callable[[AttentionCall], None]
_visitor: ContextVar[Visitor | None] = ContextVar("visitor", default=None)


class StopForward(Exception):
    """A visitor raises it to end the forward pass; `run_forward` swallows it."""


def tap_model(model: Any) -> None:
    """Send all attention calls of a transformers model through the tap, keeping its kernels.

    Raises:
        UnsupportedModelError: the model does not take its attention from the AttentionInterface.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    for config in _configs(model):
        kernel = config._attn_implementation
        if kernel is None or kernel.startswith(_PREFIX):
            continue
        name = _PREFIX + kernel
        AttentionInterface.register(name, _tapped(kernel))
        if kernel in ALL_MASK_ATTENTION_FUNCTIONS:
            AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[kernel])
        config._attn_implementation_internal = name
    if not model._can_set_attn_implementation():
        raise outside_interface(model)


def outside_interface(model: Any) -> UnsupportedModelError:
    """The error for a model whose attention the tap cannot see."""
    return UnsupportedModelError(
        f"{type(model).__name__} computes attention outside transformers' AttentionInterface, "
        "so its queries and keys cannot be captured; choose a model whose modeling file calls "
        "ALL_ATTENTION_FUNCTIONS (most since transformers 5)"
    )


def _configs(model: Any) -> list[Any]:
    """The distinct configurations that a model and its parts read their kernel from."""
    from transformers import PreTrainedModel

    parts = [part for part in model.modules() if isinstance(part, PreTrainedModel)]
    found = {id(part.config): part.config for part in [model, *parts]}
    return list(found.values())


@contextmanager
def eager_attention(model: Any) -> Iterator[None]:
    """Run a model's own eager attention inside the block, untapped, then go back."""
    before = [(config, config._attn_implementation) for config in _configs(model)]
    try:
        for config, _ in before:
            config._attn_implementation_internal = "eager"
        yield
    finally:
        for config, kernel in before:
            config._attn_implementation_internal = kernel


def run_forward(forward: Callable[[], object], visit: Visitor) -> None:
    """Run a tapped model's forward pass and show every attention call to `visit`, in order."""
    token = _visitor.set(visit)
    try:
        with torch.inference_mode():
            forward()
    except StopForward:
        pass
    finally:
        _visitor.reset(token)


def _tapped(kernel: str) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """An attention function that shows its arguments and calls the kernel of this name."""

    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        visit = _visitor.get()
        if visit is not None:
            if any(options.get(name) is not None for name in _SPARSE):
                raise UnsupportedModelError(
                    f"{type(module).__name__} attends to keys that it picks by content, "
                    "which stored queries and keys cannot reproduce"
                )
            visit(AttentionCall(module, query, key, value, attention_mask, options))
        run = _find_kernel(module, kernel)
        result: tuple[Tensor, Tensor | None] = run(
            module, query, key, value, attention_mask, **options
        )
        return result

    return attention


def _find_kernel(module: nn.Module, kernel: str) -> Callable[..., Any]:
    """The function that transformers would have called for this module."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    source = sys.modules[type(module).__module__]
    functions = getattr(source, "ALL_ATTENTION_FUNCTIONS", ALL_ATTENTION_FUNCTIONS)
    found: Callable[..., Any] | None = functions.get_interface(
        kernel, getattr(source, "eager_attention_forward", None)
    )
    if found is None:
        raise UnsupportedModelError(f"{type(module).__name__} has no {kernel} attention function")
    return found
