"""A thousand wrong descriptions of files are offered to a commit, and no log is touched by one."""

import random
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from store.errors import CommitError
from store.files import WrittenFile, partition_folder
from store.lake import MAPS, SHARDS, Lake, Ledger, Unit
from store.schema import TABLES
from store.snapshot import Snapshot
from tests.faults.small_shards import make_map, make_unit

N_OFFERS = 1000

Change = Callable[[random.Random, WrittenFile, Path], WrittenFile]

NO_TEXTS = ("", " ", "tiny ", "TINY/", "a/b", "..", "../tiny", "ti%6ey", "tïny", "\u0661", "a\0b")
NO_NUMBERS = (
    "",
    "-1",
    "00",
    "+1",
    "1.0",
    "1e0",
    " 1",
    "\u0661",
    "x",
    "0x1",
    str(1 << 31),
    "9" * 400,
)
NO_COUNTS = (0, -1, 1 << 63, 10**40, 2.0, True, None, "6", float("nan"), -(1 << 63))
NO_NAMES = (
    "{own}.tmp",
    "{own}\n",
    "./{own}",
    "{own}/",
    "{own}/{own}",
    " {own}",
    "S{own}",
    "part-00000-{own}",
    "s-a000.parquet",
    "s-a000-1-zz.csv",
    "s-a000-x-00.parquet",
    "s-a0000-1-00.parquet",
    "s-a001-1-00.parquet",
    "c-1-00.parquet",
    "m-9f-1-00.parquet",
    "m-9f-0-00-00.parquet",
    "%73{own}",
    "",
)


def wrong_count(rng: random.Random, file: WrittenFile, _: Path) -> WrittenFile:
    number: Any = rng.choice([*NO_COUNTS, file.n_rows + 1, file.n_rows - 1])
    return replace(file, n_rows=number)


def wrong_size(rng: random.Random, file: WrittenFile, _: Path) -> WrittenFile:
    number: Any = rng.choice([*NO_COUNTS, file.size + 1, file.size - 1])
    return replace(file, size=number)


def wrong_range(rng: random.Random, file: WrittenFile, _: Path) -> WrittenFile:
    first, last = file.first_sequence_id, file.last_sequence_id
    wrong: list[Any] = [(5, 2), (-1, last), (first, 1 << 70), (None, 7), (first, "9"), (0.5, last)]
    low, high = rng.choice(wrong)
    return replace(file, first_sequence_id=low, last_sequence_id=high)


def wrong_value(rng: random.Random, file: WrittenFile, _: Path) -> WrittenFile:
    """A value of the partition that is not canonical, in the folder that it names."""
    if not file.partition:
        return replace(file, partition=(("model", rng.choice(NO_TEXTS)),))
    at = rng.randrange(len(file.partition))
    values = list(file.partition)
    column = values[at][0]
    wrong: Any = rng.choice([None, 1, b"1", *(NO_TEXTS if column == "model" else NO_NUMBERS)])
    values[at] = (column, wrong)
    name = file.path.rpartition("/")[2]
    return replace(file, partition=tuple(values), path=partition_folder(values) + name)


def wrong_keys(rng: random.Random, file: WrittenFile, _: Path) -> WrittenFile:
    """Keys of another table, too few, too many, in another order or twice."""
    own = file.partition
    others: list[Any] = [
        (*own, ("part", "0")),
        (*own, *own, ("model", "tiny")),
        (("Model", "tiny"), *own[1:]),
        (("", ""), *own),
        own[::-1] if len(own) > 1 else (("row", "1"),),
        own[1:] if own else (("head", "0"),),
    ]
    values = rng.choice(others)
    path = partition_folder(values) + file.path.rpartition("/")[2]
    return replace(file, partition=values, path=rng.choice([path, file.path]))


def wrong_folder(rng: random.Random, file: WrittenFile, root: Path) -> WrittenFile:
    """A path that leads elsewhere, or here by a detour."""
    folder, _, name = file.path.rpartition("/")
    other = rng.choice([table for table in TABLES if table != file.table])
    paths: list[Any] = [
        f"../{file.table}/{file.path}",
        f"../{other}/{file.path}",
        f"/{file.path}",
        str(root / file.table / file.path),
        f"{(root / file.table).as_uri()}/{file.path}",
        f"s3://bucket/{file.path}",
        f"{folder}//{name}",
        f"{folder}/./{name}",
        f"{folder}/x/../{name}",
        f"model=other/{name}",
        f"_delta_log/{name}",
        file.path.replace("/", "\\") + "\\",
        file.path + "?versionId=1",
        None,
        7,
        file.path.encode(),
    ]
    return replace(file, path=rng.choice(paths))


def wrong_name(rng: random.Random, file: WrittenFile, root: Path) -> WrittenFile:
    """A name that readers do not know, or another owner's, under which the file even lies."""
    folder, _, name = file.path.rpartition("/")
    wrong = rng.choice(NO_NAMES).format(own=name)
    path = "/".join([folder, wrong]) if folder else wrong
    target = root / file.table / path
    if rng.random() < 0.5 and wrong and "/" not in wrong:
        shutil.copyfile(root / file.table / file.path, target)
    return replace(file, path=path)


def wrong_table(rng: random.Random, file: WrittenFile, root: Path) -> WrittenFile:
    """Another table's file, which may even lie there."""
    tables = [*TABLES, "nothing", "", "../queries", "Queries"]
    table = rng.choice([other for other in tables if other != file.table])
    if table in TABLES and rng.random() < 0.5:
        (root / table / file.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / file.table / file.path, root / table / file.path)
    return replace(file, table=table)


def wrong_bytes(rng: random.Random, file: WrittenFile, root: Path) -> WrittenFile:
    """Another file lies there: cut off, empty, a folder, or with a broken footer."""
    target = root / file.table / file.path
    whole = target.read_bytes()
    kind = rng.choice(["cut", "empty", "gone", "folder", "tail", "length"])
    target.unlink()
    if kind == "folder":
        target.mkdir()
    elif kind != "gone":
        pieces = {
            "cut": whole[: len(whole) // 2],
            "empty": b"",
            "tail": whole[:-4] + b"PAR2",
            "length": whole[:-8] + b"\xff\xff\xff\x7f" + whole[-4:],
        }
        target.write_bytes(pieces[kind])
    return file


CHANGES: tuple[Change, ...] = (
    wrong_count,
    wrong_size,
    wrong_range,
    wrong_value,
    wrong_keys,
    wrong_folder,
    wrong_name,
    wrong_table,
    wrong_bytes,
)


def offer(rng: random.Random, root: Path, change: Change) -> tuple[Ledger, list[Unit], str]:
    """A unit with one wrong file, in some place among good ones, and a pattern of its path."""
    uri = str(root)
    if rng.random() < 0.2:
        ledger, unit = MAPS, make_map(uri, "9f", "")
    else:
        ledger, unit = SHARDS, make_unit(uri, 0)
    files = list(unit.files)
    at = rng.randrange(len(files))
    files[at] = change(rng, files[at], root)
    wrong = Unit(unit.row, files)
    good = [make_unit(uri, 1)] if ledger is SHARDS and rng.random() < 0.3 else []
    path: object = files[at].path
    named = f"{re.escape(str(path))}|{re.escape(repr(path))}"
    return ledger, rng.sample([wrong, *good], 1 + len(good)), named


def logs(root: Path) -> dict[str, bytes]:
    """Every file of every log."""
    return {str(path): path.read_bytes() for path in root.glob("*/_delta_log/*")}


@pytest.mark.slow
def test_a_thousand_wrong_files_never_reach_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.lake.time.sleep", lambda _: pytest.fail("asked twice"))
    root = tmp_path / "atlas"
    lake = Lake(str(root))
    lake.create()
    before = logs(root)
    for number in range(N_OFFERS):
        rng = random.Random(number)
        change = CHANGES[number % len(CHANGES)]
        ledger, units, named = offer(rng, root, change)
        told = f"offer {number}, {change.__name__}"
        with pytest.raises(CommitError, match=named):
            lake.commit(ledger, units)
            pytest.fail(f"{told}: {units}")
        assert logs(root) == before, told
        if number % 100 == 99:
            for table in TABLES:
                shutil.rmtree(root / table / "model=tiny", ignore_errors=True)
    unit = make_unit(str(root), 5)
    assert lake.commit(SHARDS, [unit]) == [unit]
    good_map = make_map(str(root), "7c", "")
    assert lake.commit(MAPS, [good_map]) == [good_map]
    assert Snapshot.load(str(root)).files("queries")["n_rows"].to_pylist() == [6]


def test_a_file_reported_twice_is_refused(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "atlas"))
    lake.create()
    unit = make_unit(lake.uri, 0)
    with pytest.raises(CommitError, match="reported twice for one unit"):
        lake.commit(SHARDS, [Unit(unit.row, [*unit.files, unit.files[0]])])
    assert lake.commit(SHARDS, [unit]) == [unit]
