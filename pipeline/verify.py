"""Is attention recomputed from captured vectors the model's own? Checked against eager attention.

The reference is an independent forward pass: the same weights with transformers' eager kernel,
untapped, its attention weights read from what each attention module returns. Both passes run in
float32 whatever the model's dtype: in bfloat16 two kernels of one model already differ by 0.08
(SmolLM2), which would hide a wrong mask or refuse a right model.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from pipeline.attention import attention_heads
from pipeline.facts import derive_facts
from pipeline.inputs import Encoded, Inputs, forward, make_inputs
from pipeline.models import LoadedModel
from pipeline.stacks import CallSite
from pipeline.tap import AttentionCall, eager_attention, run_forward
from store.attention import HeadFacts
from store.encoding import open_writer, round_mantissa, vector_array
from store.errors import CaptureMismatchError, UnsupportedModelError
from store.schema import TABLES

EXACT_LIMIT = 1e-4
"""Largest difference allowed for unrounded vectors."""

STORED_LIMIT = {"float32": 1e-4, "float16": 5e-3, "bfloat16": 5e-2}
"""Largest difference allowed for stored vectors, by the precision they are rounded to."""

_ATTENTION_BYTES = 1 << 31


@dataclass(frozen=True)
class SiteCheck:
    """Facts and errors of one attention call."""

    site: CallSite
    facts: tuple[HeadFacts, ...]
    max_abs_error: float
    stored_max_abs_error: float


@dataclass(frozen=True)
class _Kept:
    module: nn.Module
    query: Tensor
    key: Tensor
    facts: list[HeadFacts]
    query_lengths: tuple[int, ...]
    key_lengths: tuple[int, ...]


def check_attention(
    loaded: LoadedModel, sites: Sequence[CallSite], encoded: Sequence[Encoded], precision: str
) -> list[SiteCheck]:
    """Derive the facts of all heads and compare recomputed attention with the model's own.

    Args:
        loaded: the model.
        sites: its calls, from `trace_calls`.
        encoded: a few sequences; the longest one planned, and shorter ones for padding.
        precision: that vectors will be stored with.

    Raises:
        CaptureMismatchError: attention differs by more than the limits, or is not finite.
        UnsupportedModelError: a mask or bias cannot be expressed, or eager attention is not shown.
    """
    longest = _longest_affordable(sites, len(encoded))
    encoded = [_cut(sequence, longest) for sequence in encoded]
    _refuse_overflow(loaded, encoded)
    with _float32(loaded.model):
        inputs = make_inputs(loaded, encoded)
        kept = _capture(loaded, inputs)
        errors = _compare(loaded, inputs, kept, precision)
    checks = [
        SiteCheck(site, tuple(call.facts), *error)
        for site, call, error in zip(sites, kept, errors, strict=True)
    ]
    _refuse_mismatch(loaded, checks, precision)
    return checks


@contextmanager
def _float32(model: nn.Module) -> Iterator[None]:
    """Hold a model's weights in float32 inside the block, then each in its own dtype again."""
    tensors = [part for part in (*model.parameters(), *model.buffers()) if part.is_floating_point()]
    before = [part.dtype for part in tensors]
    try:
        for part in tensors:
            part.data = part.data.float()
        yield
    finally:
        for part, dtype in zip(tensors, before, strict=True):
            part.data = part.data.to(dtype)


def _refuse_overflow(loaded: LoadedModel, encoded: Sequence[Encoded]) -> None:
    """Refuse a model whose vectors overflow its half precision."""
    dtype = str(loaded.model.dtype).removeprefix("torch.")
    if dtype == "float32":
        return

    def visit(call: AttentionCall) -> None:
        if not (call.query.isfinite().all() and call.key.isfinite().all()):
            raise CaptureMismatchError(
                f"{loaded.architecture} gives vectors that are not finite in {dtype}; "
                "set model.dtype to float32"
            )

    inputs = make_inputs(loaded, encoded)
    run_forward(lambda: forward(loaded, inputs), visit)


def _longest_affordable(sites: Sequence[CallSite], n_sequences: int) -> int:
    """Tokens for which one layer's attention, in two copies, stays within 2 GiB."""
    heads = max(site.n_heads for site in sites)
    return int((_ATTENTION_BYTES / (n_sequences * 8 * heads)) ** 0.5)


def _cut(sequence: Encoded, length: int) -> Encoded:
    if sequence.vocab_id is None or sequence.n_tokens <= length:
        return sequence
    return replace(
        sequence,
        n_tokens=length,
        vocab_id=sequence.vocab_id[:length],
        is_special=sequence.is_special[:length],
    )


def _capture(loaded: LoadedModel, inputs: Inputs) -> list[_Kept]:
    kept: list[_Kept] = []

    def visit(call: AttentionCall) -> None:
        lengths = _lengths(call, inputs)
        facts = derive_facts(call, *lengths)
        kept.append(_Kept(call.module, call.query.float(), call.key.float(), facts, *lengths))

    run_forward(lambda: forward(loaded, inputs), visit)
    return kept


def _lengths(call: AttentionCall, inputs: Inputs) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Real tokens of each sequence on the query and the key side."""
    n_queries, n_keys = call.query.shape[2], call.key.shape[2]
    return (
        tuple(min(n, n_queries) for n in inputs.lengths),
        tuple(min(n, n_keys) for n in inputs.lengths),
    )


def _compare(
    loaded: LoadedModel, inputs: Inputs, kept: Sequence[_Kept], precision: str
) -> list[tuple[float, float]]:
    """Errors of each call, unrounded and stored, one layer's attention in memory at a time."""
    errors: list[tuple[float, float]] = []
    modules = {id(call.module): call.module for call in kept}

    def compare(module: nn.Module, _: object, output: object) -> None:
        call = kept[len(errors)]
        own = _find_weights(module, output, call)
        exact = _largest_error(call, own, call.query, call.key)
        stored = _largest_error(
            call, own, _stored(call.query, precision), _stored(call.key, precision)
        )
        errors.append((exact, stored))

    hooks = [module.register_forward_hook(compare) for module in modules.values()]
    try:
        with torch.inference_mode(), eager_attention(loaded.model):
            forward(loaded, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return errors


def _find_weights(module: nn.Module, output: object, call: _Kept) -> Tensor:
    """The attention weights among what an eager attention module returns, behind any bias."""
    shape = (*call.query.shape[:3], call.key.shape[2])
    for part in reversed(output) if isinstance(output, tuple) else ():
        if isinstance(part, Tensor) and tuple(part.shape) == shape:
            return part.float()
    raise UnsupportedModelError(
        f"{type(module).__name__} returns no attention weights from its eager attention, "
        "so captured vectors cannot be checked against it"
    )


def _largest_error(call: _Kept, own: Tensor, query: Tensor, key: Tensor) -> float:
    """Largest difference of recomputed and own attention over real queries and all keys.

    NaN where any is NaN.
    """
    heads = query.shape[1] // key.shape[1]
    key = key.repeat_interleave(heads, dim=1)
    found = []
    for index, (n, m) in enumerate(zip(call.query_lengths, call.key_lengths, strict=True)):
        recomputed = attention_heads(
            query[index : index + 1, :, :n], key[index : index + 1, :, :m], call.facts
        )
        found.append((recomputed[0] - own[index, :, :n, :m]).abs().max())
        found.append(own[index, :, :n, m:].abs().sum())
    return float(torch.stack(found).max())  # unlike Python's max, keeps NaN


def _stored(vectors: Tensor, precision: str) -> Tensor:
    """Vectors as they come back from Parquet."""
    flat = vectors.cpu().numpy().reshape(-1, vectors.shape[-1]).copy()
    round_mantissa(flat, precision)
    schema = TABLES["queries"].file_schema
    zeros = np.zeros(len(flat), np.int64)
    file = io.BytesIO()
    with open_writer("queries", file) as writer:
        columns = [pa.array(zeros), pa.array(zeros.astype(np.int32)), vector_array(flat)]
        writer.write_table(pa.Table.from_arrays(columns, schema=schema.remove_metadata()))
    back = pq.read_table(io.BytesIO(file.getvalue()), columns=["vector"])["vector"]
    values = back.combine_chunks().flatten().to_numpy(zero_copy_only=False).copy()
    return torch.from_numpy(values).reshape(vectors.shape).to(vectors.device)


def _refuse_mismatch(loaded: LoadedModel, checks: Sequence[SiteCheck], precision: str) -> None:
    stored = STORED_LIMIT[precision]
    for check in checks:
        where = f"{loaded.architecture}, {check.site.module}: attention recomputed from"
        if not check.max_abs_error <= EXACT_LIMIT:
            raise CaptureMismatchError(
                f"{where} captured vectors differs from the model's own by "
                f"{check.max_abs_error:.2g}, expected at most {EXACT_LIMIT:.0e}; "
                "this model cannot be captured faithfully"
            )
        if not check.stored_max_abs_error <= stored:
            raise CaptureMismatchError(
                f"{where} vectors rounded to {precision} differs from the model's own by "
                f"{check.stored_max_abs_error:.2g}, expected at most {stored:.0e}; "
                "set capture.precision to float32"
            )
