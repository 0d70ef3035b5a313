import warnings
from dataclasses import replace

import numpy as np
import pytest
from sklearn.manifold import trustworthiness

from pipeline import method_umap
from pipeline.joint import JointSpace, apply_joint, make_joint
from pipeline.method import State
from pipeline.method_umap import UMAP
from pipeline.neighbours import Points
from pipeline.settings import MapSpec
from store.vectors import Floats, HeadVectors
from tests.pipeline.head_fixture import make_head

SPEC = MapSpec("umap", n_epochs=60)


def _points(head: HeadVectors, space: JointSpace | None = None) -> Points:
    return Points(head, space or make_joint(head, "translate"), 15)


def _clustered(lengths: list[int], seed: int) -> HeadVectors:
    """A head whose vectors lie around five centres."""
    head = make_head(lengths, seed=seed)
    centres = np.random.default_rng(9).normal(scale=6, size=(5, 6)).astype(np.float32)
    group = np.arange(len(head.queries)) % 5
    return replace(head, queries=head.queries + centres[group], keys=head.keys + centres[group])


def test_equal_vectors_have_one_position() -> None:
    head = make_head([12, 12])
    head.queries[12:18] = head.queries[:6]
    fitted = UMAP.fit(_points(head), SPEC)
    np.testing.assert_array_equal(fitted.coordinates[12:18], fitted.coordinates[:6])
    assert fitted.parameters["n_distinct"] == 48 - 6
    again = UMAP.fit(_points(head), SPEC)
    np.testing.assert_array_equal(again.coordinates, fitted.coordinates)


def test_many_points_leave_neighbours_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method_umap, "EXACT_POINTS", 10)
    fitted = UMAP.fit(_points(make_head([20])), SPEC)
    assert fitted.parameters["neighbours"] == "approximate"


def _place(state: State, fit: JointSpace, new: HeadVectors, spec: MapSpec = SPEC) -> Floats:
    space = apply_joint(new.queries, new.keys, fit.constants)
    return UMAP.transform(state, _points(new, space), spec)


@pytest.mark.parametrize("dims", [2, 3])
def test_further_points_do_not_depend_on_each_other(dims: int) -> None:
    spec = replace(SPEC, dims=dims)
    head, new = _clustered([60, 50], seed=0), _clustered([30], seed=1)
    fit = make_joint(head, "translate")
    state = UMAP.fit(_points(head, fit), spec).state
    together = _place(state, fit, new, spec)
    np.testing.assert_array_equal(_place(state, fit, new, spec), together)
    alone = replace(new, queries=new.queries[:1], keys=new.keys[:1])
    np.testing.assert_allclose(_place(state, fit, alone, spec), together[[0, 30]], atol=1e-4)
    twice = replace(new, queries=np.repeat(new.queries[:1], 30, axis=0))
    places = _place(state, fit, twice, spec)[:30]
    assert (places == places[0]).all()
    other_seed = _place(state, fit, new, replace(spec, seed=1))
    assert not np.array_equal(other_seed, together)


def test_fitted_vectors_come_back_to_their_places() -> None:
    head = _clustered([60, 50], seed=0)
    fit = make_joint(head, "translate")
    fitted = UMAP.fit(_points(head, fit), SPEC)
    assert fitted.state["vectors"].dtype == np.float16
    np.testing.assert_array_equal(_place(fitted.state, fit, head), fitted.coordinates)


@pytest.mark.parametrize("scale", [1e6, 1e-9])
def test_vectors_out_of_the_range_of_float16_are_kept_in_float32(scale: float) -> None:
    head = _clustered([30], seed=0)
    head = replace(
        head,
        queries=(head.queries * scale).astype(np.float32),
        keys=(head.keys * scale).astype(np.float32),
    )
    fit = make_joint(head, "translate")
    fitted = UMAP.fit(_points(head, fit), SPEC)
    assert fitted.state["vectors"].dtype == np.float32
    np.testing.assert_array_equal(_place(fitted.state, fit, head), fitted.coordinates)


@pytest.mark.parametrize("dims", [2, 3])
def test_transform_is_as_good_as_that_of_umap_learn(dims: int) -> None:
    umap = method_umap._import_umap()
    head, new = _clustered([120, 130], seed=0), _clustered([90], seed=1)
    fit = make_joint(head, "translate")
    points = _points(head, fit)
    space = apply_joint(new.queries, new.keys, fit.constants)
    further = np.concatenate([space.queries, space.keys])
    spec = replace(SPEC, dims=dims, n_epochs=200)
    plain = umap.UMAP(n_components=dims, n_epochs=200, random_state=0, n_jobs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        places = plain.fit_transform(points.merged[0])
        theirs = plain.transform(further)
    state = {"vectors": points.merged[0], "places": places}
    ours = UMAP.transform(state, _points(new, space), spec)
    apart = np.linalg.norm(ours - theirs, axis=1)
    assert np.median(apart) < 0.1 * places.std(axis=0).max()
    trust = [trustworthiness(further, each, n_neighbors=15) for each in (ours, theirs)]
    assert trust[0] > trust[1] - 0.02
