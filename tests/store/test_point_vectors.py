from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store import point_vectors
from store.atlas import Atlas
from store.byte_cache import ByteCache
from store.errors import LimitError, QueryError
from store.filters import Filter
from store.map_points import open_map, read_rows
from store.point_vectors import read_norms
from store.points import read_points
from store.schema import sequence_id
from tests.store.lake_fixture import add_shard, build_atlas
from tests.store.map_fixture import add_map, build_maps, map_points

COLUMNS = ["kind", "sequence_id", "position", "norm"]


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atlas]:
    with Atlas(str(build_maps(tmp_path_factory.mktemp("lake")))) as opened:
        yield opened


def plain(atlas: Atlas, row: dict[str, Any]) -> float | None:
    """The norm of one point's vector, found one by one."""
    vectors = atlas.read_head("tiny", 0, 0)
    sides = {
        "query": (vectors.queries, vectors.query_at),
        "key": (vectors.keys, vectors.key_at),
    }
    values, at = sides[row["kind"]]
    for vector, *place in zip(values, at.sequence_id, at.position, strict=True):
        if place == [row["sequence_id"], row["position"]]:
            return float(sum(float(x) ** 2 for x in vector) ** 0.5)
    return None


@pytest.mark.parametrize("at_once", [1, 2, 512])
@pytest.mark.parametrize("map_id", ["flat", "grown", "deep"])
def test_norms_equal_the_plain_way(
    atlas: Atlas, map_id: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(point_vectors, "SEQUENCES_AT_ONCE", at_once)
    monkeypatch.setattr(point_vectors, "CACHE", ByteCache(1 << 20))
    rows = read_points(atlas, map_id, COLUMNS).to_pylist()
    expected = [plain(atlas, row) or 0.0 for row in rows]
    np.testing.assert_allclose([row["norm"] for row in rows], expected, rtol=1e-6)


@pytest.mark.parametrize("map_id", ["flat", "grown"])
def test_pages_filters_and_cuts_keep_each_norm_with_its_point(atlas: Atlas, map_id: str) -> None:
    whole = read_points(atlas, map_id, [*COLUMNS, "token", "rank"]).to_pylist()
    named = [*COLUMNS, "token", "rank"]
    chosen: list[dict[str, Any]] = [
        {"limit": 7, "offset": 5},
        {"max_points": 11},
        {"filters": [Filter("kind", "=", "key"), Filter("token", "=", "t1")]},
    ]
    for options in chosen:
        found = read_points(atlas, map_id, named, **options).to_pylist()
        assert found and all(row in whole for row in found)


def test_a_map_of_many_files_has_its_norms(tmp_path: Path) -> None:
    build_atlas(tmp_path, ordinals=list(range(10)))
    for ordinal in range(10):
        add_map(tmp_path, "many", ordinal, part=ordinal)
    with Atlas(str(tmp_path)) as opened:
        rows = read_points(opened, "many", COLUMNS, limit=12, offset=30).to_pylist()
        for row in rows:
            assert row["norm"] == pytest.approx(plain(opened, row), rel=1e-6)


def test_a_point_without_a_vector_has_no_norm(tmp_path: Path) -> None:
    build_atlas(tmp_path, ordinals=[0])
    add_shard(tmp_path, 1, tables=("tokens", "sequences"))
    add_map(tmp_path, "flat", 0)
    add_map(tmp_path, "flat", 1, part=1)
    with Atlas(str(tmp_path)) as opened:
        rows = read_points(opened, "flat", COLUMNS).to_pylist()
    lacking = {row["sequence_id"] >= sequence_id(1, 0) for row in rows if row["norm"] is None}
    assert lacking == {True}
    assert sum(row["norm"] is None for row in rows) == len(map_points("flat", 1, 1))


def test_norms_are_read_only_where_asked_for_and_once(atlas: Atlas, tmp_path: Path) -> None:
    build_maps(tmp_path)
    with Atlas(str(tmp_path)) as opened:
        expected = read_points(opened, "flat", ["norm"])
        for table in ("queries", "keys"):
            (tmp_path / table).rename(tmp_path / f"{table}-away")
        assert read_points(opened, "flat", ["norm"]).equals(expected)
        assert read_points(opened, "deep", ["x"]).num_rows == 30


def test_norms_are_not_for_filters_and_mind_the_limit(atlas: Atlas) -> None:
    with pytest.raises(QueryError, match="no column 'norm' here"):
        read_points(atlas, "flat", filters=[Filter("norm", ">", 1)])
    opened = open_map(atlas, "flat")
    size = sum(
        sum(files["size"].to_pylist())
        for files in (
            atlas.snapshot.files("queries", model="tiny", layer=0, head=0),
            atlas.snapshot.files("keys", model="tiny", layer=0, kv_head=0),
        )
    )
    with pytest.raises(LimitError, match=r"bytes of vectors, allowed are 10 \(scan_bytes\)"):
        point_vectors._check_size(atlas, opened, read_rows(opened, ["sequence_id"]), 10)
    point_vectors._check_size(atlas, opened, read_rows(opened, ["sequence_id"]), size)
    assert len(read_norms(atlas, opened, size)) == 30
