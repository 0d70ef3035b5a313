"""Which sequences a model's maps and measures are made of, and which heads still need them.

All heads of a model share one sample: whole sequences in hash order.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count
from json import dumps, loads
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from pipeline.sampling import sample_hash
from pipeline.settings import MapSpec, MeasureSpec
from store.atlas import Atlas

Ints = NDArray[np.int64]

_CAPTURE = (
    "weights_sha256",
    "tokenizer_sha256",
    "dtype",
    "precision",
    "max_length",
    "special_tokens",
)


@dataclass(frozen=True)
class Sample:
    """Some whole sequences of a model."""

    sequence_ids: Ints
    corpora: str
    """Their corpora, a JSON list."""
    n_tokens: int
    capture: str = ""
    """What they were captured with: a key that was dropped may come back with other weights."""

    @property
    def digest(self) -> str:
        """A token that changes with any sequence and with the capture."""
        ids = self.sequence_ids.astype("<i8").tobytes()
        return xxhash.xxh64_hexdigest(f"{self.capture} {self.n_tokens} ".encode() + ids)


@dataclass(frozen=True)
class HeadJob:
    """One head to map or to measure."""

    model: str
    layer: int
    head: int
    sample: Sample
    specs: tuple[MapSpec, ...] = ()
    """Maps to make; empty for measures."""
    map_ids: tuple[str, ...] = ()
    replaces: tuple[str | None, ...] = ()


def hash_order(sequences: pa.Table, seed: int) -> Ints:
    """Indices of sequences (columns corpus, source, row) in the order of their hash."""
    columns = [sequences[name].to_pylist() for name in ("corpus", "source", "row")]
    hashes = np.fromiter(
        (
            sample_hash(corpus, source, row, seed)
            for corpus, source, row in zip(*columns, strict=True)
        ),
        dtype=np.uint64,
        count=len(sequences),
    )
    return np.argsort(hashes, kind="stable")


def take_tokens(sequences: pa.Table, seed: int, max_tokens: int) -> Sample:
    """The first sequences in hash order that together have at most `max_tokens`; at least one."""
    order = hash_order(sequences, seed)
    n_tokens = sequences["n_tokens"].to_numpy()[order]
    count = max(1, int(np.searchsorted(np.cumsum(n_tokens), max_tokens, side="right")))
    return _take(sequences, order[:count])


def take_sequences(sequences: pa.Table, seed: int, count: int) -> Sample:
    """The first `count` sequences in hash order."""
    return _take(sequences, hash_order(sequences, seed)[:count])


def _take(sequences: pa.Table, indices: Ints) -> Sample:
    taken = sequences.take(pa.array(indices))
    corpora = sorted(set(taken["corpus"].to_pylist()))
    ids = np.sort(taken["sequence_id"].to_numpy())
    return Sample(ids, dumps(corpora), int(pc.sum(taken["n_tokens"]).as_py() or 0))


def name_map(
    model: str, layer: int, head: int, spec: MapSpec, sample: Sample, again: int = 0
) -> str:
    """The id of a map: the same head, settings and sequences give the same id.

    Args:
        model: model key.
        layer: from 0.
        head: query head, from 0.
        spec: settings of the map.
        sample: its sequences.
        again: how often it was made before and then dropped or replaced by one of other sequences.
    """
    place = dumps([model, layer, head, settings_of(spec), sample.digest, again])
    return xxhash.xxh64_hexdigest(place.encode())


def name_capture(atlas: Atlas, model: str) -> str:
    """A token of the weights and settings that a model was captured with."""
    rows = atlas.snapshot.rows("models")
    own = rows.filter(pc.equal(rows["model"], model)).select(_CAPTURE).to_pylist()
    return xxhash.xxh64_hexdigest(dumps(own[0] if own else {}, sort_keys=True).encode())


@dataclass(frozen=True)
class _Made:
    """What the ledger of maps holds."""

    ok: set[str]
    spent: set[str]
    """Maps that were dropped or that another took the place of: their names are not used again."""
    current: dict[tuple[Any, ...], str]
    """The map of each series that nobody replaces."""

    @classmethod
    def read(cls, newest: pa.Table) -> Self:
        rows = [row for row in newest.to_pylist() if row["part"] == 0]
        ok = {row["map_id"]: row for row in rows if row["status"] == "ok"}
        replaced = {row["replaces"] for row in ok.values()}
        dropped = {row["map_id"] for row in rows if row["status"] == "dropped"}
        current = {_series(row): name for name, row in ok.items() if name not in replaced}
        return cls(set(ok), replaced | dropped, current)


def find_map_jobs(specs: Sequence[MapSpec], atlas: Atlas, models: Sequence[str]) -> list[HeadJob]:
    """Heads without the maps that are asked for, over the sequences visible now."""
    made = _Made.read(atlas.snapshot.newest_maps())
    jobs = []
    for model in models if specs else ():
        sequences = atlas.sequences(model)
        if not len(sequences):
            continue
        groups = _by_sample(specs, sequences, name_capture(atlas, model))
        for layer, head in list_heads(atlas, model):
            jobs += _jobs_of_head(made, model, layer, head, groups)
    return jobs


def _jobs_of_head(
    made: _Made, model: str, layer: int, head: int, groups: Sequence[tuple[Sample, list[MapSpec]]]
) -> list[HeadJob]:
    """Jobs for a head's missing maps, one a sample; a map that is asked for is not replaced."""
    asked = [
        (sample, spec, _unspent_name(made, model, layer, head, spec, sample))
        for sample, specs in groups
        for spec in specs
    ]
    names = {name for _, _, name in asked}
    jobs = []
    for sample, _ in groups:
        missing = [a for a in asked if a[0] is sample and a[2] not in made.ok]
        series = [(model, layer, head, dumps(settings_of(spec))) for _, spec, _ in missing]
        older = [made.current.get(place) for place in series]
        if missing:
            job = HeadJob(
                model,
                layer,
                head,
                sample,
                specs=tuple(spec for _, spec, _ in missing),
                map_ids=tuple(name for _, _, name in missing),
                replaces=tuple(None if name in names else name for name in older),
            )
            jobs.append(job)
    return jobs


def _unspent_name(
    made: _Made, model: str, layer: int, head: int, spec: MapSpec, sample: Sample
) -> str:
    names = (name_map(model, layer, head, spec, sample, again) for again in count())
    return next(name for name in names if name not in made.spent)


def _by_sample(
    specs: Sequence[MapSpec], sequences: pa.Table, capture: str
) -> list[tuple[Sample, list[MapSpec]]]:
    """Maps that are made of the same sequences, together, so that they share neighbours."""
    groups: dict[tuple[int, int], list[MapSpec]] = {}
    for spec in dict.fromkeys(specs):
        groups.setdefault((spec.seed, spec.max_tokens), []).append(spec)
    return [
        (replace(take_tokens(sequences, *key), capture=capture), group)
        for key, group in groups.items()
    ]


def settings_of(spec: MapSpec) -> dict[str, Any]:
    """What makes two maps of one head a series, of which the newest is current."""
    return {name: value for name, value in asdict(spec).items() if name != "max_tokens"}


def _series(row: dict[str, Any]) -> tuple[Any, ...]:
    """What two maps share when the newer one takes the place of the older."""
    return (row["model"], row["layer"], row["head"], dumps(loads(row["parameters"])["settings"]))


def list_heads(atlas: Atlas, model: str) -> list[tuple[int, int]]:
    """The captured (layer, head) of a model, in order."""
    rows = atlas.snapshot.rows("heads")
    own = rows.filter(pc.equal(rows["model"], model))
    return sorted(
        {(row["layer"], row["head"]) for row in own.select(["layer", "head"]).to_pylist()}
    )


def find_measure_jobs(
    spec: MeasureSpec | None, atlas: Atlas, models: Sequence[str]
) -> list[HeadJob]:
    """Heads whose newest measures were taken over other sequences, or that have none."""
    jobs: list[HeadJob] = []
    for model in models if spec else ():
        sequences = atlas.sequences(model)
        if spec is None or not len(sequences):
            continue
        sample = take_sequences(sequences, spec.seed, spec.sequences)
        done = _measured_heads(atlas, model, sample)
        jobs += [
            HeadJob(model, layer, head, sample)
            for layer, head in list_heads(atlas, model)
            if (layer, head) not in done
        ]
    return jobs


def _measured_heads(atlas: Atlas, model: str, sample: Sample) -> set[tuple[int, int]]:
    """Heads whose measures of the highest generation are of this sample."""
    rows = atlas.snapshot.rows("measures")
    newest: dict[tuple[int, int], dict[str, Any]] = {}
    for row in rows.filter(pc.equal(rows["model"], model)).to_pylist():
        head = (row["layer"], row["head"])
        if head not in newest or row["generation"] > newest[head]["generation"]:
            newest[head] = row
    return {head for head, row in newest.items() if row["sample"] == sample.digest}
