"""A run on the store alone, as a driver makes it, that says the name of each step it comes to."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from deltalake import DeltaTable, write_deltalake

from store import lake as store_lake
from store import state as store_state
from store.files import WrittenFile, delete_files, filesystem
from store.lake import MAPS, SHARDS, Lake, Row
from store.offered import check_files
from store.schema import TABLES
from store.snapshot import Snapshot
from store.state import write_state
from tests.faults.small_shards import (
    Reach,
    make_map,
    make_unit,
    shard_of,
    shard_row,
    walk_on,
)

N_SHARDS = 3
MAP = "9f"
FILE = {"corpus": "texts", "source": "0.txt", "bytes": 9, "fingerprint": "f", "n_rows": 2}

_FILE_STATES = ("opened", "half-written", "closed")
_CAPTURE = [
    f"{table}: file {state}"
    for table in ("queries", "keys", "tokens", "sequences", "rejects")
    for state in _FILE_STATES
]
_CHECK = ["files: before check", "files: after check"]


def _around(what: str, *tables: str) -> list[str]:
    return [f"{table}: {when} {what}" for table in tables for when in ("before", "after")]


_COMMIT = [*_CHECK, *_around("commit", *SHARDS.data_tables), *_around("rows", "shards")]

STEPS = {
    "create": _around("creation", *TABLES),
    "plan": _around("rows", "files", "shards"),
    "two shards": [*_CAPTURE, *_CAPTURE, *_COMMIT],
    "a straggler": [
        *_CAPTURE,
        *_CAPTURE,
        *_COMMIT,
        *_around("deletion", *sorted(SHARDS.data_tables)),
    ],
    "a map": [
        *("state: before", "state: opened", "state: half-written", "state: after"),
        *(f"points: file {state}" for state in _FILE_STATES),
        *(*_CHECK, *_around("commit", "points"), *_around("rows", "maps")),
    ],
}
"""Stages of a run, and the steps that each comes to, in order, when nothing disturbs it."""


def run_stage(uri: str, stage: str, reach: Reach = walk_on) -> None:
    """Do what is left to do of a stage, as a driver does it, on what the earlier ones left.

    In `a straggler` a shard that another driver was faster with comes beside the third one, so
    that the run also deletes files of its own.
    """
    lake = Lake(uri)
    if stage == "create":
        lake.create()
    elif stage == "plan":
        lake.append("files", lambda _: _missing(uri, "files", [{**FILE, "ordinal": 0}]), "files")
        lake.append("shards", lambda _: _missing(uri, "shards", _plan()), SHARDS.plan)
    elif stage == "two shards":
        units = [make_unit(uri, ordinal, 1, reach) for ordinal in _waiting(uri) if ordinal < 2]
        lake.commit(SHARDS, units)
    elif stage == "a straggler" and 2 in _waiting(uri):
        lake.commit(SHARDS, [make_unit(uri, ordinal, 2, reach) for ordinal in (2, 0)])
    elif stage == "a map" and not len(Snapshot.load(uri).rows("maps")):
        state = write_state(uri, MAP, {"mean": np.arange(4.0)})
        lake.commit(MAPS, [make_map(uri, MAP, state, reach)])


def _plan() -> list[Row]:
    return [shard_row(ordinal, "planned") for ordinal in range(N_SHARDS)]


def _missing(uri: str, table: str, rows: list[Row]) -> list[Row]:
    return [] if len(Snapshot.load(uri).rows(table)) else rows


def _waiting(uri: str) -> list[int]:
    newest = Snapshot.load(uri).newest_shards().to_pylist()
    done = {row["shard_id"] for row in newest if row["status"] == "done"}
    return [ordinal for ordinal in range(N_SHARDS) if shard_of(ordinal) not in done]


@contextmanager
def told_steps(reach: Reach) -> Iterator[None]:
    """Let the store say where it is: around each creation, commit, append, check and deletion."""

    def around(name_of: Callable[..., str], what: str, original: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            name = name_of(*arguments, **named)
            reach(f"{name}: before {what}")
            result = original(*arguments, **named)
            reach(f"{name}: after {what}")
            return result

        return call

    def delete_each(uri: str, files: list[WrittenFile]) -> None:
        for file in files:
            delete_one(uri, [file])

    delete_one = around(lambda _, files: str(files[0].table), "deletion", delete_files)
    creation = around(lambda *_, **named: str(named["name"]), "creation", DeltaTable.create)
    commit = around(_table_name, "commit", DeltaTable.create_write_transaction)
    check = around(lambda *_: "files", "check", check_files)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DeltaTable, "create", creation)
        patch.setattr(DeltaTable, "create_write_transaction", commit)
        patch.setattr(store_lake, "write_deltalake", around(_table_name, "rows", write_deltalake))
        patch.setattr(store_lake, "check_files", check)
        patch.setattr(store_lake, "delete_files", delete_each)
        patch.setattr(
            store_state, "filesystem", lambda uri: (_SlowSystem(reach, filesystem(uri)[0]), uri)
        )
        yield


def _table_name(handle: DeltaTable, *_: object, **__: object) -> str:
    return str(handle.metadata().name)


class _SlowSystem:
    """A file system whose one stream says when it is opened and half written."""

    def __init__(self, reach: Reach, where: Any) -> None:
        self._reach, self._where = reach, where

    def create_dir(self, path: str, recursive: bool) -> None:
        self._reach("state: before")
        self._where.create_dir(path, recursive=recursive)

    @contextmanager
    def open_output_stream(self, path: str) -> Iterator["_SlowStream"]:
        with self._where.open_output_stream(path) as stream:
            self._reach("state: opened")
            yield _SlowStream(self._reach, stream)
        self._reach("state: after")


class _SlowStream:
    def __init__(self, reach: Reach, stream: Any) -> None:
        self._reach, self._stream = reach, stream

    def write(self, content: bytes) -> None:
        half = len(content) // 2
        self._stream.write(content[:half])
        self._stream.flush()
        self._reach("state: half-written")
        self._stream.write(content[half:])
