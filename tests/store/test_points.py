from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from store import map_points as module
from store.atlas import Atlas
from store.errors import AtlasFormatError, NotInAtlasError, QueryError
from store.filters import Filter
from store.schema import sequence_id
from tests.store.lake_fixture import (
    add_file,
    add_map_row,
    add_model,
    add_shard,
    build_atlas,
    positions,
)
from tests.store.map_fixture import add_map, add_points_file, build_maps, map_points

PLAIN = """
SELECT p.kind, p.sequence_id, p.position, x, y, z, rank, token, is_special
FROM points p LEFT JOIN tokens t ON t.sequence_id = p.sequence_id AND t.position = p.position
WHERE p.map_id = $map_id AND {condition}
ORDER BY rank, part, kind, p.sequence_id, p.position
"""


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atlas]:
    with Atlas(str(build_maps(tmp_path_factory.mktemp("lake")))) as opened:
        yield opened


def plain(atlas: Atlas, map_id: str, condition: str = "true") -> list[dict[str, Any]]:
    """The rows by one join over all points and tokens."""
    rows = atlas.sql(PLAIN.format(condition=condition), {"map_id": map_id})
    found: list[dict[str, Any]] = (rows if map_id == "deep" else rows.drop(["z"])).to_pylist()
    return found


@pytest.mark.parametrize("map_id", ["flat", "grown", "deep"])
def test_points_equal_the_plain_join(atlas: Atlas, map_id: str) -> None:
    expected = plain(atlas, map_id)
    assert atlas.points(map_id).to_pylist() == expected
    assert len(expected) == (60 if map_id == "grown" else 30)


def test_filters_name_columns_of_points_and_of_tokens(atlas: Atlas) -> None:
    found = atlas.points("grown", filters=[Filter("token", "in", "t1,t2"), Filter("x", ">", "0")])
    assert found.to_pylist() == plain(atlas, "grown", "token IN ('t1', 't2') AND x > 0")
    found = atlas.points("flat", ["x"], [Filter("is_special", "=", "true")])
    expected = [{"x": row["x"]} for row in plain(atlas, "flat", "is_special")]
    assert found.to_pylist() == expected
    found = atlas.points("flat", filters=[Filter("token", "=", "none")])
    assert found.num_rows == 0
    assert found.column_names == atlas.points("flat").column_names


def test_box_keeps_what_is_in_view_with_its_edges(atlas: Atlas) -> None:
    x = atlas.points("deep")["x"].to_pylist()
    low, high = sorted(x)[5], sorted(x)[20]
    found = atlas.points("deep", box=[(low, high), (-1, 1), (-9, 9)])
    expected = plain(atlas, "deep", f"x BETWEEN '{low}'::FLOAT AND '{high}'::FLOAT AND abs(y) <= 1")
    assert found.to_pylist() == expected
    assert found.num_rows


@pytest.mark.parametrize("filters", [[], [Filter("rank", ">=", 3)]])
@pytest.mark.parametrize("map_id", ["flat", "grown"])
def test_max_points_cuts_at_a_rank(atlas: Atlas, map_id: str, filters: list[Filter]) -> None:
    whole = atlas.points(map_id, filters=filters).to_pylist()
    for n in (0, 1, 7, 8, 9, 31, 100):
        bounds = [r for r in range(40) if sum(row["rank"] < r for row in whole) <= n]
        expected = [row for row in whole if row["rank"] < bounds[-1]]
        assert atlas.points(map_id, filters=filters, max_points=n).to_pylist() == expected


def test_pages_make_the_whole(atlas: Atlas) -> None:
    for filters in ([], [Filter("kind", "=", "key")]):
        whole = atlas.points("grown", filters=filters, max_points=41)
        options: dict[str, Any] = {"filters": filters, "max_points": 41}
        pages = [atlas.points("grown", limit=7, offset=n, **options) for n in range(0, 60, 7)]
        assert pa.concat_tables(pages).to_pylist() == whole.to_pylist()


def test_columns_come_as_asked(atlas: Atlas) -> None:
    found = atlas.points("flat", ["label", "distortion", "part", "token", "part"], limit=2)
    assert found.column_names == ["label", "distortion", "part", "token"]
    assert found["token"].to_pylist() == [row["token"] for row in plain(atlas, "flat")[:2]]
    with pytest.raises(QueryError, match="no column is named"):
        atlas.points("flat", [])


def test_wrong_reads_say_what_is_wrong(atlas: Atlas) -> None:
    with pytest.raises(NotInAtlasError, match="no map fat in the atlas"):
        atlas.points("fat")
    with pytest.raises(QueryError, match="no column 'tokn' here; nearest: token"):
        atlas.points("flat", ["tokn"])
    with pytest.raises(QueryError, match="no column 'tokn' here; nearest: token"):
        atlas.points("flat", filters=[Filter("tokn", "=", "a")])
    with pytest.raises(QueryError, match=r"the box has 2 ranges, expected 3 \(low and high\)"):
        atlas.points("deep", box=[(0, 1), (0, 1)])
    with pytest.raises(QueryError, match="the box ends at y = 0, before it begins at 1"):
        atlas.points("flat", box=[(0, 1), (1, 0)])
    wrong: list[dict[str, Any]] = [{"max_points": -1}, {"limit": -1}, {"offset": -1}]
    for options in wrong:
        with pytest.raises(QueryError, match=f"{next(iter(options))} is -1, expected 0 or more"):
            atlas.points("flat", **options)


def test_failed_and_dropped_maps_have_no_points(tmp_path: Path) -> None:
    build_maps(tmp_path)
    add_map_row(tmp_path, "flat", 0, "dropped", 9, reason="not wanted")
    with Atlas(str(tmp_path)) as opened:
        with pytest.raises(NotInAtlasError, match=r"flat has no points: it is dropped \(not want"):
            opened.points("flat")
        add_map_row(tmp_path, "grown", 1, "dropped", 9)
        assert opened.points("grown").num_rows == 60
        assert opened.refresh()
        assert opened.points("grown").num_rows == 30


def test_first_points_read_only_their_row_groups(tmp_path: Path) -> None:
    build_maps(tmp_path)
    with Atlas(str(tmp_path)) as opened:
        expected = opened.points("flat").slice(0, 8)
        (path,) = (tmp_path / "points").rglob("m-flat-0-*")
        column = pq.ParquetFile(path).metadata.row_group(3).column(5)
        content = bytearray(path.read_bytes())
        start = column.dictionary_page_offset or column.data_page_offset
        content[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
        path.write_bytes(content)
        pages: list[dict[str, Any]] = [{"max_points": 8}, {"limit": 4, "offset": 4}]
        for options in pages:
            found = opened.points("flat", **options)
            assert found.to_pylist() == expected.slice(8 - len(found)).to_pylist()
        with pytest.raises(AtlasFormatError, match="a file of the table points cannot be read"):
            opened.points("flat")


def test_tokens_of_a_sample_are_read_once_a_version(tmp_path: Path) -> None:
    build_maps(tmp_path)
    with Atlas(str(tmp_path)) as opened:
        expected = opened.points("flat")
        deep = opened.points("deep", ["token"])
        for path in (tmp_path / "tokens").rglob("*.parquet"):
            path.rename(path.with_suffix(".away"))
        assert opened.points("flat").equals(expected)
        assert opened.points("deep", ["token"]).equals(deep)
        add_model(tmp_path, "other")  # a new version
        opened.refresh()
        with pytest.raises(AtlasFormatError, match="a file of the table tokens cannot be read"):
            opened.points("flat")


def test_map_of_many_files_equals_the_plain_join(tmp_path: Path) -> None:
    ordinals = range(module.MANY_FILES + 2)
    build_atlas(tmp_path, ordinals=list(ordinals))
    for ordinal in ordinals:
        add_map(tmp_path, "many", ordinal, part=ordinal)
    with Atlas(str(tmp_path)) as opened:
        expected = plain(opened, "many")
        assert opened.points("many").to_pylist() == expected
        assert opened.points("many", limit=9, offset=11).to_pylist() == expected[11:20]
        n = sum(row["rank"] < 5 for row in expected)
        assert opened.points("many", max_points=n).to_pylist() == expected[:n]


def test_points_in_a_compacted_file_are_told_apart_by_map(tmp_path: Path) -> None:
    build_atlas(tmp_path)
    for map_id in ("aa", "bb"):
        add_map_row(tmp_path, map_id, 0, "ok", 1)
        add_map_row(tmp_path, map_id, 1, "ok", 1)
        parts = pa.concat_tables([map_points(map_id, part, part) for part in (0, 1)])
        add_points_file(tmp_path, f"c-2-{map_id}-a.parquet", parts.sort_by("rank"))
    with Atlas(str(tmp_path)) as opened:
        for map_id in ("aa", "bb"):
            expected = plain(opened, map_id)
            assert opened.points(map_id).to_pylist() == expected
            assert opened.points(map_id, max_points=10).to_pylist() == expected[:10]


def test_cross_attention_takes_tokens_of_both_stacks(tmp_path: Path) -> None:
    build_atlas(tmp_path, ordinals=[0])
    add_model(tmp_path, "x--cross", query_model="x--decoder", key_model="tiny")
    add_shard(tmp_path, 0, model="x--cross", tables=("queries", "keys"))
    at = positions(0)
    words = {**at, "token": [f"d{n}" for n in at["position"]], "is_special": [False] * 15}
    add_file(tmp_path, "tokens", "s-tinyx0-2-a.parquet", words, {"model": "x--decoder"})
    add_map(tmp_path, "cross", model="x--cross")
    with Atlas(str(tmp_path)) as opened:
        for row in opened.points("cross").to_pylist():
            side = "d" if row["kind"] == "query" else "t"
            assert row["token"] == f"{side}{row['position']}"
        found = opened.points("cross", filters=[Filter("token", "prefix", "d")])
        assert set(found["kind"].to_pylist()) == {"query"}


def test_positions_without_a_token_have_null(tmp_path: Path) -> None:
    build_atlas(tmp_path, ordinals=[0])
    add_map(tmp_path, "near")
    rows = map_points("far", 0, 0)
    ids = np.where(rows["position"].to_numpy() > 3, sequence_id(9, 9), rows["sequence_id"])
    far = rows.set_column(3, "sequence_id", pa.array(ids))
    far = far.set_column(4, "position", pa.array(rows["position"].to_numpy() * 2))
    add_points_file(tmp_path, "m-far-0-a.parquet", far.cast(rows.schema))
    add_map_row(tmp_path, "far", 0, "ok", 1)
    with Atlas(str(tmp_path)) as opened:
        expected = plain(opened, "far")
        assert opened.points("far").to_pylist() == expected
        assert {row["token"] for row in expected} == {None, "t0", "t2", "t4", "t6"}


def test_tokens_are_found_where_positions_have_gaps(tmp_path: Path) -> None:
    build_atlas(tmp_path, ordinals=[0])
    add_map(tmp_path, "flat")
    at = {name: values[1::2] for name, values in positions(1).items()}
    words = {**at, "token": [f"g{n}" for n in at["position"]], "is_special": [False] * 7}
    add_shard(tmp_path, 1, tables=("queries", "keys"))
    add_file(tmp_path, "tokens", "s-tinyx0-2-a.parquet", words, {"model": "tiny"})
    add_map(tmp_path, "gaps", 1)
    with Atlas(str(tmp_path)) as opened:
        expected = plain(opened, "gaps")
        assert opened.points("gaps").to_pylist() == expected
        assert sum(row["token"] is None for row in expected) == 16


def test_points_are_read_through_an_object_store_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`file://` stands in for `s3://`: both go through delta-rs's own store."""
    build_maps(tmp_path)
    original = module.map_files

    def remote(*arguments: Any) -> tuple[pa.Table, bool]:
        files, is_shared = original(*arguments)
        paths = [f"file://{path}" for path in files["path"].to_pylist()]
        return files.set_column(0, "path", pa.array(paths)), is_shared

    monkeypatch.setattr(module, "map_files", remote)
    with Atlas(str(tmp_path)) as opened:
        assert opened.points("grown").to_pylist() == plain(opened, "grown")
        assert opened.points("flat", max_points=8).num_rows == 8


def test_threads_read_one_atlas(atlas: Atlas) -> None:
    maps = ["flat", "grown", "deep"] * 8
    filters = [Filter("token", "!=", "t2")]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda map_id: atlas.points(map_id, filters=filters), maps))
    for map_id, points in zip(maps, found, strict=True):
        assert points.equals(atlas.points(map_id, filters=filters))
