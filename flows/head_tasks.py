"""What a Ray task does for one head: read its vectors, make maps or measures, write points."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from json import dumps
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from flows.samples import HeadJob, settings_of
from pipeline.maps import HeadMap, make_maps, prime_umap
from pipeline.measures import TokenFacts, measure_head, punctuation
from store.atlas import Atlas
from store.encoding import open_writer
from store.files import WrittenFile, filesystem, join, map_file_name, partition_folder
from store.schema import TABLES
from store.vectors import HeadVectors, Positions

Row = dict[str, Any]


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
def _open_atlas(uri: str, version: str) -> Atlas:
    torch.set_num_threads(1)  # heads run beside each other, a core each
    return Atlas(uri)


def prime_maps(_: None) -> None:
    """Compile what UMAP needs once, for all workers that share NUMBA_CACHE_DIR."""
    prime_umap()


def map_head(task: HeadTask) -> list[MadeMap]:
    """Make a head's maps and write their points."""
    atlas = _open_atlas(task.uri, task.version)
    job = task.job
    head = atlas.read_head(job.model, job.layer, job.head, job.sample.sequence_ids.tolist())
    made = make_maps(head, job.specs)
    return [_keep_map(task, index, head, found) for index, found in enumerate(made)]


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
        "part": 0,
        "model": job.model,
        "layer": job.layer,
        "head": job.head,
        "method": spec.method,
        "dims": spec.dims,
        "seed": spec.seed,
        "replaces": job.replaces[index],
    }


def _keep_map(task: HeadTask, index: int, head: HeadVectors, made: HeadMap | Exception) -> MadeMap:
    if isinstance(made, Exception):
        return MadeMap(_failed_row(task, index, f"{type(made).__name__}: {made}"), [])
    settings = settings_of(task.job.specs[index])
    kept = {
        "n_queries": len(head.queries),
        "n_keys": len(head.keys),
        "status": "ok",
        "parameters": dumps({"settings": settings, **made.parameters}),
        "joint": dumps(made.joint),
        "backend": made.backend,
        "seconds": made.seconds,
        **asdict(made.fidelity),
    }
    files = [_write_points(task, task.job.map_ids[index], head, made)]
    return MadeMap(_map_row(task, index) | kept, files)


def _write_points(task: HeadTask, map_id: str, head: HeadVectors, made: HeadMap) -> WrittenFile:
    """One Parquet file of a map's points, sorted by drawing order."""
    job = task.job
    rows = _point_rows(map_id, head, made)
    partition = (("model", job.model), ("layer", str(job.layer)), ("head", str(job.head)))
    path = partition_folder(partition) + map_file_name(map_id, 0)
    where, root = filesystem(task.uri)
    target = join(root, "points", path)
    where.create_dir(target.rpartition("/")[0], recursive=True)
    with where.open_output_stream(target) as stream:
        with open_writer("points", stream) as writer:
            writer.write_table(rows, row_group_size=16_384)
        size = stream.tell()
    return WrittenFile("points", path, partition, len(rows), size)


def _point_rows(map_id: str, head: HeadVectors, made: HeadMap) -> pa.Table:
    n_queries, n = len(head.queries), len(made.coordinates)
    dims = made.coordinates.shape[1]
    columns = {
        "map_id": pa.array([map_id] * n),
        "part": pa.array(np.zeros(n, np.int32)),
        "kind": pa.array(["query"] * n_queries + ["key"] * (n - n_queries)),
        "sequence_id": pa.array(_both(head, "sequence_id")),
        "position": pa.array(_both(head, "position").astype(np.int32)),
        "x": pa.array(made.coordinates[:, 0]),
        "y": pa.array(made.coordinates[:, 1]),
        "z": pa.array(made.coordinates[:, 2]) if dims == 3 else pa.nulls(n, pa.float32()),
        "rank": pa.array(made.rank.astype(np.int32)),
        "distortion": pa.nulls(n, pa.float32()),
    }
    schema = TABLES["points"].file_schema.remove_metadata()
    table = pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)
    return table.take(pa.array(np.argsort(made.rank)))


def _both(head: HeadVectors, name: str) -> Any:
    return np.concatenate([getattr(head.query_at, name), getattr(head.key_at, name)])


def measure_one(task: HeadTask) -> list[Row]:
    """A head's measures as rows without generation."""
    atlas = _open_atlas(task.uri, task.version)
    job = task.job
    head = atlas.read_head(job.model, job.layer, job.head, job.sample.sequence_ids.tolist())
    row = next(r for r in atlas.models().to_pylist() if r["model"] == job.model)
    query_tokens = _token_facts(atlas, row["query_model"], job.sample.digest, head.query_at)
    key_tokens = _token_facts(atlas, row["key_model"], job.sample.digest, head.key_at)
    values = measure_head(head, query_tokens, key_tokens)
    return [
        {
            "model": job.model,
            "layer": job.layer,
            "head": job.head,
            "measure": name,
            "value": value,
            "corpora": job.sample.corpora,
            "sample": job.sample.digest,
            "n_sequences": len(job.sample.sequence_ids),
            "n_tokens": job.sample.n_tokens,
        }
        for name, value in values.items()
    ]


_token_cache: dict[tuple[str, str, str], TokenFacts] = {}


def _token_facts(atlas: Atlas, model: str, digest: str, at: Positions) -> TokenFacts:
    """The tokens at a sample's positions; the same for every head of a model, so read once."""
    key = (atlas.uri, model, digest)
    if key not in _token_cache:
        _token_cache.clear()
        _token_cache[key] = read_token_facts(atlas, model, np.unique(at.sequence_id).tolist())
    return _token_cache[key]


def read_token_facts(atlas: Atlas, model: str, sequence_ids: Sequence[int]) -> TokenFacts:
    """What measures need to know of the tokens of some sequences."""
    rows = atlas.tokens(model, sequence_ids).sort_by(
        [("sequence_id", "ascending"), ("position", "ascending")]
    )
    return TokenFacts(
        rows["sequence_id"].to_numpy(),
        rows["position"].to_numpy().astype(np.int64),
        rows["vocab_id"].fill_null(-1).to_numpy().astype(np.int64),
        rows["is_special"].to_numpy(zero_copy_only=False),
        punctuation(rows["token"].to_pylist()),
    )
