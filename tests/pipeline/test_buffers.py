"""Vectors land in their rows, rounded as the lake stores them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipeline.buffers import ChunkBuffer, Wanted, choose_calls, round_mantissa
from pipeline.stacks import CallSite, list_stacks
from pipeline.tap import AttentionCall
from store.encoding import MANTISSA_BITS
from store.encoding import round_mantissa as round_in_place
from store.errors import ConfigError

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=True)
PRECISIONS = st.sampled_from(sorted(MANTISSA_BITS))


def round_slowly(value: float, precision: str) -> float:
    """Round to the mantissa bits of a precision by exact integers, ties to even."""
    if value == 0 or math.isinf(value):
        return value
    _, exponent = math.frexp(value)
    # float32's least exponent: below it numbers lose bits with their size
    step = math.ldexp(1.0, max(exponent - 1, -126) - MANTISSA_BITS[precision])
    numerator, denominator = (value / step).as_integer_ratio()
    whole, rest = divmod(numerator, denominator)
    up = 2 * rest > denominator or (2 * rest == denominator and whole % 2 == 1)
    return (whole + up) * step


@given(st.lists(FLOATS, min_size=1, max_size=50), PRECISIONS)
def test_rounding_in_torch_numpy_and_integers_agrees(values: list[float], precision: str) -> None:
    array = np.array(values, np.float32)
    twin = array.copy()
    round_in_place(twin, precision)
    found = round_mantissa(torch.from_numpy(array), precision).numpy()
    assert np.array_equal(found.view(np.int32), twin.view(np.int32))
    expected = np.array([round_slowly(float(value), precision) for value in array])
    with np.errstate(over="ignore"):
        assert np.array_equal(found, expected.astype(np.float32))


@given(st.lists(st.floats(2**-14, 65_000, width=32), min_size=1), st.sampled_from([-1, 1]))
def test_float16_rounding_is_a_trip_through_float16(values: list[float], sign: int) -> None:
    array = np.array(values, np.float32) * np.float32(sign)
    found = round_mantissa(torch.from_numpy(array), "float16").numpy()
    assert np.array_equal(found, array.astype(np.float16).astype(np.float32))


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1))
def test_bfloat16_rounding_is_a_trip_through_bfloat16(values: list[float]) -> None:
    tensor = torch.tensor(values, dtype=torch.float32)
    assert torch.equal(round_mantissa(tensor, "bfloat16"), tensor.bfloat16().float())


@given(st.lists(FLOATS, min_size=1), PRECISIONS)
def test_rounding_twice_is_rounding_once(values: list[float], precision: str) -> None:
    once = round_mantissa(torch.tensor(values, dtype=torch.float32), precision)
    assert torch.equal(round_mantissa(once, precision), once)


@pytest.mark.parametrize("precision", MANTISSA_BITS)
def test_rounding_keeps_what_is_not_a_number(precision: str) -> None:
    found = round_mantissa(torch.tensor([math.nan, math.inf, -math.inf]), precision).tolist()
    assert math.isnan(found[0])
    assert found[1:] == [math.inf, -math.inf]


def make_site(layer: int, stack: str = "") -> CallSite:
    return CallSite(f"{stack}.{layer}", stack, layer, n_heads=4, n_kv_heads=2, d_head=3)


def make_call(batch: int, n: int, seed: int = 0) -> AttentionCall:
    random = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, 4, n, 3, generator=random)
    key = torch.randn(batch, 2, n, 3, generator=random)
    value = torch.randn(batch, 2, n, 5, generator=random)
    return AttentionCall(nn.Identity(), query, key, value, None, {})


def test_heads_bring_the_key_heads_that_they_read() -> None:
    sites = [make_site(0), make_site(1), make_site(2)]
    stacks = list_stacks("m", sites)
    wanted = choose_calls(stacks, sites, (2, 1), (3, 2))
    assert [(w.call, w.heads, w.kv_heads) for w in wanted] == [(1, (2, 3), (1,)), (2, (2, 3), (1,))]
    every = choose_calls(stacks, sites, None, None)
    assert [w.kv_heads for w in every] == [(0, 1)] * 3
    with pytest.raises(ConfigError, match=r"capture.layers: \[3\]"):
        choose_calls(stacks, sites, (3,), None)
    with pytest.raises(ConfigError, match=r"capture.heads: \[9\]"):
        choose_calls(stacks, sites, None, (9,))


def test_calls_of_a_stack_that_is_left_out_are_not_kept() -> None:
    sites = [make_site(0, "encoder"), make_site(0, "decoder")]
    stacks = list_stacks("m", sites)
    wanted = choose_calls(stacks[1:], sites, None, None)
    assert [(w.call, w.model) for w in wanted] == [(1, "m--decoder")]


def test_real_tokens_land_in_their_rows_and_padding_nowhere() -> None:
    want = Wanted(0, "m", make_site(0), (1, 3), (0, 1))
    buffer = ChunkBuffer([want], "float16")
    buffer.reserve(6)
    for values in (buffer.blocks[0].queries, buffer.blocks[0].keys, buffer.blocks[0].value_norms):
        values.fill_(-7)
    call = make_call(batch=2, n=3)
    buffer.place(0, call, [3, 0], [3, 1])  # the longer one comes first and lies behind
    block = buffer.blocks[0]
    assert torch.equal(block.queries[:, 3:6], call.query[0, [1, 3]])
    assert torch.equal(block.queries[:, 0], call.query[1, [1, 3], 0])
    assert torch.equal(block.keys[:, 3:6], call.key[0])
    norms = call.value.square().sum(-1).sqrt()
    assert torch.allclose(block.value_norms[:, 3:6], norms[0])
    assert torch.allclose(block.value_norms[:, 0], norms[1, :, 0])
    assert (block.queries[:, 1:3] == -7).all()
    assert (block.value_norms[:, 1:3] == -7).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_vectors_are_stored_as_they_are(dtype: torch.dtype) -> None:
    buffer = ChunkBuffer([Wanted(0, "m", make_site(0), (0, 1, 2, 3), (0, 1))], "float32")
    buffer.reserve(2)
    call = make_call(1, 2)
    half = AttentionCall(
        call.module, call.query.to(dtype), call.key.to(dtype), call.value.to(dtype), None, {}
    )
    buffer.place(0, half, [0], [2])
    assert buffer.blocks[0].queries.dtype == torch.float32
    assert torch.equal(buffer.blocks[0].queries, half.query[0].float())


def test_buffer_keeps_its_memory_and_grows_only_for_more_rows() -> None:
    buffer = ChunkBuffer([Wanted(0, "m", make_site(0), (0,), (0,))], "float16")
    buffer.reserve(10)
    first = buffer.blocks[0].queries.data_ptr()
    buffer.reserve(4)
    assert (buffer.n_rows, buffer.blocks[0].queries.shape[1]) == (4, 10)
    assert buffer.blocks[0].queries.data_ptr() == first
    buffer.reserve(11)
    assert buffer.blocks[0].queries.shape == (1, 11, 3)
