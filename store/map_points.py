"""One map and its points as its files hold them, read by drawing order.

Apart from `points`, which joins tokens, filters and pages, as `matrix` and `export` read maps too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from store.byte_cache import CACHE
from store.errors import NotInAtlasError
from store.object_store import ask_again
from store.opened import OpenAtlas
from store.scan import dataset, readable
from store.schema import TABLES
from store.snapshot import Snapshot
from store.visibility import parse_file_name

SCHEMA = pa.schema([pa.field(column.name, column.type) for column in TABLES["points"].file_schema])
"""Columns of a points file."""

ORDER = ("rank", "part", "kind", "sequence_id", "position")

MANY_FILES = 8
"""A map in more files than this is read whole and kept: opening a file takes some 0.3 ms."""

KEPT_POINTS = 1_000_000
"""Points above which such a map is not kept."""

_FRAGMENT_BYTES = 10_000  # of a file's metadata, which its dataset keeps

FIND = """
SELECT map_id, model, layer, head, method, dims, query_model, key_model, status, reason
FROM maps JOIN models USING (model) WHERE map_id = $map_id AND part = 0
"""


@dataclass(frozen=True)
class OpenMap:
    """A map of one version of an atlas, and the files that hold its points."""

    state: tuple[str, str]
    """Of the atlas: its URI and its version, for keys of the cache."""
    map_id: str
    model: str
    layer: int
    head: int
    method: str
    dims: int
    query_model: str
    """Model key whose tokens describe queries."""
    key_model: str
    """Model key whose tokens describe keys."""
    data: ds.FileSystemDataset = field(repr=False, compare=False)
    """Points of all parts."""
    is_scattered: bool
    """In so many files that its points are kept."""

    def scan(
        self, columns: Sequence[str], below: int | None = None, **options: object
    ) -> ds.Scanner:
        """A scan of some columns of the points with rank < below, in the order of the files."""
        condition = None if below is None else ds.field("rank") < below
        return ds.Scanner.from_dataset(
            self.data, columns=list(columns), filter=condition, **options
        )


def open_map(atlas: OpenAtlas, map_id: str) -> OpenMap:
    """A map, one that was replaced too.

    Raises:
        NotInAtlasError: there is no such map, it failed, or it was dropped.
    """
    snapshot = atlas.snapshot
    state = (snapshot.uri, snapshot.version)

    def find() -> tuple[OpenMap, int]:
        rows = atlas.ask(FIND, {"map_id": map_id}).to_pylist()
        if not rows:
            raise NotInAtlasError(f"no map {map_id} in the atlas {atlas.uri}: list its maps")
        status, reason = rows[0].pop("status"), rows[0].pop("reason")
        if status != "ok":
            raise NotInAtlasError(f"the map {map_id} has no points: it is {status} ({reason})")
        files, _ = map_files(snapshot, rows[0])
        n_points = sum(files["n_rows"].to_pylist())
        scattered = len(files) > MANY_FILES and n_points <= KEPT_POINTS
        opened = OpenMap(
            state,
            **rows[0],
            data=dataset("points", files),
            is_scattered=scattered,
        )
        return opened, _FRAGMENT_BYTES * (1 + len(files))

    found: OpenMap = CACHE.get(("map", state, map_id), find)
    return found


def read_rows(
    opened: OpenMap, columns: Sequence[str], below: int | None = None, in_order: bool = True
) -> pa.Table:
    """The points of all parts of a map, sorted by ORDER.

    Args:
        opened: map.
        columns: of SCHEMA.
        below: a bound on `rank`; None for all. Row groups beyond it are not read.
        in_order: False leaves the rows as they come, for readers of whole maps.

    Raises:
        AtlasFormatError: a file is missing or damaged.
    """
    if not opened.is_scattered:
        if not in_order:
            return _scan(opened, list(columns), below)
        wanted = dict.fromkeys([*columns, *ORDER])
        return _in_order(_scan(opened, list(wanted), below)).select(list(columns))

    def read() -> tuple[pa.Table, int]:
        points = _in_order(_scan(opened, SCHEMA.names)).combine_chunks()
        return points, points.nbytes

    points: pa.Table = CACHE.get(("points", opened.state, opened.map_id), read)
    end = len(points) if below is None else int(np.searchsorted(points["rank"].to_numpy(), below))
    return points.slice(0, end).select(list(columns))


def _scan(opened: OpenMap, columns: list[str], below: int | None = None) -> pa.Table:
    """Points in the order of the files, with the types of the schema and no metadata."""

    def scan() -> pa.Table:
        with readable("points", opened.data.files, opened.data.filesystem, opened.state[0]):
            return opened.scan(columns, below).to_table()

    return ask_again(scan).cast(pa.schema([SCHEMA.field(name) for name in columns]))


def _in_order(points: pa.Table) -> pa.Table:
    """Points in ORDER; those of a map of one part are in it already."""
    if np.all(np.diff(points["rank"].to_numpy()) > 0):
        return points
    return points.sort_by([(name, "ascending") for name in ORDER])


def map_files(
    snapshot: Snapshot, row: Mapping[str, Any], part: int | None = None
) -> tuple[pa.Table, bool]:
    """The files that hold a map's points, by part, and whether one of them holds several parts.

    Args:
        snapshot: of the atlas.
        row: of the map: model, layer, head and map_id.
        part: only the files that may hold this part; None for all.
    """
    files = snapshot.files("points", model=row["model"], layer=row["layer"], head=row["head"])
    names = [parse_file_name(path) for path in files["path"].to_pylist()]
    own = [(name, index) for index, name in enumerate(names) if name.map_id == row["map_id"]]
    merged = [index for name, index in own if name.kind == "compaction"]
    parts = sorted(
        (name.number, index)
        for name, index in own
        if name.kind == "map" and part in (None, name.number)
    )
    wanted = [*merged, *(index for _, index in parts)]
    return files.take(pa.array(wanted, pa.int64())), bool(merged)
