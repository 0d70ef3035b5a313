from collections.abc import Iterator

import pytest

from store.atlas import Atlas
from store.errors import NotInAtlasError, QueryError
from store.filters import Filter
from tests.store.lake_fixture import add_map_row, add_model, append_rows
from tests.store.map_fixture import build_maps


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atlas]:
    root = build_maps(tmp_path_factory.mktemp("lake"))
    add_model(root, "unseen")
    entropy = [0.5, 0.25, 0.75]
    rows = [
        {"model": "tiny", "layer": 0, "head": head, "measure": "entropy", "value": value}
        for head, value in enumerate(entropy)
    ]
    append_rows(root, "measures", rows)
    add_map_row(root, "old", 0, "ok", 1, layer=1, method="pca", score_spearman=-0.2)
    add_map_row(root, "new", 0, "ok", 2, layer=1, method="pca", score_spearman=-0.8, replaces="old")
    add_map_row(root, "broken", 0, "failed", 3, layer=1, method="tsne")
    with Atlas(str(root)) as opened:
        yield opened


def test_models_come_with_how_much_was_captured(atlas: Atlas) -> None:
    found = atlas.models().select(["model", "d_head", "n_sequences", "n_tokens"]).to_pylist()
    assert found == [{"model": "tiny", "d_head": 8, "n_sequences": 0, "n_tokens": 0}]


def test_heads_are_filtered_and_sorted_by_measures(atlas: Atlas) -> None:
    found = atlas.heads("tiny", sort=["-entropy"])
    assert found["entropy"].to_pylist()[:4] == [0.75, 0.5, 0.25, None]
    assert list(
        zip(*found.slice(3).select(["layer", "head"]).to_pydict().values(), strict=True)
    ) == [(0, 3), (1, 0), (1, 1), (1, 2), (1, 3)]
    low = atlas.heads(filters=[Filter("entropy", "<=", "0.5"), Filter("mask", "=", "full")])
    assert low["head"].to_pylist() == [0]
    assert atlas.heads(filters=[Filter("entropy", "is_null")]).num_rows == 5


def test_maps_are_the_current_ones_unless_every_part_is_asked_for(atlas: Atlas) -> None:
    current = atlas.maps("tiny")
    assert current["map_id"].to_pylist() == ["flat", "deep", "grown", "new"]
    held = atlas.sql("SELECT map_id, count(*) AS n FROM points GROUP BY map_id").to_pylist()
    counts = dict(zip(current["map_id"].to_pylist(), current["n_points"].to_pylist(), strict=True))
    assert counts["grown"] == 60
    assert counts.items() >= {row["map_id"]: row["n"] for row in held}.items()
    every = atlas.maps(every_part=True)
    assert every["map_id"].to_pylist() == ["flat", "deep", "grown", "grown", "new", "old", "broken"]
    good = atlas.maps(filters=[Filter("score_spearman", "<", -0.5)])
    assert good["map_id"].to_pylist() == ["new"]
    assert atlas.maps(sort=["-dims", "map_id"])["map_id"].to_pylist()[:2] == ["deep", "flat"]


def test_wrong_listing_is_refused(atlas: Atlas) -> None:
    for ask in (atlas.heads, atlas.maps):
        with pytest.raises(NotInAtlasError, match="no model unseen"):
            ask("unseen")
        with pytest.raises(QueryError, match="no column 'entrpy' here"):
            ask(None, [Filter("entrpy", "<", 1)])
        with pytest.raises(QueryError, match="no column 'modl' here; nearest: model"):
            ask(sort=["modl"])
