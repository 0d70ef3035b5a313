"""All heads of a model at once: the same points on each head's map, small enough for one reply.

Apart from `points`, as coordinates become 16-bit integers and the tokens come once for all heads.
"""

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from numpy.typing import NDArray

from store.byte_cache import CACHE
from store.errors import NotInAtlasError, QueryError
from store.map_points import map_files, open_map
from store.object_store import ask_again
from store.opened import OpenAtlas
from store.sample_tokens import add_tokens
from store.scan import dataset, readable
from store.snapshot import Snapshot
from store.vectors import Floats

MAPS = """
SELECT model, layer, head, map_id, score_spearman, generation
FROM heads LEFT JOIN (
    SELECT * FROM current_maps WHERE method = $method AND dims = $dims
        AND ($joint IS NULL OR (json_valid(joint) AND (joint ->> '$.method') = $joint))
    QUALIFY row_number() OVER (
        PARTITION BY model, layer, head ORDER BY generation DESC, map_id) = 1
) USING (model, layer, head)
WHERE model = $model ORDER BY layer, head
"""

KNOWN = """
SELECT DISTINCT method, dims,
    CASE WHEN json_valid(joint) THEN ' of ' || coalesce(joint ->> '$.method', '?') ELSE '' END
        AS of_joint
FROM current_maps WHERE model = ? ORDER BY ALL
"""

HEADS = pa.schema(
    [
        ("layer", pa.int32()),
        ("head", pa.int32()),
        ("map_id", pa.string()),
        ("score_spearman", pa.float64()),
        ("low", pa.list_(pa.float32())),
        ("high", pa.list_(pa.float32())),
        ("points", pa.binary()),
        ("missing", pa.string()),
    ]
)

STEPS = 65_535
"""The integer of the highest coordinate; 0 is the lowest."""

_N_THREADS = 8  # that read heads: their files may be far away

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Matrix:
    """The same points on the maps of all heads of a model."""

    model: str
    method: str
    dims: int
    n_points: int
    tokens: pa.Table
    """kind, sequence_id, position, token and is_special of each point, n_points rows."""
    heads: pa.Table
    """Columns of HEADS, a row a head: low and high are the bounds of these points by dimension;
    points are n_points x dims little-endian uint16, where 0 to 65535 spans low to high. Where a
    head has no such points, these are null and `missing` says why."""


@dataclass(frozen=True)
class Fit:
    """Some points of a map's fit, in the order of their hashes."""

    points: pa.Table
    hashes: Hashes


def read_matrix(
    atlas: OpenAtlas,
    model: str,
    method: str,
    dims: int = 2,
    max_points: int = 2000,
    joint: str | None = None,
) -> Matrix:
    """The same points on the newest current map of every head of a model.

    The points are those of the fits (part 0) with the lowest hash of kind, sequence and position,
    in the order of that hash: any first n are a uniform subset. The sample is the one that most
    heads share.

    Args:
        atlas: to read.
        model: model key.
        method: of the maps.
        dims: of the maps, 2 or 3.
        max_points: queries and keys together.
        joint: name of the maps' joint space; None for the newest maps, whatever theirs is.

    Raises:
        NotInAtlasError: there is no such model, or no such map of it.
        QueryError: max_points is below 1.
    """
    if max_points < 1:
        raise QueryError(f"max_points is {max_points}, expected at least 1")

    def make() -> tuple[Matrix, int]:
        made = _make(atlas, model, method, dims, max_points, joint)
        return made, made.tokens.nbytes + made.heads.nbytes

    state = (atlas.snapshot.uri, atlas.snapshot.version)
    key = ("matrix", state, model, method, dims, max_points, joint)
    found: Matrix = CACHE.get(key, make)
    return found


def _make(
    atlas: OpenAtlas, model: str, method: str, dims: int, max_points: int, joint: str | None
) -> Matrix:
    """The matrix, read from the files."""
    atlas.find_model(model)
    asked = {"model": model, "method": method, "dims": dims, "joint": joint}
    rows = atlas.ask(MAPS, asked).to_pylist()
    made = [row for row in rows if row["map_id"] is not None]
    if not made:
        known = atlas.ask(KNOWN, [model]).to_pylist()
        others = ", ".join(f"{row['method']} in {row['dims']}-D{row['of_joint']}" for row in known)
        space = f" of {joint}" if joint else ""
        raise NotInAtlasError(
            f"{model} has no {method} map in {dims}-D{space}, but {others or 'no map at all'}"
        )
    with ThreadPoolExecutor(_N_THREADS) as pool:
        read = pool.map(lambda row: _read_fit(atlas.snapshot, row, dims, max_points), made)
        fits = dict(zip([row["map_id"] for row in made], read, strict=True))
    shared = _most_shared(made, fits)
    places = fits[shared].points.select(["kind", "sequence_id", "position"])
    tokens = add_tokens(atlas, open_map(atlas, shared), places, ["token", "is_special"])
    heads = [{**row, **_coordinates(fits, row["map_id"], shared, dims)} for row in rows]
    return Matrix(
        model, method, dims, len(tokens), tokens, pa.Table.from_pylist(heads, schema=HEADS)
    )


def _most_shared(made: list[dict[str, Any]], fits: Mapping[str, Fit]) -> str:
    """A map with the points that most maps have; where two sets are as frequent, the newest."""
    samples = {map_id: fit.hashes.tobytes() for map_id, fit in fits.items()}
    counts = Counter(samples.values())
    best = max(made, key=lambda row: (counts[samples[row["map_id"]]], row["generation"]))
    return str(best["map_id"])


def _coordinates(
    fits: Mapping[str, Fit], map_id: str | None, shared: str, dims: int
) -> dict[str, Any]:
    """The last columns of HEADS for one head."""
    if map_id is None:
        return {"missing": "no such map"}
    if not np.array_equal(fits[map_id].hashes, fits[shared].hashes):
        return {"missing": "its map is of another sample"}
    if not len(fits[map_id].points):
        return {"missing": "its map has no points"}
    xyz = np.stack([fits[map_id].points[name].to_numpy() for name in "xyz"[:dims]], axis=1)
    low, high = xyz.min(axis=0), xyz.max(axis=0)
    return {"low": low, "high": high, "points": _encode(xyz, low, high)}


def _encode(xyz: Floats, low: Floats, high: Floats) -> bytes:
    """Coordinates as little-endian uint16, row by row; a flat dimension is 0."""
    span = np.where(high > low, high.astype(np.float64) - low, 1.0)
    return np.rint((xyz.astype(np.float64) - low) / span * STEPS).astype("<u2").tobytes()


def _read_fit(snapshot: Snapshot, row: dict[str, Any], dims: int, n: int) -> Fit:
    """Those n points of a map's part 0 that have the lowest hashes, in the order of these."""
    files, is_shared = map_files(snapshot, row, part=0)
    only = (ds.field("map_id") == row["map_id"]) & (ds.field("part") == 0)
    columns = ["kind", "sequence_id", "position", *"xyz"[:dims]]

    def read() -> pa.Table:
        with readable("points", files["path"].to_pylist()):
            return dataset("points", files).to_table(columns, filter=only if is_shared else None)

    points = ask_again(read)
    hashes = _hash_places(points)
    rows = np.arange(len(hashes))
    if n < len(hashes):
        rows = np.flatnonzero(hashes <= np.partition(hashes, n - 1)[n - 1])
    rows = rows[np.argsort(hashes[rows])]
    return Fit(points.take(pa.array(rows)), hashes[rows])


def _hash_places(points: pa.Table) -> Hashes:
    """A fixed number for each (kind, sequence_id, position), spread as random ones are.

    Source: Steele, Lea and Flood, OOPSLA 2014 (the finaliser of SplitMix64).
    """
    is_key = pc.equal(points["kind"], "key").to_numpy().astype(np.uint64)
    sequence_id = points["sequence_id"].to_numpy().astype(np.uint64)
    position = points["position"].to_numpy().astype(np.uint64)
    mixed: Hashes = _mix(_mix(sequence_id) + position * np.uint64(2) + is_key)
    return mixed


def _mix(values: Hashes) -> Hashes:
    """SplitMix64's next number for each state."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
