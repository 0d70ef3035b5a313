"""Which sequences a model's maps and measures are made of, and which heads still need them.

All heads of a model share one sample: whole sequences in hash order.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from json import dumps, loads
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from pipeline.sampling import sample_hash
from pipeline.settings import MapSpec, MeasureSpec
from store.atlas import Atlas

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """Some whole sequences of a model."""

    sequence_ids: Ints
    corpora: str
    """Their corpora, a JSON list."""
    n_tokens: int

    @property
    def digest(self) -> str:
        """A token that changes with any sequence."""
        return xxhash.xxh64_hexdigest(self.sequence_ids.tobytes())


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


def name_map(model: str, layer: int, head: int, spec: MapSpec, sample: Sample) -> str:
    """The id of a map: the same head, settings and sequences give the same id."""
    place = dumps([model, layer, head, settings_of(spec), sample.digest])
    return xxhash.xxh64_hexdigest(place.encode())


def find_map_jobs(specs: Sequence[MapSpec], atlas: Atlas, models: Sequence[str]) -> list[HeadJob]:
    """Heads without the maps that are asked for, over the sequences visible now."""
    newest = [row for row in atlas.snapshot.newest_maps().to_pylist() if row["part"] == 0]
    made = {row["map_id"]: row for row in newest if row["status"] == "ok"}
    replaced = {row["replaces"] for row in made.values()}
    current = {_series(row): name for name, row in made.items() if name not in replaced}
    jobs = []
    for model in models:
        sequences = atlas.sequences(model)
        if not len(sequences):
            continue
        heads = list_heads(atlas, model)
        for sample, group in _by_sample(specs, sequences):
            for layer, head in heads:
                ids = [name_map(model, layer, head, spec, sample) for spec in group]
                missing = [index for index, name in enumerate(ids) if name not in made]
                if missing:
                    wanted = tuple(group[index] for index in missing)
                    places = [(model, layer, head, dumps(settings_of(spec))) for spec in wanted]
                    names = tuple(ids[index] for index in missing)
                    older = tuple(current.get(place) for place in places)
                    jobs.append(HeadJob(model, layer, head, sample, wanted, names, older))
    return jobs


def _by_sample(specs: Sequence[MapSpec], sequences: pa.Table) -> list[tuple[Sample, list[MapSpec]]]:
    """Maps that are made of the same sequences, together, so that they share neighbours."""
    groups: dict[tuple[int, int], list[MapSpec]] = {}
    for spec in specs:
        groups.setdefault((spec.seed, spec.max_tokens), []).append(spec)
    return [(take_tokens(sequences, *key), group) for key, group in groups.items()]


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
    jobs = []
    for model in models:
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
    wanted = (sample.corpora, len(sample.sequence_ids), sample.n_tokens)
    return {
        head
        for head, row in newest.items()
        if (row["corpora"], row["n_sequences"], row["n_tokens"]) == wanted
    }
