from dataclasses import replace

import numpy as np
import openTSNE
import pytest
from sklearn.manifold import trustworthiness

from pipeline import method_tsne
from pipeline.joint import JointSpace, apply_joint, make_joint
from pipeline.method_tsne import TSNE
from pipeline.neighbours import Points
from pipeline.settings import MapSpec
from store.errors import ConfigError
from store.vectors import HeadVectors
from tests.pipeline.head_fixture import make_head
from tests.pipeline.test_method_umap import _clustered

SPEC = MapSpec("tsne", perplexity=10)


def _points(head: HeadVectors, space: JointSpace | None = None) -> Points:
    return Points(head, space or make_joint(head, "translate"), 91)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_map_keeps_neighbourhoods_and_is_the_same_each_time(dims: int) -> None:
    head = _clustered([60, 50], seed=0)
    points, spec = _points(head), replace(SPEC, dims=dims)
    fitted = TSNE.fit(points, spec)
    assert trustworthiness(points.vectors, fitted.coordinates, n_neighbors=10) > 0.9
    assert fitted.backend.startswith("openTSNE 1.")
    assert fitted.parameters["perplexity"] == 10
    again = TSNE.fit(_points(head), spec)
    np.testing.assert_array_equal(again.coordinates, fitted.coordinates)
    other = TSNE.fit(points, replace(spec, seed=1))
    assert not np.array_equal(other.coordinates, fitted.coordinates)


def test_equal_vectors_have_one_position() -> None:
    head = make_head([12, 12])
    head.queries[12:18] = head.queries[:6]
    fitted = TSNE.fit(_points(head), SPEC)
    np.testing.assert_array_equal(fitted.coordinates[12:18], fitted.coordinates[:6])


def test_too_few_points_lower_the_perplexity_and_say_so() -> None:
    fitted = TSNE.fit(_points(make_head([8])), MapSpec("tsne"))
    assert fitted.parameters["perplexity"] == 5.0
    assert fitted.parameters["reason"] == "perplexity 30 lowered for 16 points"
    assert "reason" not in TSNE.fit(_points(make_head([50])), MapSpec("tsne")).parameters


def test_a_perplexity_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"perplexity 0\.2 must be at least 1"):
        TSNE.fit(_points(make_head([8])), MapSpec("tsne", perplexity=0.2))


def test_many_points_leave_neighbours_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method_tsne, "EXACT_POINTS", 10)
    fitted = TSNE.fit(_points(make_head([20])), SPEC)
    assert fitted.parameters["neighbours"] == "approximate"


@pytest.mark.parametrize(("dims", "fft_points"), [(2, 10_000), (2, 1), (3, 1)])
def test_transform_is_that_of_a_live_embedding(
    dims: int, fft_points: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(method_tsne, "FFT_POINTS", fft_points)
    monkeypatch.setattr(method_tsne, "_ITERATIONS", (60, 20))
    head, new = _clustered([60, 50], seed=0), _clustered([20], seed=1)
    fit = make_joint(head, "translate")
    points = _points(head, fit)
    spec = replace(SPEC, dims=dims)
    fitted = TSNE.fit(points, spec)
    # A map does not lie around its middle; its state may be anywhere.
    state = fitted.state | {"places": fitted.state["places"] + np.float32(3)}
    space = apply_joint(new.queries, new.keys, fit.constants)
    placed = TSNE.transform(state, _points(new, space), spec)
    np.testing.assert_array_equal(TSNE.transform(state, _points(new, space), spec), placed)

    distinct = points.merged[0]
    affinities = openTSNE.affinity.PerplexityBasedNN(distinct, perplexity=10, method="exact")
    method = "fft" if dims == 2 and fft_points == 1 else "bh"
    live = openTSNE.TSNEEmbedding(
        state["places"],
        affinities,
        negative_gradient_method=method,
        **method_tsne._COARSENESS,
    )
    middle = (state["places"].max(axis=0) + state["places"].min(axis=0)) / 2
    expected = np.asarray(live.transform(np.concatenate([space.queries, space.keys]))) + middle
    spread = float(fitted.coordinates.std())
    assert np.median(np.linalg.norm(placed - expected, axis=1)) < 0.02 * spread

    alone = replace(new, queries=new.queries[:1], keys=new.keys[:1])
    space = apply_joint(alone.queries, alone.keys, fit.constants)
    single = TSNE.transform(state, _points(alone, space), spec)
    np.testing.assert_allclose(single, placed[[0, 20]], atol=0.05 * spread)


def test_fitted_vectors_come_back_to_their_places() -> None:
    head = _clustered([60, 50], seed=0)
    fit = make_joint(head, "translate")
    fitted = TSNE.fit(_points(head, fit), SPEC)
    assert set(fitted.state) == {"vectors", "places"}
    placed = TSNE.transform(fitted.state, _points(head, fit), SPEC)
    np.testing.assert_array_equal(placed, fitted.coordinates)
