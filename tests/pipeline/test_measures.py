import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from pipeline.measures import MEASURES, TAG_MEASURES, TokenFacts, measure_head, punctuation
from store.attention import HeadFacts, attention, reach, score
from store.errors import ShapeError
from store.vectors import Floats, HeadVectors
from tests.pipeline.head_fixture import make_head, make_tokens

LENGTHS = [9, 2, 5, 12, 1, 9]
FACTS = [
    HeadFacts(scaling=0.4),
    HeadFacts(scaling=0.4, mask="causal"),
    HeadFacts(0.4, window=3, soft_cap=1.5),
    HeadFacts(0.4, "causal", window=7, sink=0.7, offset_bias=(0.5, 0.0, -0.5)),
]


def _measure_query(
    i: int,
    head: HeadVectors,
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    tokens: tuple[TokenFacts, TokenFacts],
) -> dict[str, float]:
    """Every per-query measure from its definition; NaN where undefined."""
    of_query, of_key = rows
    queries, keys = head.queries[of_query], head.keys[of_key]
    at = [j for j in range(len(keys)) if reach(len(queries), len(keys), head.facts)[i, j]]
    mass = attention(queries, keys, head.facts)[i, at]
    weights = attention(queries, keys, replace(head.facts, sink=None))[i, at]
    logits = score(queries, keys, head.facts)[i, at]
    own = tokens[0].vocab_id[of_query[i]]

    def total(chosen: list[bool]) -> float:
        return float(sum(m for m, is_chosen in zip(mass, chosen, strict=True) if is_chosen))

    translated = head.keys - head.keys.mean(axis=0) + head.queries.mean(axis=0)
    distance = np.linalg.norm(translated[of_key[at]].astype(np.float64) - queries[i], axis=1)
    entropy = -sum(w * math.log(w) for w in weights if w > 0)
    key_tokens = tokens[1]
    return {
        "entropy": entropy / math.log(len(at)) if len(at) > 1 else math.nan,
        "mean_distance": float(sum(w * abs(i - j) for w, j in zip(weights, at, strict=True))),
        "previous_token": total([j == i - 1 for j in at]),
        "next_token": total([j == i + 1 for j in at]),
        "self_token": total([j == i for j in at]),
        "first_token": total([j == 0 for j in at]),
        "special_token": total([bool(key_tokens.is_special[of_key[j]]) for j in at]),
        "punctuation": total([bool(key_tokens.is_punctuation[of_key[j]]) for j in at]),
        "same_token": total(
            [own >= 0 and j != i and bool(key_tokens.vocab_id[of_key[j]] == own) for j in at]
        ),
        "randomness": float(np.abs(weights - 1 / len(at)).sum() / 2),
        **{
            f"to_{tag.lower()}": total([_tag_of(key_tokens, of_key[j]) == tag for j in at])
            for tag in ("NOUN", "VERB")
        },
        "score_mean": float(logits.mean()),
        "score_spread": float(logits.std()),
        "score_spearman": float(spearmanr(distance, logits).statistic)
        if len(at) >= 5
        else math.nan,
    }


def _tag_of(tokens: TokenFacts, row: int) -> str:
    assert tokens.part_of_speech is not None
    return str(tokens.part_of_speech[row])


def _measure_plainly(head: HeadVectors, *tokens: TokenFacts) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for sequence in np.unique(head.query_at.sequence_id):
        of_query = np.flatnonzero(head.query_at.sequence_id == sequence)
        of_key = np.flatnonzero(head.key_at.sequence_id == sequence)
        reached = reach(len(of_query), len(of_key), head.facts).any(axis=1)
        for i in np.flatnonzero(reached):
            one = _measure_query(int(i), head, (of_query, of_key), (tokens[0], tokens[1]))
            for name, value in one.items():
                values.setdefault(name, []).append(value)
    return {name: float(np.nanmean(each)) for name, each in values.items()}


def _effective_rank(matrix: NDArray[np.floating]) -> float:
    values = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    shares = values[values > 1e-12 * values[0]] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _measure(head: HeadVectors) -> dict[str, float | None]:
    return measure_head(head, make_tokens(head.query_at, 1), make_tokens(head.key_at, 2))


@pytest.mark.parametrize("facts", FACTS)
@pytest.mark.parametrize("key_lengths", [LENGTHS, [6, 0, 8, 7, 5, 3]])
def test_measures_equal_their_definitions(facts: HeadFacts, key_lengths: list[int]) -> None:
    head = make_head(LENGTHS, facts, key_lengths)
    tokens = make_tokens(head.query_at, 1), make_tokens(head.key_at, 2)
    measured = measure_head(head, *tokens)
    for name, expected in _measure_plainly(head, *tokens).items():
        assert measured[name] == pytest.approx(expected, abs=1e-6), name


def test_parts_of_speech_are_measured_only_where_keys_have_them() -> None:
    head = make_head(LENGTHS)
    queries, keys = make_tokens(head.query_at, 1), make_tokens(head.key_at, 2)
    tags = np.array(["X", ""] * 19, dtype=np.object_)
    assert {"to_noun", "to_verb"} < set(measure_head(head, queries, keys))
    some = measure_head(head, queries, replace(keys, part_of_speech=tags))
    assert {name for name in some if name.startswith("to_")} == set(TAG_MEASURES)
    assert [name for name in TAG_MEASURES if some[name] is not None] == ["to_x"]
    for none in (None, np.full(38, "", dtype=np.object_)):
        untagged = measure_head(head, queries, replace(keys, part_of_speech=none))
        assert set(untagged) == set(MEASURES) - {"induction"}


def test_vector_measures_equal_their_definitions() -> None:
    head = make_head(LENGTHS)
    norms = [float(np.linalg.norm(each, axis=1).mean()) for each in (head.queries, head.keys)]
    between = np.linalg.norm(head.queries.mean(axis=0) - head.keys.mean(axis=0))
    expected = {
        "query_norm": norms[0],
        "key_norm": norms[1],
        "norm_ratio": norms[0] / norms[1],
        "centroid_distance": float(between),
        "effective_rank_q": _effective_rank(head.queries),
        "effective_rank_k": _effective_rank(head.keys),
        "effective_rank_qk": _effective_rank(head.queries @ head.keys.T),
    }
    measured = _measure(head)
    assert {name: measured[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_fewer_tokens_than_dimensions_have_a_rank() -> None:
    head = make_head([3], d_head=6)
    expected = pytest.approx(_effective_rank(head.queries @ head.keys.T), rel=1e-5)
    assert _measure(head)["effective_rank_qk"] == expected


def test_uniform_attention_has_entropy_one_and_randomness_zero() -> None:
    head = make_head([8, 5], HeadFacts(1.0, "causal"))
    measured = _measure(replace(head, queries=np.zeros_like(head.queries)))
    assert measured["entropy"] == pytest.approx(1.0)
    assert measured["randomness"] == pytest.approx(0.0)
    assert measured["score_spread"] == 0.0
    assert measured["score_spearman"] is None
    assert measured["effective_rank_q"] is None
    assert measured["effective_rank_qk"] is None


def _one_hot_head(lengths: list[int], shift: int, facts: HeadFacts) -> HeadVectors:
    """A head whose queries look at the key `shift` positions on."""
    head = make_head(lengths, facts)
    eye = np.eye(max(lengths) + 1, dtype=np.float32) * 60
    looked_at = np.maximum(head.query_at.position + shift, 0)
    keys: Floats = eye[head.key_at.position]
    queries: Floats = eye[looked_at]
    return replace(head, queries=queries, keys=keys)


def test_a_previous_token_head_is_seen_as_one() -> None:
    measured = _measure(_one_hot_head([10, 10], -1, HeadFacts(1.0, "causal")))
    assert measured["previous_token"] == pytest.approx(0.9)  # position 0 has no previous token
    assert measured["self_token"] == pytest.approx(0.1)
    assert measured["mean_distance"] == pytest.approx(0.9)
    assert measured["entropy"] == pytest.approx(0.0)
    assert measured["next_token"] == 0.0


def test_a_sink_lowers_masses_but_not_the_distribution() -> None:
    head = make_head(LENGTHS, HeadFacts(0.4))
    plain, sunk = _measure(head), _measure(replace(head, facts=HeadFacts(0.4, sink=5.0)))
    for name in ("entropy", "mean_distance", "randomness", "score_mean"):
        assert sunk[name] == pytest.approx(plain[name])
    for name in ("self_token", "special_token", "punctuation"):
        high, low = plain[name], sunk[name]
        assert high is not None and low is not None and low < high


def test_long_sequences_in_pieces_measure_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    head = make_head(LENGTHS, FACTS[3])
    whole = _measure(head)
    defaults = (None, 7)
    monkeypatch.setattr("pipeline.padding.make_batches.__defaults__", defaults)
    assert _measure(head) == pytest.approx(whole)


def test_tokens_of_other_positions_are_refused() -> None:
    head = make_head([4, 4])
    tokens, other = make_tokens(head.query_at), make_tokens(make_head([4, 3]).query_at)
    with pytest.raises(ShapeError, match="8 key vectors must name the same positions"):
        measure_head(head, tokens, other)


@pytest.mark.parametrize(
    "token",
    [".", "##.", "Ġ,", "▁(", ".</w>", "...", "$", "###", "–", "âĢĻ", "ĠâĢľ", '".Ċ', "€"],
)
def test_punctuation_is_found_under_tokenizer_marks(token: str) -> None:
    assert punctuation([token]).tolist() == [True]


@pytest.mark.parametrize(
    "token", ["a", "##s", "Ġthe", "▁", "Ċ", "Ġ", "[CLS]", "<s>", "3", "n't", "", "é", "Ã©", None]
)
def test_words_numbers_and_marks_alone_are_no_punctuation(token: str | None) -> None:
    assert punctuation([token, None]).tolist() == [False, False]


def test_documentation_defines_the_same_measures() -> None:
    text = (Path(__file__).parents[2] / "docs" / "measures.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", text, flags=re.MULTILINE))
    assert rows == MEASURES | TAG_MEASURES
    details = set(re.findall(r"\*\*(\w+)\*\*", text))
    assert details >= set(MEASURES) - {"norm_ratio"}
    measured = _measure(make_head([6])).keys() - TAG_MEASURES
    assert measured == set(MEASURES) - {"induction"}
