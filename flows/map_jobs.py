"""Which heads still need maps, or new sequences on their maps, decided from the ledger of maps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from json import dumps
from typing import Any

import pyarrow as pa
import xxhash

from flows.growth import Covers, GrownMap, Lack, MadeMaps, settings_of
from flows.samples import (
    Growth,
    HeadJob,
    Ints,
    Sample,
    hash_order,
    list_heads,
    name_capture,
    take_heldout,
    take_tokens,
)
from pipeline.settings import MapSpec
from store.atlas import Atlas


@dataclass(frozen=True)
class _Group:
    """Maps of the same sequences, made together so that they share neighbours."""

    sample: Sample
    heldout: Ints
    specs: tuple[MapSpec, ...]


@dataclass(frozen=True)
class _Wanted:
    """A map that is asked for: there already, to be added to, or to be fitted."""

    spec: MapSpec
    group: _Group
    there: GrownMap | None
    """The map that serves; None where a new fit is needed."""
    lack: Lack | None = None
    """What has to be added to it; None where nothing has to be."""


def find_map_jobs(specs: Sequence[MapSpec], atlas: Atlas, models: Sequence[str]) -> list[HeadJob]:
    """Heads without the maps that are asked for, over the sequences visible now."""
    made = MadeMaps.read(atlas.snapshot.newest_maps())
    covers = Covers(atlas)
    jobs = []
    for model in models if specs else ():
        sequences = atlas.sequences(model)
        if not len(sequences):
            continue
        groups = _by_sample(specs, sequences, name_capture(atlas, model))
        for layer, head in list_heads(atlas, model):
            place = (model, layer, head)
            wanted = [
                _look_up(made, place, spec, group, covers, sequences)
                for group in groups
                for spec in group.specs
            ]
            jobs += _growth_jobs(place, wanted) + _fit_jobs(made, place, wanted, groups)
    return jobs


def _by_sample(specs: Sequence[MapSpec], sequences: pa.Table, capture: str) -> list[_Group]:
    groups: dict[tuple[int, int], list[MapSpec]] = {}
    for spec in dict.fromkeys(specs):
        groups.setdefault((spec.seed, spec.max_tokens), []).append(spec)
    orders = {seed: hash_order(sequences, seed) for seed, _ in groups}
    return [
        _Group(
            replace(take_tokens(sequences, orders[seed], max_tokens), capture=capture),
            take_heldout(sequences, orders[seed], max_tokens),
            tuple(group),
        )
        for (seed, max_tokens), group in groups.items()
    ]


def _look_up(
    made: MadeMaps,
    place: tuple[str, int, int],
    spec: MapSpec,
    group: _Group,
    covers: Covers,
    sequences: pa.Table,
) -> _Wanted:
    """Whether a map of a head is there, and what it lacks."""
    may_grow = spec.when_grown == "transform"
    maps = made.current.get((*place, dumps(settings_of(spec))), ())
    maps = [there for there in maps if there.has_seeds_for(spec)]
    for there in maps:
        if there.covers_exactly(group.sample) and (may_grow or len(there.rows) == 1):
            return _Wanted(spec, group, there)
    for there in maps if may_grow else ():
        if not there.is_like(spec, group.sample.capture):
            continue
        lack = covers.find_lack(there, sequences, group.sample)
        if lack is not None:
            return _Wanted(spec, group, there, lack if len(lack.added.sequence_ids) else None)
    return _Wanted(spec, group, None)


def _growth_jobs(place: tuple[str, int, int], wanted: Sequence[_Wanted]) -> list[HeadJob]:
    """Jobs that add parts to a head's maps, one for all maps that lack the same sequences."""
    jobs: dict[str, HeadJob] = {}
    for item in wanted:
        if item.there is None or item.lack is None:
            continue
        added = item.lack.added
        job = jobs.get(added.digest, HeadJob(*place, added))
        growth = Growth(
            len(item.there.rows), item.there.fit, item.group.sample.digest, item.lack.displaced
        )
        jobs[added.digest] = replace(
            job,
            specs=(*job.specs, item.spec),
            map_ids=(*job.map_ids, item.there.map_id),
            replaces=(*job.replaces, None),
            growths=(*job.growths, growth),
        )
    return list(jobs.values())


def _fit_jobs(
    made: MadeMaps,
    place: tuple[str, int, int],
    wanted: Sequence[_Wanted],
    groups: Sequence[_Group],
) -> list[HeadJob]:
    """Jobs for a head's missing maps, one a sample; a map that is asked for is not replaced."""
    kept = {item.there.map_id for item in wanted if item.there is not None}
    jobs = []
    for group in groups:
        missing = [item.spec for item in wanted if item.group is group and item.there is None]
        if missing:
            job = HeadJob(
                *place,
                group.sample,
                specs=tuple(missing),
                map_ids=tuple(_unspent_name(made, place, spec, group.sample) for spec in missing),
                replaces=tuple(_find_older(made, place, spec, kept) for spec in missing),
                heldout=group.heldout,
            )
            jobs.append(job)
    return jobs


def _find_older(
    made: MadeMaps, place: tuple[str, int, int], spec: MapSpec, kept: set[str]
) -> str | None:
    """The map whose place a new one takes: of the same size where there is one."""
    maps = made.current.get((*place, dumps(settings_of(spec))), ())
    older = [there for there in maps if there.map_id not in kept]
    older.sort(key=lambda there: there.recorded["max_tokens"] != spec.max_tokens)
    return older[0].map_id if older else None


def name_map(place: tuple[str, int, int], spec: MapSpec, sample: Sample, again: int = 0) -> str:
    """The id of a map: the same head, settings and sequences give the same id.

    Args:
        place: model key, layer and query head, both from 0.
        spec: settings of the map.
        sample: the sequences of the fit.
        again: how often it was made before and then dropped or replaced by one of other sequences.
    """
    parts: list[Any] = [*place, settings_of(spec), sample.digest, again]
    return xxhash.xxh64_hexdigest(dumps(parts).encode())


def _unspent_name(
    made: MadeMaps, place: tuple[str, int, int], spec: MapSpec, sample: Sample
) -> str:
    names = (name_map(place, spec, sample, again) for again in count())
    return next(name for name in names if name not in made.spent)
