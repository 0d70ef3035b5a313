from collections.abc import Iterator
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from store import export
from store.atlas import Atlas
from store.errors import AtlasFormatError, ConfigError, NotInAtlasError
from store.export import SCHEMA, Format, export_points
from tests.store.map_fixture import build_maps

PLAIN = f"""
SELECT {", ".join(SCHEMA.names)} FROM points JOIN tokens USING (model, sequence_id, position)
JOIN (SELECT map_id, part, method FROM maps) USING (map_id, part)
WHERE map_id IN ('grown', 'deep')
ORDER BY map_id DESC, part, rank
"""
"""The export by one join, and in its order."""

MAPS = ["grown", "deep"]


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atlas]:
    with Atlas(str(build_maps(tmp_path_factory.mktemp("lake")))) as opened:
        yield opened


@pytest.fixture(params=[20, 65_536])
def batch_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "BATCH_ROWS", request.param)


@pytest.mark.usefixtures("batch_rows")
def test_parquet_reads_in_pyarrow_and_polars(atlas: Atlas, tmp_path: Path) -> None:
    target = tmp_path / "points.parquet"
    assert export_points(atlas, MAPS, target, "parquet") == 90
    found, expected = pq.read_table(target), atlas.sql(PLAIN)
    assert found.schema == SCHEMA
    assert found.to_pylist() == expected.to_pylist()
    assert pl.read_parquet(target).rows() == [tuple(row.values()) for row in expected.to_pylist()]
    assert pq.ParquetFile(target).metadata.row_group(0).column(0).compression == "ZSTD"


@pytest.mark.usefixtures("batch_rows")
def test_duckdb_file_holds_the_table_points(atlas: Atlas, tmp_path: Path) -> None:
    target = tmp_path / "points.duckdb"
    assert export_points(atlas, MAPS, target, "duckdb") == 90
    with duckdb.connect(str(target), read_only=True) as connection:
        found = connection.execute("FROM points").to_arrow_table()
    assert found.to_pylist() == atlas.sql(PLAIN).to_pylist()
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.usefixtures("batch_rows")
def test_csv_reads_in_pandas_and_duckdb(atlas: Atlas, tmp_path: Path) -> None:
    target = tmp_path / "points.csv"
    assert export_points(atlas, MAPS, target, "csv") == 90
    expected = atlas.sql(PLAIN)
    found = pd.read_csv(target)
    assert list(found.columns) == SCHEMA.names
    for name in ("map_id", "layer", "sequence_id", "position", "rank", "token", "is_special"):
        assert found[name].tolist() == expected[name].to_pylist()
    assert found["x"].astype("float32").tolist() == expected["x"].to_pylist()
    assert found["z"].isna().tolist() == expected["z"].is_null().to_pylist()
    counted = duckdb.sql(f"SELECT count(*), count(z) FROM read_csv('{target}')").fetchall()
    assert counted == [(90, 30)]


def test_existing_target_is_left_alone(atlas: Atlas, tmp_path: Path) -> None:
    target = tmp_path / "points.csv"
    target.write_text("mine", "utf-8")
    with pytest.raises(ConfigError, match=r"points\.csv exists already: remove it"):
        export_points(atlas, MAPS, target, "csv")
    assert target.read_text("utf-8") == "mine"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("format", ["parquet", "duckdb", "csv"])
def test_failed_export_leaves_nothing(
    atlas: Atlas, tmp_path: Path, format: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> pa.Table:
        raise AtlasFormatError("no tokens")

    monkeypatch.setattr(export, "add_tokens", fail)
    with pytest.raises(AtlasFormatError, match="no tokens"):
        export_points(atlas, MAPS, tmp_path / "points", format)
    assert list(tmp_path.iterdir()) == []


def test_wrong_export_is_refused_before_anything_is_written(atlas: Atlas, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no format xlsx: use parquet, duckdb, csv"):
        export_points(atlas, MAPS, tmp_path / "a", "xlsx")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="an export needs at least one map"):
        export_points(atlas, [], tmp_path / "a", "csv")
    with pytest.raises(ConfigError, match=r"there is no folder .*none for a: make it first"):
        export_points(atlas, MAPS, tmp_path / "none" / "a", "csv")
    with pytest.raises(NotInAtlasError, match="no map fat"):
        export_points(atlas, ["flat", "fat"], tmp_path / "a", "csv")
    assert list(tmp_path.iterdir()) == []
