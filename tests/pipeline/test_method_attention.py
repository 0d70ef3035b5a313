"""Attention maps: the gradient is that of the loss, and near comes to mean attended to."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import pipeline.attention_layout as layout
from pipeline.attention_layout import Tile, Tiles, by_places, tile_gradient
from pipeline.fidelity import Evaluation, Fidelity
from pipeline.joint import apply_joint, make_joint
from pipeline.maps import make_maps
from pipeline.method import Fitted
from pipeline.method_attention import ATTENTION
from pipeline.neighbours import Points
from pipeline.settings import MapSpec
from store.attention import HeadFacts
from store.vectors import Floats, HeadVectors
from tests.pipeline.head_fixture import make_head

LENGTHS = [14, 9, 20, 11, 17, 6, 12, 8] * 3
CPU = torch.device("cpu")


def spec(dims: int = 2, seed: int = 0) -> MapSpec:
    return MapSpec(method="attention", dims=dims, joint="lift", seed=seed)


def fit(head: HeadVectors, asked: MapSpec) -> Fitted:
    return ATTENTION.fit(Points(head, make_joint(head, "lift"), 15), asked)


def transform(fitted: Fitted, head: HeadVectors, new: HeadVectors, asked: MapSpec) -> Floats:
    space = apply_joint(new.queries, new.keys, make_joint(head, "lift").constants)
    return ATTENTION.transform(fitted.state, Points(new, space, 1), asked)


def judge(head: HeadVectors, coordinates: Floats) -> Fidelity:
    space = make_joint(head, "translate")
    return Evaluation(head, np.concatenate([space.queries, space.keys])).measure(coordinates)


def plain_loss(tile: Tile, places: Tensor, log_precision: Tensor, rank_weight: float) -> Tensor:
    """The loss as the module's docstring writes it, a query at a time."""
    total = places.new_zeros(())
    for block in range(len(tile.query_row)):
        for at, row in enumerate(tile.query_row[block].tolist()):
            reach = tile.reach[block, at]
            if not reach.any():
                continue
            keys = places[tile.key_row[block][reach]]
            distance = ((places[row] - keys) ** 2).sum(dim=1)
            target = tile.target[block, at][reach]
            chosen = torch.log_softmax(-log_precision[row].exp() * distance, dim=0)
            total = total + (target * (target.log() - chosen)).sum()
            order = tile.order[block, at][reach]
            if order.any():
                both = torch.stack([distance, order])
                total = total + rank_weight * (1 + torch.corrcoef(both)[0, 1])
    return total


@pytest.mark.parametrize(
    "facts", [HeadFacts(0.4), HeadFacts(0.4, mask="causal"), HeadFacts(0.4, window=4, sink=1.0)]
)
def test_gradient_is_that_of_the_loss(facts: HeadFacts) -> None:
    head = make_head([6, 9, 7], facts)
    (tile,) = next(iter(Tiles(head, 1.5, CPU).visit(torch.Generator())))
    random = torch.Generator().manual_seed(1)
    n = len(head.queries)
    places = torch.randn(2 * n, 3, generator=random).requires_grad_()
    precision = torch.randn(n, generator=random).requires_grad_()
    plain_loss(tile, places, precision, 1.3).backward()  # type: ignore[no-untyped-call]
    queries, keys = places.detach()[tile.query_row], places.detach()[tile.key_row]
    found, by_precision = tile_gradient(
        tile, queries, keys, precision.detach()[tile.query_row], 1.3
    )
    summed, summed_precision = torch.zeros_like(places), torch.zeros_like(precision)
    for row, part in zip(
        (tile.query_row, tile.key_row), by_places(found, queries, keys), strict=True
    ):
        summed.index_add_(0, row.flatten(), part.flatten(0, -2))
    summed_precision.index_add_(0, tile.query_row.flatten(), by_precision.flatten())
    torch.testing.assert_close(summed, places.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(summed_precision, precision.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("mask", ["full", "causal"])
def test_near_means_attended_to(dims: int, mask: str) -> None:
    head = make_head(LENGTHS, HeadFacts(0.8, mask="causal" if mask == "causal" else "full"))
    by_attention, by_pca = (
        made.fidelity
        for made in make_maps(head, [spec(dims), replace(spec(dims), method="pca")])
        if not isinstance(made, Exception)
    )
    assert by_attention.score_spearman is not None
    assert by_pca.score_spearman is not None
    assert by_attention.score_spearman < min(-0.75, by_pca.score_spearman - 0.1)
    assert (by_attention.top_key_recall_3 or 0) > 0.9


def test_sequences_that_the_fit_did_not_see_are_placed_as_well() -> None:
    head, new = make_head(LENGTHS), make_head([13, 7, 18, 10] * 2, seed=5)
    fitted = fit(head, spec())
    old, further = judge(head, fitted.coordinates), judge(new, transform(fitted, head, new, spec()))
    assert further.score_spearman is not None
    assert old.score_spearman is not None
    assert further.score_spearman < old.score_spearman + 0.05
    assert (further.top_key_recall_3 or 0) > (old.top_key_recall_3 or 0) - 0.05


def test_further_sequences_lie_among_the_landmarks_and_not_beside_them() -> None:
    """Scores across sequences: a new query is nearer to fitted keys that score higher."""
    head, new = make_head(LENGTHS), make_head([13, 7, 18, 10] * 2, seed=5)
    fitted = fit(head, spec(3))
    placed = transform(fitted, head, new, spec(3))[: len(new.queries)]
    keys = fitted.coordinates[len(head.queries) :]
    distance = ((placed[:, None] - keys) ** 2).sum(axis=2)
    scores = new.queries @ head.keys.T
    correlation = [np.corrcoef(d, s)[0, 1] for d, s in zip(distance, scores, strict=True)]
    assert np.mean(correlation) < -0.5


def test_a_seed_gives_the_same_map_and_another_seed_another() -> None:
    head = make_head(LENGTHS)
    first, again, other = (fit(head, spec(seed=seed)) for seed in (3, 3, 4))
    assert np.array_equal(first.coordinates, again.coordinates)
    assert not np.allclose(first.coordinates, other.coordinates, atol=1e-3)
    new = make_head([9, 12], seed=7)
    placed = [transform(first, head, new, spec(seed=3)) for _ in range(2)]
    assert np.array_equal(placed[0], placed[1])


def test_tiles_that_do_not_fit_into_memory_are_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    head = make_head(LENGTHS)
    monkeypatch.setattr(layout, "_KEPT_PAIRS", 0)
    monkeypatch.setitem(layout._TILE_PAIRS, "cpu", 300)
    found = judge(head, fit(head, spec()).coordinates)
    assert found.score_spearman is not None
    assert found.score_spearman < -0.7


def test_every_sequence_is_visited_once_whether_tiles_are_kept_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head = make_head(LENGTHS)
    monkeypatch.setitem(layout._TILE_PAIRS, "cpu", 300)
    for limit in (2**28, 0):
        monkeypatch.setattr(layout, "_KEPT_PAIRS", limit)
        steps = list(Tiles(head, 1.0, CPU).visit(torch.Generator().manual_seed(0)))
        assert len(steps) > 1
        tiles = [tile for step in steps for tile in step]
        rows = torch.cat([tile.query_row[tile.reach.any(dim=2)] for tile in tiles])
        assert sorted(rows.tolist()) == list(range(len(head.queries)))
        assert set(torch.cat([tile.rows for tile in tiles]).tolist()) == set(
            range(2 * len(head.queries))
        )


@pytest.mark.parametrize("limit", [2**28, 0])
def test_a_step_holds_whole_sequences(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    head = make_head([40, 9, 70, 30, 8, 55])
    monkeypatch.setitem(layout._TILE_PAIRS, "cpu", 200)
    monkeypatch.setattr(layout, "_KEPT_PAIRS", limit)
    seen = []
    for step in Tiles(head, 1.0, CPU).visit(torch.Generator().manual_seed(0)):
        rows = torch.unique(torch.cat([tile.rows for tile in step])).numpy()
        ids = np.concatenate([head.query_at.sequence_id, head.key_at.sequence_id])
        seen.append(set(ids[rows]))
        assert set(rows) == set(np.flatnonzero(np.isin(ids, list(seen[-1]))))
    assert len(seen) > 2
    assert sum(map(len, seen)) == 6


def test_long_sequences_are_placed_as_well_as_one_tile_places_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    head = make_head([40] * 6)
    whole = judge(head, fit(head, spec()).coordinates)
    monkeypatch.setitem(layout._TILE_PAIRS, "cpu", 300)
    cut = judge(head, fit(head, spec()).coordinates)
    assert cut.score_spearman == pytest.approx(whole.score_spearman, abs=0.04)
    assert cut.top_key_recall_3 == pytest.approx(whole.top_key_recall_3, abs=0.05)


def test_a_sequence_longer_than_a_tile_is_placed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(layout._TILE_PAIRS, "cpu", 200)
    head = make_head([70, 12])
    found = judge(head, fit(head, spec()).coordinates)
    assert found.score_spearman is not None
    assert found.score_spearman < -0.6


def test_queries_and_keys_of_different_sequences_of_cross_attention_are_placed() -> None:
    head = make_head([8, 11, 5], key_lengths=[12, 7, 9])
    found = fit(head, spec())
    assert found.coordinates.shape == (24 + 28, 2)
    assert (judge(head, found.coordinates).top_key_recall_3 or 0) > 0.9


@pytest.mark.parametrize("lengths", [[1], [2], [1, 1, 1], [40]])
@pytest.mark.parametrize("dims", [2, 3])
def test_few_tokens_make_a_map(lengths: list[int], dims: int) -> None:
    head = make_head(lengths)
    fitted = fit(head, spec(dims))
    assert fitted.coordinates.shape == (2 * sum(lengths), dims)
    assert np.isfinite(fitted.coordinates).all()
    assert np.isfinite(transform(fitted, head, make_head([3], seed=2), spec(dims))).all()


@pytest.mark.parametrize("constant", ["queries", "keys", "both"])
def test_constant_vectors_make_a_finite_map(constant: str) -> None:
    head = make_head([9, 12])
    same = np.ones_like(head.queries)
    if constant in ("queries", "both"):
        head = replace(head, queries=same)
    if constant in ("keys", "both"):
        head = replace(head, keys=same)
    assert np.isfinite(fit(head, spec()).coordinates).all()


def test_state_is_small_and_holds_numbers_only() -> None:
    head = make_head([50] * 60)
    state = fit(head, spec()).state
    assert all(each.dtype.kind in "fiu" for each in state.values())
    assert len(state["landmarks"]) == len(state["landmark_places"]) == 2048
