"""Maps and the parts that were added to them: what a map covers, and whether it still fits.

Whether a map lacks sequences is told from the ledger alone, by the digest of the sample that its
newest part brought it up to. Only when that differs are points read, of one head for all heads
whose maps grew by the same samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from json import dumps, loads
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flows.samples import Ints, Sample, take
from pipeline.settings import MapSpec
from store.atlas import Atlas
from store.scan import read_sequences
from store.snapshot import parse_file_name

Row = dict[str, Any]

MUCH_WORSE = 0.1
"""Difference of a fidelity figure from which on parts are clearly worse placed than the fit."""

MIN_ADDED = 200
"""Points of a part from which on its figures say something."""

_FREE = ("max_tokens", "when_grown", "stability")

_IDEALS = {"score_spearman": -1, "top_key_recall_3": 1, "trustworthiness": 1}
"""The figures that are watched, with the sign of their ideal."""


def settings_of(spec: MapSpec) -> dict[str, Any]:
    """What makes two maps of one head a series, of which the newest is current."""
    return {name: value for name, value in asdict(spec).items() if name not in _FREE}


@dataclass(frozen=True)
class GrownMap:
    """A map as the ledger has it: the fit, and the parts that were added."""

    rows: tuple[Row, ...]
    """Rows of the maps table with status ok, part 0 first."""

    @property
    def fit(self) -> Row:
        """The row of part 0."""
        return self.rows[0]

    @property
    def map_id(self) -> str:
        """Its id."""
        return str(self.fit["map_id"])

    @property
    def series(self) -> tuple[Any, ...]:
        """Head and settings: of the maps that share them the newest is current."""
        row = self.fit
        return (row["model"], row["layer"], row["head"], dumps(self.recorded["settings"]))

    @property
    def recorded(self) -> Row:
        """What the row of the fit says of its making."""
        found: Row = loads(self.fit["parameters"])
        return found

    @property
    def samples(self) -> tuple[str, ...]:
        """Digests of the samples that it was brought up to; equal ones cover equal sequences."""
        return tuple(loads(row["parameters"])["sample"] for row in self.rows)

    @property
    def n_fitted(self) -> int:
        """Points of the fit."""
        return int(self.fit["n_queries"] + self.fit["n_keys"])

    @property
    def n_added(self) -> int:
        """Points of all later parts."""
        return sum(row["n_queries"] + row["n_keys"] for row in self.rows[1:])

    def covers_exactly(self, sample: Sample) -> bool:
        """Whether the ledger says that it covers this sample and nothing else."""
        newest = loads(self.rows[-1]["parameters"])
        return bool(newest["sample"] == sample.digest and not newest["displaced"])

    def has_seeds_for(self, spec: MapSpec) -> bool:
        """Whether it was fitted twice, where that is asked for."""
        return bool(not spec.stability or self.recorded["stability"])

    def is_like(self, spec: MapSpec, capture: str) -> bool:
        """Whether a map of the series was asked for in this size, of this capture of the model."""
        made = self.recorded
        return bool(made["max_tokens"] == spec.max_tokens and made["capture"] == capture)


@dataclass(frozen=True)
class MadeMaps:
    """What the ledger of maps holds."""

    spent: set[str]
    """Names that a map has or had: one that is dropped or replaced does not come back."""
    current: Mapping[tuple[Any, ...], Sequence[GrownMap]]
    """The maps of each series that nobody replaces, newest first."""

    @classmethod
    def read(cls, newest: pa.Table) -> Self:
        """Sort the newest rows of the maps table."""
        parts: dict[str, list[Row]] = {}
        for row in newest.to_pylist():  # by map and part
            parts.setdefault(row["map_id"], []).append(row)
        maps = [
            GrownMap(tuple(row for row in rows if row["status"] == "ok"))
            for rows in parts.values()
            if rows[0]["part"] == 0 and rows[0]["status"] == "ok"
        ]
        spent = {name for name, rows in parts.items() if rows[0]["status"] == "dropped"}
        replaced = {made.fit["replaces"] for made in maps}
        current: dict[tuple[Any, ...], list[GrownMap]] = {}
        for made in sorted(maps, key=lambda made: -made.fit["generation"]):
            if made.map_id not in replaced:
                current.setdefault(made.series, []).append(made)
        return cls(spent | {made.map_id for made in maps}, current)


@dataclass(frozen=True)
class Lack:
    """What a map lacks of a sample."""

    added: Sample
    """The sequences that are not on it."""
    displaced: int
    """Sequences that are on it and not in the sample; they stay."""


@dataclass
class Covers:
    """What maps lack, worked out once for all maps of a model that grew by the same samples."""

    atlas: Atlas
    _covers: dict[tuple[str, ...], Ints] = field(default_factory=dict)
    _lacks: dict[tuple[str, ...], Lack | None] = field(default_factory=dict)

    def find_lack(self, made: GrownMap, sequences: pa.Table, sample: Sample) -> Lack | None:
        """What a map lacks of a sample.

        Args:
            made: the map.
            sequences: all of the model.
            sample: some of them.

        Returns:
            None where sequences on the map are no longer in the atlas.
        """
        key = (made.fit["model"], sample.digest, *made.samples)
        if key not in self._lacks:
            if made.samples not in self._covers:
                self._covers[made.samples] = read_cover(self.atlas, made)
            self._lacks[key] = _find_lack(self._covers[made.samples], sequences, sample)
        return self._lacks[key]


def _find_lack(cover: Ints, sequences: pa.Table, sample: Sample) -> Lack | None:
    ids = sequences["sequence_id"].to_numpy()
    if not np.isin(cover, ids).all():
        return None
    missing = np.setdiff1d(sample.sequence_ids, cover)
    added = take(sequences, np.flatnonzero(np.isin(ids, missing)), sample.capture)
    return Lack(added, len(np.setdiff1d(cover, sample.sequence_ids)))


def read_cover(atlas: Atlas, made: GrownMap) -> Ints:
    """Ids of the sequences on a map, sorted, read from its points."""
    place = {name: made.fit[name] for name in ("model", "layer", "head")}
    files = atlas.snapshot.files("points", **place)
    names = [parse_file_name(path) for path in files["path"].to_pylist()]
    own = [name.map_id == made.map_id for name in names]
    rows = read_sequences("points", files.filter(pa.array(own)), ["map_id", "sequence_id"])
    rows = rows.filter(pc.equal(rows["map_id"], made.map_id))
    ids: Ints = np.unique(rows["sequence_id"].to_numpy())
    return ids


def find_due_fits(newest: pa.Table) -> list[str]:
    """A sentence for every series of maps whose added parts no longer fit in, with the remedy.

    Args:
        newest: newest rows of the maps table.
    """
    series: dict[tuple[Any, ...], list[GrownMap]] = {}
    for maps in MadeMaps.read(newest).current.values():
        for made in maps:
            model, _, _, settings = made.series
            if len(made.rows) > 1:
                series.setdefault((model, settings), []).append(made)
    return [
        f"{_describe(maps[0])}: a new fit is due, as {reason}; run once with `when_grown: fit` for "
        "this map: `qkatlas run CONFIG.yaml --set maps.0.when_grown=fit`, with its place in the "
        "list for the 0"
        for maps in series.values()
        if (reason := _find_reason(maps))
    ]


def _describe(made: GrownMap) -> str:
    row = made.fit
    joint = made.recorded["settings"]["joint"]
    return f"{row['method']} maps in {row['dims']}-D of {row['model']} (joint {joint})"


def _find_reason(maps: Sequence[GrownMap]) -> str | None:
    """Why the maps of a series need a new fit; None where they do not."""
    n_fitted = sum(made.n_fitted for made in maps)
    n_added = sum(made.n_added for made in maps)
    if n_added > n_fitted:
        return f"more points were added than fitted ({n_added:,} and {n_fitted:,})"
    for name, ideal in _IDEALS.items():
        pairs = [pair for made in maps if None not in (pair := _compare(made, name))]
        if pairs:
            fitted, added = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
            if ideal * (fitted - added) > MUCH_WORSE:
                return (
                    f"{name} is {added:.2f} over the points that were added and {fitted:.2f} before"
                )
    return None


def _compare(made: GrownMap, name: str) -> tuple[Any, Any]:
    """A figure of a map as held-out sequences gave it, else as the fit did, and of its parts.

    The latter is the mean over parts that are large enough, by their points; None without any.
    """
    heldout = made.fit[f"heldout_{name}"]
    parts = [(row[name], row["n_queries"] + row["n_keys"]) for row in made.rows[1:]]
    parts = [(value, n) for value, n in parts if value is not None and n >= MIN_ADDED]
    total = sum(n for _, n in parts)
    added = sum(value * n for value, n in parts) / total if parts else None
    return made.fit[name] if heldout is None else heldout, added
