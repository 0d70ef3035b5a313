"""The facts of a head are read off its calls, and what they cannot say is refused."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.facts import derive_facts
from pipeline.tap import AttentionCall
from store.attention import HeadFacts
from store.errors import UnsupportedModelError

N = 6
LENGTHS = (6, 4)
N_HEADS = 2


def make_call(
    mask: Tensor | None = None, n: int = N, n_keys: int | None = None, **options: Any
) -> AttentionCall:
    query = torch.zeros(2, N_HEADS, n, 4)
    key = torch.zeros(2, 1, n_keys or n, 4)
    return AttentionCall(nn.Identity(), query, key, key, mask, options)


def reach(causal: bool = False, window: int | None = None, n: int = N, m: int = N) -> Tensor:
    """Bool mask of the batch, shape (2, 1, n, m): padding behind `LENGTHS` is out of reach."""
    rows, columns = torch.arange(n)[:, None], torch.arange(m)[None, :]
    allowed = torch.ones(n, m, dtype=torch.bool)
    if causal:
        allowed &= columns <= rows
    if window is not None:
        allowed &= (rows - columns).abs() < window
    real = torch.arange(m) < torch.tensor(LENGTHS)[:, None]
    return (allowed & real[:, None, :])[:, None]


def additive(mask: Tensor, low: float = torch.finfo(torch.float32).min) -> Tensor:
    return torch.where(mask, 0.0, low)


def derive(call: AttentionCall, lengths: tuple[int, ...] = LENGTHS) -> list[HeadFacts]:
    return derive_facts(call, lengths, lengths)


@pytest.mark.parametrize("low", [None, torch.finfo(torch.float32).min, float("-inf"), -10_000.0])
@pytest.mark.parametrize("window", [None, 1, 3])
@pytest.mark.parametrize("causal", [True, False])
def test_mask_is_read_whatever_its_type(
    causal: bool, window: int | None, low: float | None
) -> None:
    mask = reach(causal, window)
    facts = derive(make_call(mask if low is None else additive(mask, low)))
    assert len(facts) == N_HEADS
    # with a window of 1 a query reaches only itself, so that both masks are the same
    assert facts[0].mask == ("causal" if causal or window == 1 else "full")
    assert facts[0].window == window


def test_mask_wider_than_the_keys_is_cut() -> None:
    mask = torch.cat([reach(True), torch.zeros(2, 1, N, 3, dtype=torch.bool)], dim=-1)
    assert derive(make_call(mask))[0] == HeadFacts(scaling=0.5, mask="causal")


def test_no_mask_is_full_or_causal_as_the_kernel_takes_it() -> None:
    assert derive(make_call(is_causal=True), (N, N))[0].mask == "causal"
    assert derive(make_call(is_causal=False), (N, N))[0].mask == "full"


def test_no_mask_over_padding_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="attend to padding"):
        derive(make_call(is_causal=False))
    assert derive(make_call(is_causal=True))[0].mask == "causal"


def test_padding_in_reach_is_refused() -> None:
    mask = reach()
    mask[1, 0, 2, 4] = True
    with pytest.raises(UnsupportedModelError, match="attend to padding"):
        derive(make_call(mask))


def test_cross_attention_is_full_over_other_keys() -> None:
    call = make_call(reach(n=3, m=N), n=3, n_keys=N)
    facts = derive_facts(call, (3, 3), LENGTHS)
    assert (facts[0].mask, facts[0].window) == ("full", None)


def test_single_token_is_full() -> None:
    one = torch.ones(2, 1, 1, 1, dtype=torch.bool)
    assert derive(make_call(one, n=1), (1, 1))[0].mask == "full"


def test_chunked_mask_is_refused() -> None:
    chunk = torch.arange(N) // 3
    mask = reach(True) & (chunk[:, None] == chunk[None, :])
    with pytest.raises(UnsupportedModelError, match="chunked or prefix"):
        derive(make_call(mask))


def test_prefix_mask_is_refused() -> None:
    mask = reach(True)
    mask[:, :, :2, :2] = True
    with pytest.raises(UnsupportedModelError, match="chunked or prefix"):
        derive(make_call(mask))


def test_mask_of_two_dimensions_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="mask of 2 dimensions"):
        derive(make_call(torch.ones(2, N)))


def test_window_that_is_too_wide_to_show_is_the_models() -> None:
    assert derive(make_call(reach(True), sliding_window=N))[0].window == N
    assert derive(make_call(reach(True), sliding_window=4096))[0].window == 4096
    assert derive(make_call(reach(True), sliding_window=None))[0].window is None


def test_window_that_the_mask_does_not_keep_is_none() -> None:
    assert derive(make_call(reach(True), sliding_window=3))[0].window is None


def test_shown_window_counts_and_not_the_named_one() -> None:
    assert derive(make_call(reach(False, 4), sliding_window=3))[0].window == 4


@pytest.mark.parametrize("name", ["s_aux", "sinks"])
def test_sink_is_a_heads_own(name: str) -> None:
    sinks = torch.tensor([0.5, -1.0])
    facts = derive(replace(make_call(reach(True)), options={name: sinks}))
    assert [head.sink for head in facts] == [0.5, -1.0]


def test_soft_cap_and_scaling_are_taken() -> None:
    facts = derive(make_call(reach(True), softcap=50, scaling=0.125))[0]
    assert (facts.soft_cap, facts.scaling) == (50.0, 0.125)


def offset_table(values: Tensor, n: int = N, m: int = N) -> Tensor:
    """Bias of shape (1, heads, n, m) from values of shape (heads, 2m + 1)."""
    offset = torch.arange(m)[None, :] - torch.arange(n)[:, None]
    return values[:, offset + max(n, m) - 1][None]


@pytest.mark.parametrize("how", ["option", "mask", "both"])
def test_bias_by_offset_is_read(how: str) -> None:
    values = torch.randn(N_HEADS, 2 * N - 1, generator=torch.Generator().manual_seed(0))
    bias, mask = offset_table(values), additive(reach())
    calls = {
        "option": make_call(mask, position_bias=bias),
        "mask": make_call(torch.where(reach(), bias, mask)),
        "both": make_call(torch.where(reach(), bias / 2, mask), position_bias=bias / 2),
    }
    facts = derive(calls[how])
    for head in range(N_HEADS):
        assert facts[head].offset_bias == pytest.approx(values[head].tolist())


def test_zero_bias_is_none() -> None:
    bias = torch.zeros(1, N_HEADS, N, N)
    assert derive(make_call(reach(), position_bias=bias))[0].offset_bias is None


def test_causal_bias_counts_only_in_reach() -> None:
    bias = offset_table(torch.arange(2.0 * N - 1).repeat(N_HEADS, 1))
    bias = torch.where(reach(True)[:1], bias, torch.finfo(torch.float32).min)
    facts = derive(make_call(reach(True), position_bias=bias))[0]
    assert facts.offset_bias is not None
    assert facts.offset_bias[:N] == pytest.approx(range(N))


def test_bias_in_two_dimensions_is_refused() -> None:
    row, column = torch.arange(N) // 3, torch.arange(N) % 3
    far = (row[:, None] - row).abs() + (column[:, None] - column).abs()
    with pytest.raises(UnsupportedModelError, match=r"2-D bias\?"):
        derive(make_call(reach(), position_bias=far[None, None].float()))
