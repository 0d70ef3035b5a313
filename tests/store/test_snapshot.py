import os
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, Schema, write_deltalake

from store.errors import AtlasFormatError, AtlasNotFoundError, ConfigError
from store.scan import REPEATED
from store.schema import TABLES, sequence_id
from store.snapshot import FileName, Snapshot, open_table, parse_file_name, table_uri
from tests.store.lake_fixture import (
    N_HEADS,
    N_KV_HEADS,
    N_LAYERS,
    add_file,
    add_map_row,
    add_points,
    add_shard,
    add_shard_row,
    append_rows,
    build_atlas,
    create_tables,
    positions,
)


def names(snapshot: Snapshot, table: str) -> list[str]:
    return [path.rsplit("/", 1)[-1] for path in snapshot.files(table)["path"].to_pylist()]


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    create_tables(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("s-ab1-0-n2.parquet", FileName("shard", "ab1", 0)),
        ("queries/model=s-a/s-ab1-12-n2.parquet", FileName("shard", "ab1", 12)),
        ("m-9f-3-n2.parquet", FileName("map", "9f", 3)),
        ("c-4-1b2c-77.parquet", FileName("compaction", "1b2c-77", 4)),
        ("s-AB-0-n2.parquet", FileName("other")),
        ("s-ab-x-n2.parquet", FileName("other")),
        ("s-ab-0-n2.parquet.tmp", FileName("other")),
        ("part-00000-1f-c000.snappy.parquet", FileName("other")),
        ("", FileName("other")),
    ],
)
def test_file_names_say_who_wrote_them(name: str, expected: FileName) -> None:
    assert parse_file_name(name) == expected


def test_files_of_done_shards_are_listed_with_partitions_and_ranges(tmp_path: Path) -> None:
    snapshot = Snapshot.load(str(build_atlas(tmp_path)))
    files = snapshot.files("queries")
    assert files.num_rows == 2 * N_LAYERS * N_HEADS
    assert snapshot.files("keys").num_rows == 2 * N_LAYERS * N_KV_HEADS
    one = snapshot.files("queries", model="tiny", layer=1, head=3)
    assert one["layer"].type == pa.int32()
    assert one["min_sequence_id"].to_pylist() == [sequence_id(0, 0), sequence_id(1, 0)]
    assert one["max_sequence_id"].to_pylist() == [sequence_id(0, 2), sequence_id(1, 2)]
    assert one["n_rows"].to_pylist() == [15, 15]
    for path, size in zip(one["path"].to_pylist(), one["size"].to_pylist(), strict=True):
        assert Path(path).is_absolute()
        assert Path(path).stat().st_size == size


@pytest.mark.parametrize("status", [None, "planned", "quarantined", "dropped"])
def test_shard_is_hidden_unless_done(tmp_path: Path, status: str | None) -> None:
    build_atlas(tmp_path, ordinals=[0])
    shard = add_shard(tmp_path, 1, status=status)
    hidden = Snapshot.load(str(tmp_path))
    for table in ("queries", "keys", "tokens", "sequences", "rejects"):
        assert shard not in "".join(names(hidden, table)), table
        assert names(hidden, table), table
    add_shard_row(tmp_path, shard, "tiny", 1, "done", 2)
    assert f"s-{shard}-1-n1.parquet" in names(Snapshot.load(str(tmp_path)), "tokens")


def test_half_a_shard_is_invisible(empty: Path) -> None:
    add_shard(empty, 0, status=None, tables=("queries",))
    snapshot = Snapshot.load(str(empty))
    assert snapshot.files("queries").num_rows == 0
    assert snapshot.rows("queries").num_rows > 0


def test_newest_generation_decides_in_any_order_of_writing(empty: Path) -> None:
    for generation, status in [(3, "done"), (1, "planned"), (2, "quarantined")]:
        add_shard_row(empty, "a", "tiny", 0, status, generation)
    for generation, status in [(2, "done"), (10, "dropped"), (9, "done")]:
        add_shard_row(empty, "b", "tiny", 1, status, generation)
    newest = Snapshot.load(str(empty)).newest_shards()
    assert newest["shard_id"].to_pylist() == ["a", "b"]
    assert newest["status"].to_pylist() == ["done", "dropped"]


def test_drop_hides_a_visible_shard_at_once(tmp_path: Path) -> None:
    build_atlas(tmp_path, ordinals=[0])
    assert names(Snapshot.load(str(tmp_path)), "sequences")
    add_shard_row(tmp_path, "tinyx0", "tiny", 0, "dropped", 2)
    snapshot = Snapshot.load(str(tmp_path))
    assert all(not names(snapshot, table) for table in ("queries", "keys", "tokens", "sequences"))


def test_only_parts_of_ok_maps_are_visible(empty: Path) -> None:
    for map_id, part in [("ok", 0), ("ok", 1), ("ok", 2), ("gone", 0), ("gone", 1), ("none", 0)]:
        add_points(empty, map_id, part)
    for part, status in [(0, "ok"), (1, "failed"), (2, "ok")]:
        add_map_row(empty, "ok", part, status, 1)
    add_map_row(empty, "gone", 0, "ok", 1)
    add_map_row(empty, "gone", 1, "ok", 1)
    add_map_row(empty, "gone", 0, "dropped", 2)
    snapshot = Snapshot.load(str(empty))
    assert names(snapshot, "points") == ["m-ok-0-q.parquet", "m-ok-2-q.parquet"]
    assert snapshot.newest_maps()["status"].to_pylist() == ["dropped", "ok", "ok", "failed", "ok"]


def test_compaction_is_visible_and_unknown_names_are_not(empty: Path) -> None:
    add_shard_row(empty, "a", "tiny", 0, "done", 1)
    columns = {**positions(0), "is_special": [False] * 15}
    for name in ("c-1-0a1b.parquet", "s-x.parquet", "part-0.parquet", "m-a-0-b.parquet"):
        add_file(empty, "tokens", name, columns, {"model": "tiny"})
    assert names(Snapshot.load(str(empty)), "tokens") == ["c-1-0a1b.parquet"]


def test_ledger_older_than_a_compaction_is_refused(empty: Path) -> None:
    add_shard_row(empty, "a", "tiny", 0, "done", 1)
    columns = {**positions(0), "is_special": [False] * 15}
    add_file(empty, "tokens", "c-2-0a1b.parquet", columns, {"model": "tiny"})
    with pytest.raises(AtlasFormatError, match="restored from an older copy than the tables"):
        Snapshot.load(str(empty))


@pytest.mark.parametrize(
    ("generation", "status", "file_rows", "is_seen"),
    [
        (1, "done", "[[0, 0, 2]]", True),
        (2, "done", "[[0, 0, 2]]", False),
        (1, "dropped", "[[0, 0, 2]]", False),
        (1, "planned", "[[0, 0, 2]]", False),
        (1, "done", "[[0, 1, 2], [3, 0, 5]]", False),
    ],
)
def test_compaction_counts_while_a_shard_done_before_holds_its_first_sequence(
    empty: Path, generation: int, status: str, file_rows: str, is_seen: bool
) -> None:
    place = {"first_ordinal": 0, "last_ordinal": 3, "last_row": 5, "file_rows": file_rows}
    row = {"shard_id": "a", "model": "tiny", "corpus": "texts", **place}
    append_rows(empty, "shards", [{**row, "status": status, "generation": generation}])
    columns = {**positions(0), "is_special": [False] * 15}
    for model in ("tiny", "other"):
        add_file(empty, "tokens", "c-1-0a1b.parquet", columns, {"model": model})
    files = Snapshot.load(str(empty)).files("tokens")
    assert files["model"].to_pylist() == ["tiny"] * is_seen


def test_snapshot_does_not_change_and_its_version_does(tmp_path: Path) -> None:
    build_atlas(tmp_path, ordinals=[0])
    before = Snapshot.load(str(tmp_path))
    assert before.version == Snapshot.load(str(tmp_path)).version
    add_shard(tmp_path, 1)
    after = Snapshot.load(str(tmp_path))
    assert after.version != before.version
    assert before.files("tokens").num_rows == 1
    assert before.rows("shards").num_rows == 1
    assert after.files("tokens").num_rows == 2


def test_rebuilt_atlas_has_another_version(tmp_path: Path) -> None:
    create_tables(tmp_path / "atlas")
    first = Snapshot.load(str(tmp_path / "atlas")).version
    shutil.rmtree(tmp_path / "atlas")
    create_tables(tmp_path / "atlas")
    assert Snapshot.load(str(tmp_path / "atlas")).version != first


def test_rows_of_small_tables_carry_partition_columns(empty: Path) -> None:
    append_rows(empty, "measures", [{"model": "a", "measure": "entropy", "value": None}])
    append_rows(empty, "measures", [{"model": "b", "measure": "entropy", "value": 0.5}])
    rows = Snapshot.load(str(empty)).rows("measures")
    assert rows.schema.names == TABLES["measures"].schema.names
    assert sorted(rows["model"].to_pylist()) == ["a", "b"]
    for name in TABLES:
        schema = Snapshot.load(str(empty)).rows(name).schema
        assert schema.names == TABLES[name].schema.names
        for field in schema:
            kind = field.type.value_type if field.name in REPEATED.get(name, ()) else field.type
            assert kind == TABLES[name].schema.field(field.name).type


def test_files_without_statistics_have_null_ranges(empty: Path) -> None:
    columns = {**positions(0), "is_special": [False] * 15}
    add_shard_row(empty, "a", "tiny", 0, "done", 1)
    add_file(empty, "tokens", "s-a-1-a.parquet", columns, {"model": "tiny"}, statistics=False)
    files = Snapshot.load(str(empty)).files("tokens")
    assert files["min_sequence_id"].to_pylist() == [None]
    assert files["max_sequence_id"].to_pylist() == [None]


@pytest.mark.parametrize("folder", ["at las ü", "100% a+b#c", "w{1}*?", "layer=7"])
def test_any_folder_name_works(tmp_path: Path, folder: str) -> None:
    root = build_atlas(tmp_path / folder, ordinals=[0])
    snapshot = Snapshot.load(str(root))
    assert Path(snapshot.files("tokens")["path"][0].as_py()).is_file()
    assert snapshot.rows("shards").num_rows == 1


def test_file_uri_and_relative_path_name_the_same_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_atlas(tmp_path / "ä b", ordinals=[0])
    monkeypatch.chdir(tmp_path)
    expected = Snapshot.load(str(tmp_path / "ä b")).files("tokens")
    for uri in ("ä b", "./ä b/", (tmp_path / "ä b").as_uri()):
        assert Snapshot.load(uri).files("tokens").equals(expected), uri
    assert table_uri("s3://bucket/at/", "keys") == "s3://bucket/at/keys"


@pytest.mark.parametrize("part", ["%20", "[", "|", "\t"])
def test_folder_that_delta_cannot_name_is_refused(tmp_path: Path, part: str) -> None:
    with pytest.raises(ConfigError, match="choose a folder without " + re.escape(repr(part))):
        Snapshot.load(str(tmp_path / f"a{part}b"))


def test_missing_atlas_says_to_run(tmp_path: Path) -> None:
    with pytest.raises(AtlasNotFoundError, match=r"no atlas at .*build one with `qkatlas run`"):
        Snapshot.load(str(tmp_path / "nothing"))
    (tmp_path / "photo.jpg").touch()
    (tmp_path / "shards" / "_delta_log").mkdir(parents=True)
    with pytest.raises(AtlasNotFoundError, match="no atlas at"):
        Snapshot.load(str(tmp_path))


def test_folder_of_other_files_is_refused(empty: Path) -> None:
    shutil.rmtree(empty / "keys")
    (empty / "keys").mkdir()
    (empty / "keys" / "house.key").touch()
    with pytest.raises(AtlasFormatError, match=r"keys is not a Delta table"):
        Snapshot.load(str(empty))


def test_foreign_delta_table_is_refused(empty: Path) -> None:
    shutil.rmtree(empty / "files")
    write_deltalake(str(empty / "files"), pa.table({"a": [1]}))
    with pytest.raises(AtlasFormatError, match=r"files is no table of an atlas: .*qkatlas.format"):
        Snapshot.load(str(empty))


def test_newer_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    create_tables(tmp_path, version="3")
    with pytest.raises(AtlasFormatError, match=r"has format 3, .* up to 2: upgrade QK Atlas"):
        open_table(str(tmp_path), "shards")


def test_damaged_log_is_named(empty: Path) -> None:
    log = empty / "maps" / "_delta_log" / "00000000000000000000.json"
    log.write_text(log.read_text()[:40] + "}garbage")
    with pytest.raises(AtlasFormatError, match=r"log of .*maps is damaged \("):
        Snapshot.load(str(empty))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("drop", r"maps has no column seed \(int64\)"),
        ("type", r"column seed of .*maps has type string, expected int64"),
    ],
)
def test_other_columns_are_refused(empty: Path, change: str, message: str) -> None:
    schema = TABLES["maps"].schema
    at = schema.get_field_index("seed")
    other = schema.remove(at) if change == "drop" else schema.set(at, pa.field("seed", pa.string()))
    replace_table(empty, "maps", other, [])
    with pytest.raises(AtlasFormatError, match=message):
        Snapshot.load(str(empty))


def test_other_partitions_are_refused(empty: Path) -> None:
    replace_table(empty, "queries", TABLES["queries"].schema, ["model", "layer"])
    with pytest.raises(AtlasFormatError, match=r"partitioned by \('model', 'layer'\), expected"):
        Snapshot.load(str(empty))


def test_more_columns_are_accepted(empty: Path) -> None:
    schema = TABLES["files"].schema.append(pa.field("note", pa.string()))
    replace_table(empty, "files", schema, [])
    assert Snapshot.load(str(empty)).rows("files").schema.names == TABLES["files"].schema.names


def replace_table(root: Path, name: str, schema: pa.Schema, partitions: list[str]) -> None:
    shutil.rmtree(root / name)
    DeltaTable.create(
        str(root / name),
        Schema.from_arrow(schema),
        partition_by=partitions,
        configuration={"qkatlas.format": "1"},
        raise_if_key_not_exists=False,
    )


def test_missing_file_of_a_ledger_is_named(tmp_path: Path) -> None:
    build_atlas(tmp_path, ordinals=[0])
    for path in (tmp_path / "shards").glob("*.parquet"):
        os.remove(path)
    with pytest.raises(AtlasFormatError, match="a file of the table shards cannot be read"):
        Snapshot.load(str(tmp_path)).newest_shards()
