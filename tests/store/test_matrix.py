from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from store.atlas import Atlas
from store.errors import NotInAtlasError, QueryError
from store.matrix import HEADS, STEPS, Matrix
from tests.store.lake_fixture import N_HEADS, add_map_row, build_atlas
from tests.store.map_fixture import add_map, add_points_file, map_points

AT = {"model": "tiny", "layer": 0, "head": 0}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layer 0 has maps of one sample; in layer 1 head 0 has another sample, the others none."""
    root = build_atlas(tmp_path_factory.mktemp("lake"))
    for head in range(N_HEADS):
        add_map(root, f"m{head}", head=head, score_spearman=-head / 10)
        add_map(root, f"deep{head}", head=head, dims=3)
    add_map(root, "m0", 1, part=1)
    add_map(root, "newer", head=3, generation=2)
    add_map(root, "other", 1, layer=1, generation=9)
    return root


def decode(matrix: Matrix, row: dict[str, Any]) -> np.ndarray:
    """A head's coordinates as a client reads them, shape (n_points, dims)."""
    steps = np.frombuffer(row["points"], "<u2").reshape(matrix.n_points, matrix.dims)
    low, high = np.array(row["low"]), np.array(row["high"])
    coordinates: np.ndarray = low + steps / STEPS * (high - low)
    return coordinates


@pytest.mark.parametrize(("dims", "max_points"), [(2, 2000), (2, 11), (3, 7)])
def test_every_head_has_the_same_points_to_a_65535th(
    lake: Path, dims: int, max_points: int
) -> None:
    with Atlas(str(lake)) as atlas:
        found = atlas.matrix("tiny", "pca", dims, max_points)
        assert found.n_points == found.tokens.num_rows == min(max_points, 30)
        names = ["kind", "sequence_id", "position"]
        places = list(zip(*found.tokens.select(names).to_pydict().values(), strict=True))
        assert len(set(places)) == found.n_points
        assert found.tokens["token"].to_pylist() == [f"t{place[2]}" for place in places]
        for row in found.heads.to_pylist()[:N_HEADS]:
            points = atlas.sql("FROM points WHERE map_id = ? AND part = 0", [row["map_id"]])
            known = {tuple(at[name] for name in names): at for at in points.to_pylist()}
            expected = np.array([[known[at][axis] for axis in "xyz"[:dims]] for at in places])
            assert row["missing"] is None
            np.testing.assert_allclose(
                [row["low"], row["high"]], [expected.min(0), expected.max(0)]
            )
            error = np.abs(decode(found, row) - expected).max(axis=0)
            assert np.all(error <= (expected.max(0) - expected.min(0)) / STEPS)


def test_heads_without_these_points_say_why(lake: Path) -> None:
    with Atlas(str(lake)) as atlas:
        heads = atlas.matrix("tiny", "pca").heads
    assert heads.schema == HEADS
    assert heads["map_id"].to_pylist() == ["m0", "m1", "m2", "newer", "other", None, None, None]
    assert heads["score_spearman"].to_pylist()[1] == -0.1
    other, none = "its map is of another sample", "no such map"
    assert heads["missing"].to_pylist() == [None] * 4 + [other, none, none, none]
    for name in ("low", "high", "points"):
        assert heads[name].is_null().to_pylist() == [False] * 4 + [True] * 4


def test_fewer_points_are_the_first_of_more(lake: Path) -> None:
    with Atlas(str(lake)) as atlas:
        few, many = (atlas.matrix("tiny", "pca", max_points=n).tokens for n in (9, 20))
    assert few.equals(many.slice(0, 9))


def test_a_joint_space_that_is_named_is_the_one_shown(tmp_path: Path) -> None:
    build_atlas(tmp_path)
    add_map(tmp_path, "lifted", joint='{"method": "lift"}')
    add_map(tmp_path, "moved", joint='{"method": "translate"}', generation=2)
    with Atlas(str(tmp_path)) as atlas:
        shown = {
            joint: atlas.matrix("tiny", "pca", joint=joint).heads["map_id"][0].as_py()
            for joint in (None, "lift", "translate")
        }
        assert shown == {None: "moved", "lift": "lifted", "translate": "moved"}
        with pytest.raises(NotInAtlasError, match="2-D of balance, but pca in 2-D of lift, pca"):
            atlas.matrix("tiny", "pca", joint="balance")


def test_a_map_without_points_says_so(tmp_path: Path) -> None:
    build_atlas(tmp_path)
    add_points_file(tmp_path, "m-m0-0-a.parquet", map_points("m0", 0, 0).slice(0, 0), **AT)
    add_map_row(tmp_path, "m0", 0, "ok", 1, method="pca", n_queries=0, n_keys=0)
    with Atlas(str(tmp_path)) as atlas:
        assert atlas.matrix("tiny", "pca").heads["missing"][0].as_py() == "its map has no points"


def test_matrix_is_kept_until_the_atlas_changes(tmp_path: Path) -> None:
    build_atlas(tmp_path)
    add_map(tmp_path, "m0")
    with Atlas(str(tmp_path)) as atlas:
        first = atlas.matrix("tiny", "pca")
        assert atlas.matrix("tiny", "pca") is first
        add_map(tmp_path, "m1", head=1)
        atlas.refresh()
        assert atlas.matrix("tiny", "pca").heads["map_id"].to_pylist()[:2] == ["m0", "m1"]


def test_flat_dimension_and_compacted_files_are_read(tmp_path: Path) -> None:
    build_atlas(tmp_path)
    fit = map_points("aa", 0, 0)
    fit = fit.set_column(6, fit.schema.field("y"), pa.array([0.5] * 30, pa.float32()))
    add_map_row(tmp_path, "aa", 0, "ok", 1, method="pca", n_queries=15, n_keys=15)
    both = pa.concat_tables([fit, map_points("aa", 1, 1)])
    add_points_file(tmp_path, "c-1-aa-a.parquet", both)
    with Atlas(str(tmp_path)) as atlas:
        found = atlas.matrix("tiny", "pca")
        row = found.heads.to_pylist()[0]
    assert found.n_points == 30
    assert set(decode(found, row)[:, 1]) == {0.5}


def test_wrong_matrix_names_what_is_there(lake: Path) -> None:
    with Atlas(str(lake)) as atlas:
        with pytest.raises(
            NotInAtlasError, match="tiny has no umap map in 2-D, but pca in 2-D, pca"
        ):
            atlas.matrix("tiny", "umap")
        with pytest.raises(NotInAtlasError, match="no model small"):
            atlas.matrix("small", "pca")
        with pytest.raises(QueryError, match="max_points is 0, expected at least 1"):
            atlas.matrix("tiny", "pca", max_points=0)
