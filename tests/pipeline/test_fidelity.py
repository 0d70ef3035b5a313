from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.manifold import trustworthiness

from pipeline import fidelity as module
from pipeline.fidelity import Evaluation, Fidelity, spearman_in_reach
from pipeline.padding import make_batches
from store.attention import HeadFacts, reach, score
from store.errors import ShapeError
from store.vectors import Floats, HeadVectors, Positions
from tests.pipeline.head_fixture import FIRST_ID, MOTIONS, Motion, make_head, place_randomly

LENGTHS = [9, 4, 5, 13, 1, 9, 7]
FACTS = [
    HeadFacts(scaling=0.4),
    HeadFacts(scaling=0.4, mask="causal"),
    HeadFacts(scaling=0.4, window=4),
    HeadFacts(0.4, "causal", window=6, soft_cap=1.0, sink=0.5, offset_bias=(0.4, 0.0, -0.4)),
]


def _translate(head: HeadVectors) -> Floats:
    """The head in the `translate` space: both centroids meet."""
    shift = head.queries.mean(axis=0) - head.keys.mean(axis=0)
    return np.concatenate([head.queries, head.keys + shift])


def _measure(
    head: HeadVectors, coordinates: NDArray[np.floating], max_points: int = 5000
) -> Fidelity:
    return Evaluation(head, _translate(head), max_points).measure(coordinates)


def _compare_plainly(
    head: HeadVectors, coordinates: NDArray[np.float32], content: bool
) -> tuple[list[float], list[bool]]:
    """Correlation (NaN if undefined) and hit of each evaluated query, one after another."""
    rhos, hits = [], []
    places = coordinates.astype(np.float64)
    for sequence in np.unique(head.query_at.sequence_id):
        of_query = np.flatnonzero(head.query_at.sequence_id == sequence)
        of_key = np.flatnonzero(head.key_at.sequence_id == sequence)
        scores = score(head.queries[of_query], head.keys[of_key], head.facts)
        allowed = reach(len(of_query), len(of_key), head.facts)
        for i, query in enumerate(of_query):
            if content and head.query_at.is_special[query]:
                continue
            keys = [
                j
                for j, key in enumerate(of_key)
                if allowed[i, j] and not (content and head.key_at.is_special[key])
            ]
            if len(keys) < 5:
                continue
            offsets = places[len(head.queries) + of_key[keys]] - places[query]
            distance, values = np.sqrt((offsets**2).sum(axis=1)), scores[i, keys]
            constant = len(set(distance)) == 1 or len(set(values)) == 1
            rhos.append(np.nan if constant else float(spearmanr(distance, values).statistic))
            hits.append(int(values.argmax()) in np.argsort(distance, kind="stable")[:3])
    return rhos, hits


def _summarise(rhos: list[float], hits: list[bool]) -> list[object]:
    defined = [rho for rho in rhos if not np.isnan(rho)]
    return [
        pytest.approx(np.mean(defined), abs=1e-12) if defined else None,
        pytest.approx(np.mean(hits)) if hits else None,
    ]


def _values(fidelity: Fidelity) -> list[object]:
    return [
        fidelity.score_spearman,
        fidelity.top_key_recall_3,
        fidelity.score_spearman_content,
        fidelity.top_key_recall_3_content,
    ]


@pytest.mark.parametrize("facts", FACTS)
@pytest.mark.parametrize("key_lengths", [LENGTHS, [6, 0, 8, 7, 5, 2, 11]])
def test_fidelity_equals_scipy_query_by_query(facts: HeadFacts, key_lengths: list[int]) -> None:
    head = make_head(LENGTHS, facts, key_lengths)
    coordinates = place_randomly(head)
    fidelity = _measure(head, coordinates)
    every, content = (_compare_plainly(head, coordinates, only) for only in (False, True))
    assert _values(fidelity) == [*_summarise(*every), *_summarise(*content)]
    assert fidelity.n_evaluated == len(every[0])
    assert fidelity.n_undefined == int(np.isnan(every[0]).sum())


def test_ties_have_average_ranks_and_go_to_the_lower_position() -> None:
    head = make_head(LENGTHS, HeadFacts(1.0))
    whole = replace(head, queries=np.round(head.queries / 2), keys=np.round(head.keys / 2))
    coordinates = np.round(place_randomly(head))
    every, content = (_compare_plainly(whole, coordinates, only) for only in (False, True))
    fidelity = _measure(whole, coordinates)
    assert _values(fidelity) == [*_summarise(*every), *_summarise(*content)]


def _line(key_places: list[float], scores: list[float], special: list[bool]) -> Fidelity:
    """Fidelity of one query at 0 and its keys on a line, with the scores given."""
    ids = np.full(len(scores), FIRST_ID, dtype=np.int64)
    position = np.arange(len(scores), dtype=np.int64)
    head = HeadVectors(
        model="tiny",
        layer=0,
        head=0,
        facts=HeadFacts(1.0),
        queries=np.ones((1, 1), dtype=np.float32),
        query_at=Positions(ids[:1], position[:1], np.array([False])),
        keys=np.array(scores, dtype=np.float32)[:, None],
        key_at=Positions(ids, position, np.array(special)),
    )
    return _measure(head, np.array([0.0, *key_places], dtype=np.float32)[:, None])


def test_a_perfect_map_has_minus_one_and_full_recall() -> None:
    fidelity = _line([1, 2, 3, 4, 5], [9, 7, 5, 3, 1], [False] * 5)
    assert (fidelity.score_spearman, fidelity.top_key_recall_3) == (-1.0, 1.0)
    assert (fidelity.n_evaluated, fidelity.n_undefined) == (1, 0)


def test_a_reversed_map_has_one_and_no_recall() -> None:
    fidelity = _line([5, 4, 3, 2, 1], [9, 7, 5, 3, 1], [False] * 5)
    assert (fidelity.score_spearman, fidelity.top_key_recall_3) == (1.0, 0.0)


def test_special_tokens_count_only_in_the_first_pair() -> None:
    fidelity = _line([9, 1, 2, 3, 4, 5], [10, 9, 8, 7, 6, 5], [True] + [False] * 5)
    assert fidelity.score_spearman == pytest.approx(1 - 6 * 40 / (6 * 35))
    assert fidelity.top_key_recall_3 == 0.0
    assert (fidelity.score_spearman_content, fidelity.top_key_recall_3_content) == (-1.0, 1.0)


def test_queries_with_fewer_than_five_keys_are_left_out() -> None:
    assert _line([1, 2, 3, 4], [4, 3, 2, 1], [False] * 4) == Fidelity(
        None, None, None, None, 0, 0, trustworthiness=None, continuity=None
    )


def test_undefined_correlations_are_counted_and_keep_their_recall() -> None:
    fidelity = _line([1, 1, 1, 1, 1], [1, 2, 3, 4, 5], [False] * 5)
    assert fidelity.score_spearman is None
    assert fidelity.top_key_recall_3 == 0.0  # all equally near: the three lower positions win
    assert (fidelity.n_evaluated, fidelity.n_undefined) == (1, 1)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.booleans()), min_size=0, max_size=12
    )
)
def test_spearman_of_any_ties_equals_scipy(rows: list[tuple[int, int, bool]]) -> None:
    columns = torch.tensor(rows, dtype=torch.float64).reshape(len(rows), 3).T
    allowed = columns[2].bool()
    rho = spearman_in_reach(columns[None, 0], columns[None, 1], allowed[None])[0]
    first, second = columns[0][allowed].tolist(), columns[1][allowed].tolist()
    if len(first) < 5 or len(set(first)) == 1 or len(set(second)) == 1:
        assert rho.isnan()
    else:
        assert float(rho) == pytest.approx(float(spearmanr(first, second).statistic))


def _keep_sequences(head: HeadVectors, ids: list[int]) -> tuple[HeadVectors, NDArray[np.bool_]]:
    """Some sequences of a head, and which of its points they are."""
    chosen = [np.isin(at.sequence_id, ids) for at in (head.query_at, head.key_at)]
    query_at, key_at = (
        Positions(at.sequence_id[part], at.position[part], at.is_special[part])
        for at, part in zip((head.query_at, head.key_at), chosen, strict=True)
    )
    queries, keys = head.queries[chosen[0]], head.keys[chosen[1]]
    smaller = replace(head, queries=queries, keys=keys, query_at=query_at, key_at=key_at)
    return smaller, np.concatenate(chosen)


def test_evaluation_takes_whole_sequences_in_hash_order() -> None:
    head = make_head([10] * 8)
    coordinates = place_randomly(head)
    ids = sorted(
        range(FIRST_ID, FIRST_ID + 8), key=lambda i: xxhash.xxh64_intdigest(i.to_bytes(8, "little"))
    )
    smaller, chosen = _keep_sequences(head, ids[:3])
    translated = _translate(head)[chosen]
    expected = Evaluation(smaller, translated).measure(coordinates[chosen])
    assert expected.n_evaluated == 30
    for max_points in (60, 79):
        assert _measure(head, coordinates, max_points) == expected
    assert _measure(head, coordinates, max_points=5).n_evaluated == 10


@pytest.mark.parametrize("key_lengths", [None, [6, 0, 8, 7, 5, 2, 11]])
def test_trustworthiness_and_continuity_are_those_of_the_translate_space(
    key_lengths: list[int] | None,
) -> None:
    head = make_head(LENGTHS, HeadFacts(0.4, "causal"), key_lengths)
    coordinates, translated = place_randomly(head), _translate(head)
    fidelity = _measure(head, coordinates)
    first, second = translated.astype(np.float64), coordinates.astype(np.float64)
    assert [fidelity.trustworthiness, fidelity.continuity] == [
        pytest.approx(trustworthiness(first, second, n_neighbors=15)),
        pytest.approx(trustworthiness(second, first, n_neighbors=15)),
    ]


@pytest.mark.parametrize("facts", FACTS)
def test_further_maps_are_measured_like_the_first(
    facts: HeadFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = make_head(LENGTHS, facts, [6, 0, 8, 7, 5, 2, 11])
    maps = [place_randomly(head), place_randomly(head, 3), _translate(head), place_randomly(head)]
    expected = [_measure(head, each) for each in maps]
    kept, not_kept = Evaluation(head, _translate(head)), Evaluation(head, _translate(head))
    assert [kept.measure(each) for each in maps] == expected
    monkeypatch.setattr(module, "_KEPT_PAIRS", 0)
    assert [not_kept.measure(each) for each in maps] == expected
    assert "_kept_batches" in vars(kept) and "_kept_batches" not in vars(not_kept)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    motion=MOTIONS,
)
def test_turning_scaling_and_mirroring_a_map_change_nothing(seed: int, motion: Motion) -> None:
    head = make_head(LENGTHS, FACTS[3], seed=seed)
    places = place_randomly(head).astype(np.float64)
    moved = motion(places)
    expected = asdict(_measure(head, places))
    assert asdict(_measure(head, moved)) == pytest.approx(expected, abs=1e-12)


def test_a_map_like_the_translate_space_keeps_all_neighbourhoods() -> None:
    head = make_head(LENGTHS)
    fidelity = _measure(head, 2 * _translate(head))
    assert (fidelity.trustworthiness, fidelity.continuity) == (1.0, 1.0)


@pytest.mark.parametrize("lengths", [[1], [1, 1], [5], [40], [3] * 20])
@pytest.mark.parametrize("flat", [False, True])
def test_nothing_is_nan_however_small_or_flat(lengths: list[int], flat: bool) -> None:
    head = make_head(lengths)
    coordinates = place_randomly(head) * np.float32(not flat)
    values = asdict(_measure(head, coordinates))
    assert all(value is None or np.isfinite(value) for value in values.values())
    assert (values["trustworthiness"] is None) == (sum(lengths) <= 15)
    assert (values["score_spearman"] is None) == (flat or max(lengths) < 5)


def test_coordinates_of_another_number_are_refused() -> None:
    head = make_head([6, 6])
    with pytest.raises(ShapeError, match="23 coordinates for 12 queries and 12 keys"):
        _measure(head, np.zeros((23, 2), dtype=np.float32))


def test_a_joint_space_of_another_number_is_refused() -> None:
    head = make_head([6, 6])
    with pytest.raises(ShapeError, match="23 rows of the joint space for 12 queries and 12 keys"):
        Evaluation(head, _translate(head)[:-1])


def test_sequences_in_pieces_are_refused() -> None:
    head = make_head([6, 6])
    shifted = replace(head.query_at, position=head.query_at.position + 1)
    with pytest.raises(ShapeError, match="query rows must be whole sequences"):
        _measure(replace(head, query_at=shifted), place_randomly(head))
    short = replace(head, keys=head.keys[:-1])
    with pytest.raises(ShapeError, match="11 key vectors have 12 positions"):
        _measure(short, place_randomly(short))


@pytest.mark.parametrize("max_elements", [1, 20, 100, 10_000])
def test_batches_hold_every_pair_in_reach_once(max_elements: int) -> None:
    facts = HeadFacts(1.0, "causal", window=5)
    head = make_head(LENGTHS, facts, [6, 0, 8, 7, 5, 2, 11])
    seen: list[tuple[int, int]] = []
    for batch in make_batches(head, max_elements=max_elements):
        block, query, key = torch.nonzero(batch.reach, as_tuple=True)
        rows = batch.query_row[block, query], batch.key_row[block, key]
        seen += list(zip(*(each.tolist() for each in rows), strict=True))
        offset = head.key_at.position[rows[1]] - head.query_at.position[rows[0]]
        np.testing.assert_array_equal(batch.offset[batch.reach], offset)
    expected = []
    for sequence in np.unique(head.query_at.sequence_id):
        of_query = np.flatnonzero(head.query_at.sequence_id == sequence)
        of_key = np.flatnonzero(head.key_at.sequence_id == sequence)
        for i, j in np.argwhere(reach(len(of_query), len(of_key), facts)):
            expected.append((int(of_query[i]), int(of_key[j])))
    assert sorted(seen) == sorted(expected)
