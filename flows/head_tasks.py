"""What a Ray task does to map one head: read its vectors, make or extend maps, write points."""

from dataclasses import asdict, dataclass
from functools import lru_cache
from json import dumps, loads
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from flows.growth import settings_of
from flows.samples import HeadJob
from pipeline.maps import HeadMap, extend_map, make_maps, prime_umap
from store.atlas import Atlas
from store.encoding import open_writer
from store.errors import ObjectStoreError, StoreAccessError
from store.files import WrittenFile, map_file_name, partition_folder
from store.outgoing import write_whole
from store.schema import TABLES
from store.state import read_state, write_state
from store.vectors import HeadVectors, Ints

Row = dict[str, Any]

COMPILED = ("umap",)
"""Methods whose library compiles numba functions when it is first used."""


@dataclass(frozen=True)
class HeadTask:
    """A head to work on, in an atlas."""

    uri: str
    version: str
    """Of the atlas when the task was made; an older copy in the worker is read again."""
    job: HeadJob

    @property
    def place(self) -> str:
        """The head in words."""
        return f"{self.job.model}, layer {self.job.layer}, head {self.job.head}"


@dataclass(frozen=True)
class MadeMap:
    """A map's ledger row, without generation, and its points, uncommitted."""

    row: Row
    files: list[WrittenFile]


@lru_cache(maxsize=1)
def open_atlas(uri: str, version: str) -> Atlas:
    """The atlas as a worker process keeps it from task to task, read again for a new version."""
    torch.set_num_threads(1)  # heads run beside each other, a core each
    return Atlas(uri)


def prime_maps(_: None) -> None:
    """Compile once what maps need of numba, for all workers that share NUMBA_CACHE_DIR."""
    prime_umap()


def map_head(task: HeadTask) -> list[MadeMap]:
    """Fit a head's maps, or add new sequences to them, and write their points."""
    atlas, job = open_atlas(task.uri, task.version), task.job
    head = _read(atlas, job, job.sample.sequence_ids)
    if job.growths:
        made = [_extend(task, index, head) for index in range(len(job.specs))]
    else:
        heldout = _read(atlas, job, job.heldout) if len(job.heldout) else None
        made = make_maps(head, job.specs, heldout)
    return [_keep_map(task, index, head, found) for index, found in enumerate(made)]


def _read(atlas: Atlas, job: HeadJob, sequence_ids: Ints) -> HeadVectors:
    return atlas.read_head(job.model, job.layer, job.head, sequence_ids.tolist())


def _extend(task: HeadTask, index: int, new: HeadVectors) -> HeadMap | Exception:
    """New sequences on one of the maps; a map that fails does not spoil the others."""
    fit = task.job.growths[index].fit
    try:
        state = read_state(task.uri, fit["map_id"], loads(fit["parameters"])["state"])
        return extend_map(new, task.job.specs[index], loads(fit["joint"]), state)
    except (ObjectStoreError, StoreAccessError):
        raise  # no map's fault: the task is done again, or the run ends
    except Exception as error:
        return error


def describe_failed_maps(task: HeadTask, reason: str) -> list[Row]:
    """Ledger rows of all maps of a head that could not even be begun."""
    return [_failed_row(task, index, reason) for index in range(len(task.job.specs))]


def _failed_row(task: HeadTask, index: int, reason: str) -> Row:
    spec = task.job.specs[index]
    return {
        **_map_row(task, index),
        "n_queries": 0,
        "n_keys": 0,
        "status": "failed",
        "reason": reason[:2000],
        "parameters": dumps({"settings": settings_of(spec)}),
        "joint": dumps({"method": spec.joint}),
        "backend": "",
        "seconds": 0.0,
    }


def _map_row(task: HeadTask, index: int) -> Row:
    """What a map's ledger row says before the map is made."""
    job, spec = task.job, task.job.specs[index]
    return {
        "map_id": job.map_ids[index],
        "part": job.growths[index].part if job.growths else 0,
        "model": job.model,
        "layer": job.layer,
        "head": job.head,
        "method": spec.method,
        "dims": spec.dims,
        "seed": spec.seed,
        "replaces": job.replaces[index],
    }


def _keep_map(task: HeadTask, index: int, head: HeadVectors, made: HeadMap | Exception) -> MadeMap:
    """Write a map's points and state; the ledger row makes both count."""
    if isinstance(made, Exception):
        return MadeMap(_failed_row(task, index, f"{type(made).__name__}: {made}"), [])
    kept = {
        "n_queries": len(head.queries),
        "n_keys": len(head.keys),
        "status": "ok",
        "parameters": dumps(made.parameters | _record(task, index, made)),
        "joint": dumps(made.joint),
        "backend": made.backend,
        "seconds": made.seconds,
        "seed_disparity": made.seed_disparity,
        **asdict(made.fidelity),
        **_heldout_columns(made),
    }
    row = _map_row(task, index) | kept
    return MadeMap(row, [_write_points(task, row["map_id"], _point_rows(task, index, head, made))])


def _record(task: HeadTask, index: int, made: HeadMap) -> Row:
    """What the next run asks the ledger: whose map it is, what it covers, where its state lies."""
    job, spec = task.job, task.job.specs[index]
    record = {
        "settings": settings_of(spec),
        "max_tokens": spec.max_tokens,
        "capture": job.sample.capture,
        "stability": spec.stability,
    }
    if job.growths:
        growth = job.growths[index]
        return record | {"sample": growth.sample, "displaced": growth.displaced}
    state = write_state(task.uri, job.map_ids[index], made.state)
    return record | {"sample": job.sample.digest, "displaced": 0, "state": state}


def _heldout_columns(made: HeadMap) -> Row:
    """Fidelity over held-out sequences, as far as the table has columns for it."""
    found = asdict(made.heldout) if made.heldout else {}
    columns = {f"heldout_{name}": value for name, value in found.items()}
    return {name: columns[name] for name in TABLES["maps"].schema.names if name in columns}


def _write_points(task: HeadTask, map_id: str, rows: pa.Table) -> WrittenFile:
    """One Parquet file of points."""
    job = task.job
    partition = (("model", job.model), ("layer", str(job.layer)), ("head", str(job.head)))
    name = map_file_name(map_id, rows["part"][0].as_py())
    path = partition_folder(partition) + name

    def write(stream: Any) -> None:
        with open_writer("points", stream) as writer:
            writer.write_table(rows, row_group_size=16_384)

    size = write_whole(task.uri, f"points/{path}", write)
    return WrittenFile("points", path, partition, len(rows), size)


def _point_rows(task: HeadTask, index: int, head: HeadVectors, made: HeadMap) -> pa.Table:
    """The points of a map or of a part of it, sorted by drawing order."""
    row = _map_row(task, index)
    n_queries, (n, dims) = len(head.queries), made.coordinates.shape
    rank = _spread_rank(made.rank, task.job.growths[index].fit) if row["part"] else made.rank
    columns = {
        "map_id": pa.array([row["map_id"]] * n),
        "part": pa.array(np.full(n, row["part"], np.int32)),
        "kind": pa.array(["query"] * n_queries + ["key"] * (n - n_queries)),
        "sequence_id": pa.array(_both(head, "sequence_id")),
        "position": pa.array(_both(head, "position").astype(np.int32)),
        "x": pa.array(made.coordinates[:, 0]),
        "y": pa.array(made.coordinates[:, 1]),
        "z": pa.array(made.coordinates[:, 2]) if dims == 3 else pa.nulls(n, pa.float32()),
        "rank": pa.array(rank.astype(np.int32)),
        "distortion": pa.array(made.distortion, mask=np.isnan(made.distortion)),
    }
    schema = TABLES["points"].file_schema.remove_metadata()
    table = pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)
    return table.take(pa.array(np.argsort(rank, kind="stable")))


def _spread_rank(rank: NDArray[Any], fit: Row) -> NDArray[Any]:
    """A part's drawing order, stretched over that of the fit: a prefix holds a like share of both.

    Args:
        rank: a permutation of 0 … n − 1.
        fit: ledger row of the fit.
    """
    return rank.astype(np.int64) * int(fit["n_queries"] + fit["n_keys"]) // len(rank)


def _both(head: HeadVectors, name: str) -> Any:
    return np.concatenate([getattr(head.query_at, name), getattr(head.key_at, name)])
