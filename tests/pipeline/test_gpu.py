"""What only a GPU can show: cuML's maps are as good as umap-learn's, ours are the same there."""

import numpy as np
import pytest
import torch

import pipeline.method_attention as method_attention
import pipeline.method_umap as method_umap
from pipeline.maps import HeadMap, make_maps
from pipeline.method import has_cuml
from pipeline.settings import Joint, MapSpec, MethodName
from store.attention import HeadFacts
from store.vectors import HeadVectors
from tests.pipeline.head_fixture import make_head

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
needs_cuml = pytest.mark.skipif(not has_cuml(), reason="needs cuML: pip install 'qkatlas[gpu]'")


def head() -> HeadVectors:
    """2,400 points of 12 clusters, queries and keys alike."""
    made = make_head([30] * 40, HeadFacts(0.4), d_head=16)
    centres = np.random.default_rng(1).normal(scale=4, size=(12, 16))
    return HeadVectors(
        made.model,
        made.layer,
        made.head,
        made.facts,
        (made.queries + centres[np.arange(len(made.queries)) % 12]).astype(np.float32),
        made.query_at,
        (made.keys + centres[np.arange(len(made.keys)) % 12]).astype(np.float32),
        made.key_at,
    )


def make(method: MethodName, dims: int = 2) -> HeadMap:
    joint: Joint = "lift" if method == "attention" else "translate"
    (made,) = make_maps(head(), [MapSpec(method=method, dims=dims, joint=joint)])
    assert not isinstance(made, Exception), made
    return made


@needs_cuml
@pytest.mark.parametrize("dims", [2, 3])
def test_cuml_keeps_neighbours_as_well_as_umap_learn(
    dims: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = make("umap", dims)
    monkeypatch.setattr(method_umap, "has_cuml", lambda: False)
    here = make("umap", dims)
    assert there.backend.startswith("cuml")
    assert here.backend.startswith("umap-learn")
    assert there.fidelity.trustworthiness is not None
    assert here.fidelity.trustworthiness is not None
    assert there.fidelity.trustworthiness == pytest.approx(here.fidelity.trustworthiness, abs=0.02)


@needs_cuml
def test_cuml_makes_tsne_maps_in_two_dimensions() -> None:
    made = make("tsne")
    assert made.backend.startswith("cuml")
    assert (made.fidelity.trustworthiness or 0) > 0.85


@pytest.mark.parametrize("dims", [2, 3])
def test_attention_maps_are_as_faithful_on_a_gpu(
    dims: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = make("attention", dims)
    monkeypatch.setattr(method_attention, "_choose_device", lambda: torch.device("cpu"))
    here = make("attention", dims)
    assert "cuda" in there.backend
    assert there.fidelity.score_spearman == pytest.approx(here.fidelity.score_spearman, abs=0.03)
