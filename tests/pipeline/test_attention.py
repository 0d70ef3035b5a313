import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.attention import attention, attention_heads, key_offsets, reach, score
from store import attention as plain
from store.attention import HeadFacts
from store.errors import ShapeError

_numbers = st.floats(-3, 3, width=32)

head_facts = st.builds(
    HeadFacts,
    scaling=st.floats(0.0625, 2, width=32),
    mask=st.sampled_from(["full", "causal"]),
    window=st.none() | st.integers(1, 6),
    soft_cap=st.none() | st.floats(0.5, 30, width=32),
    sink=st.none() | _numbers,
    offset_bias=st.none()
    | st.integers(0, 4).flatmap(
        lambda m: st.lists(_numbers, min_size=2 * m + 1, max_size=2 * m + 1).map(tuple)
    ),
)


def _draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


@settings(max_examples=150, deadline=None)
@given(head_facts, st.integers(1, 7), st.integers(0, 7), st.integers(0, 1000))
def test_twin_agrees_with_the_store(
    facts: HeadFacts, n_queries: int, n_keys: int, seed: int
) -> None:
    queries, keys = _draw(n_queries, 4, seed=seed), _draw(n_keys, 4, seed=seed + 1)
    expected = plain.attention(queries.numpy(), keys.numpy(), facts)
    wide = attention(queries.double(), keys.double(), facts)
    np.testing.assert_allclose(wide.numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(attention(queries, keys, facts).numpy(), expected, atol=2e-5)


@settings(max_examples=50, deadline=None)
@given(head_facts, st.integers(1, 6), st.integers(1, 6))
def test_scores_and_reach_agree_with_the_store(
    facts: HeadFacts, n_queries: int, n_keys: int
) -> None:
    queries, keys = _draw(n_queries, 4), _draw(n_keys, 4, seed=1)
    offset = key_offsets(n_queries, n_keys)
    scores = score(queries.double(), keys.double(), facts, offset)
    expected = plain.score(queries.numpy(), keys.numpy(), facts)
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-12)
    assert reach(offset, facts).tolist() == plain.reach(n_queries, n_keys, facts).tolist()


def test_batches_are_the_same_as_one_by_one() -> None:
    facts = HeadFacts(0.5, "causal", window=3, sink=0.1, offset_bias=(0.3, 0.0, -0.3))
    queries, keys = _draw(2, 3, 5, 4), _draw(2, 3, 6, 4, seed=1)
    together = attention(queries, keys, facts)
    for at in np.ndindex(2, 3):
        torch.testing.assert_close(together[at], attention(queries[at], keys[at], facts))


def test_every_head_has_its_own_facts() -> None:
    facts = [HeadFacts(0.5), HeadFacts(1.0, "causal", sink=0.0)]
    queries, keys = _draw(3, 2, 5, 4), _draw(3, 2, 5, 4, seed=1)
    weights = attention_heads(queries, keys, facts)
    assert weights.shape == (3, 2, 5, 5)
    for at, each in enumerate(facts):
        torch.testing.assert_close(weights[:, at], attention(queries[:, at], keys[:, at], each))


def test_half_precision_is_widened_to_float32() -> None:
    vectors = _draw(3, 4).half()
    weights = attention(vectors, vectors, HeadFacts(1.0))
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3))
    assert attention(vectors.double(), vectors.double(), HeadFacts(1.0)).dtype == torch.float64


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="share their d_head"):
        attention(_draw(2, 3), _draw(2, 4), HeadFacts(1.0))
    with pytest.raises(ShapeError, match="repeat each key-value head"):
        attention_heads(_draw(1, 4, 2, 3), _draw(1, 2, 2, 3), [HeadFacts(1.0)] * 4)
