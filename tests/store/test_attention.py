import math

import numpy as np
import pytest
from numpy.typing import NDArray

from store.attention import HeadFacts, attention, offset_bias, reach, score
from store.errors import ShapeError

FACTS = [
    HeadFacts(scaling=0.5),
    HeadFacts(scaling=0.25, mask="causal"),
    HeadFacts(scaling=0.25, mask="causal", window=2),
    HeadFacts(scaling=0.25, window=3, soft_cap=0.7),
    HeadFacts(scaling=1.0, sink=0.3),
    HeadFacts(scaling=1.0, offset_bias=(-1.0, 0.5, 0.0, 2.0, 0.25)),
    HeadFacts(0.3, "causal", window=4, soft_cap=2.0, sink=-1.0, offset_bias=(0.1, 0.2, 0.3)),
]


def _draw(n_queries: int, n_keys: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    random = np.random.default_rng(n_queries * 100 + n_keys)
    queries = random.normal(size=(n_queries, 4)).astype(np.float32)
    return queries, random.normal(size=(n_keys, 4)).astype(np.float32)


def _plain_logit(query: list[float], key: list[float], offset: int, facts: HeadFacts) -> float:
    value = sum(a * b for a, b in zip(query, key, strict=True)) * facts.scaling
    if facts.soft_cap is not None:
        value = facts.soft_cap * math.tanh(value / facts.soft_cap)
    if facts.offset_bias is not None:
        middle = len(facts.offset_bias) // 2
        value += facts.offset_bias[min(max(offset + middle, 0), len(facts.offset_bias) - 1)]
    return value


def _plain_attention(
    queries: NDArray[np.float32], keys: NDArray[np.float32], facts: HeadFacts
) -> NDArray[np.float64]:
    weights = np.zeros((len(queries), len(keys)))
    for i, query in enumerate(queries.tolist()):
        exponentials = {}
        for j, key in enumerate(keys.tolist()):
            too_late = facts.mask == "causal" and j > i
            too_far = facts.window is not None and abs(i - j) >= facts.window
            if not (too_late or too_far):
                exponentials[j] = math.exp(_plain_logit(query, key, j - i, facts))
        total = sum(exponentials.values())
        if facts.sink is not None:
            total += math.exp(facts.sink)
        for j, exponential in exponentials.items():
            weights[i, j] = exponential / total
    return weights


@pytest.mark.parametrize("facts", FACTS)
@pytest.mark.parametrize("lengths", [(1, 1), (6, 6), (3, 7), (7, 3)])
def test_rows_of_some_queries_are_those_of_the_whole(
    facts: HeadFacts, lengths: tuple[int, int]
) -> None:
    queries, keys = _draw(*lengths)
    whole = attention(queries, keys, facts)
    for first in range(len(queries)):
        for end in range(first, len(queries) + 1):
            found = attention(queries[first:end], keys, facts, first)
            np.testing.assert_allclose(found, whole[first:end], atol=1e-14)


@pytest.mark.parametrize("facts", FACTS)
@pytest.mark.parametrize("lengths", [(1, 1), (6, 6), (3, 7), (7, 3)])
def test_attention_equals_its_definition_term_by_term(
    facts: HeadFacts, lengths: tuple[int, int]
) -> None:
    queries, keys = _draw(*lengths)
    expected = _plain_attention(queries, keys, facts)
    np.testing.assert_allclose(attention(queries, keys, facts), expected, atol=1e-12)


def test_rows_sum_to_one_without_a_sink_and_to_less_with_one() -> None:
    queries, keys = _draw(5, 5)
    np.testing.assert_allclose(attention(queries, keys, HeadFacts(1.0)).sum(axis=1), 1.0)
    assert (attention(queries, keys, HeadFacts(1.0, sink=0.0)).sum(axis=1) < 1).all()


def test_a_query_with_no_key_in_reach_has_zeros() -> None:
    queries, keys = _draw(5, 2)
    weights = attention(queries, keys, HeadFacts(1.0, window=2))
    assert (weights[3:] == 0).all()
    assert attention(queries, keys[:0], HeadFacts(1.0)).shape == (5, 0)


def test_huge_logits_do_not_overflow() -> None:
    queries = np.full((2, 4), 1e4, dtype=np.float32)
    weights = attention(queries, queries, HeadFacts(1.0, sink=1.0))
    np.testing.assert_allclose(weights, 0.5)


def test_offset_bias_extends_its_ends() -> None:
    values = offset_bias(4, 4, (1.0, 2.0, 3.0))
    assert values[0].tolist() == [2.0, 3.0, 3.0, 3.0]
    assert values[3].tolist() == [1.0, 1.0, 1.0, 2.0]


def test_window_counts_distances_below_it_on_both_sides() -> None:
    assert reach(3, 3, HeadFacts(1.0, window=1)).tolist() == np.eye(3, dtype=bool).tolist()


def test_widths_that_differ_are_refused() -> None:
    with pytest.raises(ShapeError, match="one d_head"):
        score(np.zeros((2, 3)), np.zeros((2, 4)), HeadFacts(1.0))
