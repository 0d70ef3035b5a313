"""A check names each file that is damaged, missing, miscounted or unknown, and no other."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from deltalake.transaction import AddAction, RemoveAction

from store.check import check
from store.check_file import Owners, Suspect, check_file
from store.checkpoint import checkpoint
from store.compaction import compact
from store.errors import AtlasNotFoundError
from store.files import filesystem
from store.lake import MAPS, SHARDS, Lake, Unit
from store.schema import TABLES
from store.snapshot import Snapshot, open_table
from store.state import write_state
from store.upkeep import View
from store.upkeep import commit as commit_removals
from store.visibility import read_coverage
from tests.store.lake_fixture import commit as commit_actions
from tests.store.small_shards import add_part, ledger_row, make_lake, write, write_shard

TABLES_OF_VECTORS = ("queries", "keys", "tokens", "sequences")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An atlas with everything that is checked: merged and plain files, a map of two parts."""
    root = tmp_path_factory.mktemp("atlas")
    lake = make_lake(root, 3)
    unit = add_part(root, "aa", 0, commit=False)
    state = write_state(lake.uri, "aa", {})
    lake.commit(MAPS, [Unit({**unit.row, "parameters": f'{{"state": "{state}"}}'}, unit.files)])
    compact(lake.uri)
    lake.commit(SHARDS, [write_shard(root, "later", [(9, 0, 3)])])
    add_part(root, "aa", 1)
    checkpoint(lake.uri)
    lake.commit(SHARDS, [write_shard(root, "last", [(10, 0, 3)])])
    return root


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "atlas")
    return tmp_path / "atlas"


def found(root: Path) -> dict[str, str]:
    return {problem.where: problem.what for problem in check(str(root), threads=2).problems}


def first_file(root: Path, table: str, prefix: str = "") -> Path:
    paths = [Path(path) for path in Snapshot.load(str(root)).files(table)["path"].to_pylist()]
    return next(path for path in paths if path.name.startswith(prefix))


def test_whole_atlas_has_no_problem(whole: Path) -> None:
    report = check(str(whole))
    assert report.problems == []
    assert report.orphans == []
    snapshot = Snapshot.load(str(whole))
    assert report.n_files > sum(len(snapshot.files(t)) for t in ("queries", "keys", "points"))
    assert report.n_rows > 0 < report.n_bytes


def test_no_atlas_is_said(tmp_path: Path) -> None:
    with pytest.raises(AtlasNotFoundError, match="no atlas at"):
        check(str(tmp_path))


def flip(path: Path) -> None:
    """Flip a bit of the values of a file's largest column."""
    columns = pq.read_metadata(path).row_group(0)
    chunks = [columns.column(n) for n in range(columns.num_columns)]
    chunk = max(chunks, key=lambda each: each.total_compressed_size)
    begin = chunk.dictionary_page_offset or chunk.data_page_offset
    flip_at(path, begin + chunk.total_compressed_size - 3)


def flip_at(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("table", "prefix"),
    [
        *((table, prefix) for table in TABLES_OF_VECTORS for prefix in ("c-", "s-")),
        ("points", "m-"),
        ("rejects", "s-"),
    ],
)
def test_flipped_byte_is_found(root: Path, table: str, prefix: str) -> None:
    path = first_file(root, table, prefix)
    flip(path)
    problems = found(root)
    name = str(path.relative_to(root))
    assert problems.pop(name).startswith("damaged")
    assert all(what.startswith("miscounted") for what in problems.values())


@pytest.mark.parametrize("table", ["queries", "tokens"])
def test_flipped_byte_is_found_or_changes_nothing_that_is_read(root: Path, table: str) -> None:
    path = first_file(root, table, "c-")
    plain, data = pq.read_table(path), path.read_bytes()
    view = View.load(str(root), table)
    shards = [{"generation": 0, **row} for row in view.shards.to_pylist()]
    owners = Owners(shards, read_coverage(view.shards))
    row = next(r for r in view.files.to_pylist() if path.name in r["path"])
    partition = tuple((name, row[name]) for name in TABLES[table].partitions)
    ends = row["min_sequence_id"], row["max_sequence_id"]
    file = Suspect(table, row["path"], row["size"], row["n_rows"], partition, *ends)
    system, where = filesystem(str(root))
    n_found = 0
    for place in range(0, len(data), 9):
        flip_at(path, place)
        problems = check_file(system, where, file, owners).problems
        n_found += bool(problems)
        assert problems or pq.read_table(path).equals(plain), place
        path.write_bytes(data)
    assert n_found > len(data) / 9 / 2


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("table", ["queries", "tokens", "shards", "maps", "models"])
@pytest.mark.parametrize(("harm", "said"), [(cut, "damaged"), (remove, "missing")])
def test_cut_and_missing_files_are_named(
    root: Path, table: str, harm: Callable[[Path], None], said: str
) -> None:
    path = _listed_file(root, table)
    harm(path)
    problems = found(root)
    assert problems[str(path.relative_to(root))].startswith(said)


def _listed_file(root: Path, table: str) -> Path:
    return root / table / str(Snapshot.load(str(root)).listed(table)["path"][0])


def test_several_problems_are_named_at_once(root: Path) -> None:
    paths = [first_file(root, "queries", "c-"), first_file(root, "keys", "s-")]
    for path in paths:
        flip(path)
    assert {str(path.relative_to(root)) for path in paths} <= found(root).keys()


def test_counts_that_differ_from_the_ledger_are_named(root: Path) -> None:
    lake = Lake(str(root))
    unit = write_shard(root, "odd", [(20, 0, 1)])
    lake.commit(SHARDS, [Unit({**unit.row, "n_tokens": 7, "n_rejects": 0}, unit.files)])
    lake.commit(
        MAPS,
        [Unit({**(p := add_part(root, "bb", 0, commit=False)).row, "n_keys": 3}, p.files)],
    )
    problems = found(root)
    head = "queries/model=tiny/layer=0/head=1"
    assert problems[head] == "miscounted: 6 rows of shard odd, the ledger says 7"
    assert problems["rejects of shard odd"] == "miscounted: 1 rows, the ledger says 0"
    assert problems["points of map bb, part 0"] == "miscounted: 20 points, the ledger says 13"
    assert len(problems) == 2 + 2 + 1 + 2


def test_shard_without_files_of_a_head_is_named(root: Path) -> None:
    unit = write_shard(root, "thin", [(20, 0, 1)])
    rest = [file for file in unit.files if not file.path.startswith("model=tiny/layer=0/head=0")]
    Lake(str(root)).commit(SHARDS, [Unit(unit.row, rest)])
    assert found(root) == {
        "queries/model=tiny/layer=0/head=0": "miscounted: 0 rows of shard thin, the ledger says 6"
    }


@pytest.mark.parametrize("table", TABLES_OF_VECTORS)
def test_head_or_table_that_lost_all_its_files_is_named(root: Path, table: str) -> None:
    uri = str(root)
    view = View.load(uri, table)
    lost = [
        row
        for row in Snapshot.load(uri).files(table).to_pylist()
        if {row.get("head", 1), row.get("kv_head", 1)} == {1}
    ]
    partitions = TABLES[table].partitions
    removed = [
        RemoveAction(
            row["path"].partition(f"/{table}/")[2],
            True,
            1,
            row["size"],
            {name: str(row[name]) for name in partitions},
        )
        for row in lost
    ]
    commit_removals(view.handle, table, removed)
    where = "/".join([table, *(f"{name}={lost[0][name]}" for name in partitions)])
    assert set(found(root)) == {where}


def test_rows_of_another_shard_and_out_of_order_are_named(root: Path) -> None:
    lake = Lake(str(root))
    unit = write_shard(root, "astray", [(30, 0, 1)])
    lake.commit(SHARDS, [Unit(ledger_row("astray", [(40, 0, 1)], n_sequences=2), unit.files)])
    assert any("sequences that no done shard holds" in what for what in found(root).values())
    columns = {
        "sequence_id": [50 << 32] * 3,
        "position": [2, 1, 0],
        "token": ["a"] * 3,
        "is_special": [False] * 3,
    }
    file = write(root, "tokens", "s-back-1-a.parquet", {"model": "tiny"}, columns)
    lake.commit(SHARDS, [Unit(ledger_row("back", [(50, 0, 0)]), [file])])
    name = f"tokens/{file.path}"
    assert found(root)[name] == "damaged: its rows are not sorted by sequence and position"


def test_unknown_names_and_orphans_are_told_apart(root: Path) -> None:
    path = first_file(root, "tokens", "s-")
    folder = root / "tokens" / "model=tiny"
    for name in ("foreign.parquet", "s-killed-1-aa.parquet", "s-new-1-aa.parquet"):
        shutil.copy(path, folder / name)
    past = path.stat().st_mtime - 90_000
    os.utime(folder / "s-killed-1-aa.parquet", (past, past))
    size = (folder / "foreign.parquet").stat().st_size
    add = AddAction(
        "model=tiny/foreign.parquet", size, {"model": "tiny"}, 0, True, '{"numRecords": 12}'
    )
    commit_actions(root, "tokens", [add])
    report = check(str(root))
    assert [(p.where, p.what.partition(":")[0]) for p in report.problems] == [
        ("tokens/model=tiny/foreign.parquet", "unknown")
    ]
    assert report.orphans == ["tokens/model=tiny/s-killed-1-aa.parquet"]


@pytest.mark.parametrize(
    ("table", "pattern", "harm"),
    [
        ("queries", "*.json", cut),
        ("shards", "*.json", cut),
        ("maps", "*.json", remove),
        ("keys", "*.checkpoint.parquet", cut),
        ("files", "_last_checkpoint", cut),
    ],
)
def test_damaged_log_and_checkpoint_are_named(
    root: Path, table: str, pattern: str, harm: Callable[[Path], None]
) -> None:
    if table == "maps":
        add_part(root, "cc", 0)
        add_part(root, "dd", 0)
        path = sorted((root / table / "_delta_log").glob(pattern))[-2]
    else:
        path = sorted((root / table / "_delta_log").glob(pattern))[-1]
    harm(path)
    problems = found(root)
    name = str(path.relative_to(root))
    assert problems[name].startswith("missing" if harm is remove else "damaged")


def test_damage_of_one_table_does_not_hide_that_of_another(root: Path) -> None:
    log = sorted((root / "measures" / "_delta_log").glob("*.json"))[-1]
    log.write_text("}{")
    for path in (root / "measures" / "_delta_log").glob("*checkpoint*"):
        path.unlink()
    path = first_file_of_damaged(root)
    flip(path)
    problems = found(root)
    assert str(log.relative_to(root)) in problems
    assert str(path.relative_to(root)) in problems


def first_file_of_damaged(root: Path) -> Path:
    paths = open_table(str(root), "queries").file_uris()
    return next(Path(path) for path in sorted(paths) if "/s-" in path)


def test_damaged_and_missing_states_are_named(root: Path) -> None:
    path = next((root / "_state" / "aa").iterdir())
    cut(path)
    assert "is damaged" in found(root)["_state/aa"]
    path.unlink()
    assert "is missing" in found(root)["_state/aa"]
