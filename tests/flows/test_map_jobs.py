"""Which heads still need maps, or new sequences on them: found from the ledger of maps."""

from collections.abc import Sequence
from dataclasses import replace
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flows import growth, samples
from flows.config import RunConfig
from flows.growth import settings_of
from flows.identity import Row
from flows.map_jobs import find_map_jobs, name_map
from flows.samples import HeadJob, Sample
from pipeline.settings import MapSpec
from store.atlas import Atlas
from store.encoding import open_writer
from store.files import WrittenFile, map_file_name, partition_folder
from store.lake import MAPS, Lake, Unit
from store.schema import TABLES
from store.snapshot import Snapshot
from tests.flows.small_runs import (
    capture_eight,
    drop,
    grow,
    make_config,
    run,
    with_capture,
    write_source,
)

PCA, UMAP = MapSpec("pca"), MapSpec("umap")
FIT = replace(PCA, when_grown="fit")


def test_a_maps_id_is_stable_and_follows_every_setting() -> None:
    sample = Sample(np.arange(3), "[]", 12)
    place = ("m", 0, 1)
    name = name_map(place, PCA, sample)
    assert name == name_map(place, replace(FIT, max_tokens=3), Sample(np.arange(3), "[]", 12))
    changed = [replace(PCA, dims=3), replace(PCA, joint="balance"), replace(PCA, seed=1), UMAP]
    others = [name_map(place, spec, sample) for spec in changed]
    others += [name_map(("m", 1, 1), PCA, sample), name_map(("n", 0, 1), PCA, sample)]
    others += [name_map(place, PCA, Sample(np.arange(2), "[]", 7))]
    others += [name_map(place, PCA, replace(sample, capture="other weights"))]
    others += [name_map(place, PCA, sample, 1)]
    assert len({name, *others}) == len(others) + 1


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return capture_eight(tmp_path)


def find_jobs(config: RunConfig, *specs: MapSpec) -> list[HeadJob]:
    with Atlas(config.atlas) as atlas:
        return find_map_jobs(specs, atlas, ["tiny"])


def make(config: RunConfig, *specs: MapSpec, status: str = "ok") -> list[HeadJob]:
    """Commit what all jobs would make: ledger rows, and points of one query a sequence."""
    jobs = find_jobs(config, *specs)
    commit(config, jobs, status)
    return jobs


def commit(config: RunConfig, jobs: Sequence[HeadJob], status: str = "ok") -> list[Unit]:
    units = [
        make_unit(config, job, index, status) for job in jobs for index in range(len(job.specs))
    ]
    return Lake(config.atlas).commit(MAPS, units)


def make_unit(config: RunConfig, job: HeadJob, index: int, status: str) -> Unit:
    zero: dict[Any, object] = {pa.string(): ""}
    blank: Row = {f.name: zero.get(f.type, 0) for f in TABLES["maps"].schema if not f.nullable}
    spec, added = job.specs[index], job.growths[index] if job.growths else None
    record = {
        "settings": settings_of(spec),
        "max_tokens": spec.max_tokens,
        "capture": job.sample.capture,
        "sample": added.sample if added else job.sample.digest,
        "displaced": added.displaced if added else 0,
        "stability": spec.stability,
    }
    own = {
        "model": job.model,
        "map_id": job.map_ids[index],
        "part": added.part if added else 0,
        "n_queries": len(job.sample.sequence_ids),
        "parameters": dumps(record),
        "status": status,
        "replaces": job.replaces[index],
        "dims": spec.dims,
    }
    row = blank | own
    return Unit(row, [write_points(config, row, job)] if status == "ok" else [])


def write_points(config: RunConfig, row: Row, job: HeadJob) -> WrittenFile:
    partition = (("model", job.model), ("layer", "0"), ("head", "0"))
    path = partition_folder(partition) + map_file_name(row["map_id"], row["part"])
    place = {"map_id": row["map_id"], "part": row["part"], "kind": "query", "position": 0}
    points = [
        place | {"sequence_id": number, "x": 0.0, "y": 0.0, "rank": 0}
        for number in job.sample.sequence_ids.tolist()
    ]
    schema = TABLES["points"].file_schema.remove_metadata()
    target = Path(config.atlas) / "points" / path
    target.parent.mkdir(parents=True, exist_ok=True)
    with open_writer("points", target) as writer:
        writer.write_table(pa.Table.from_pylist(points, schema=schema))
    return WrittenFile("points", path, partition, len(points), target.stat().st_size)


def current(config: RunConfig) -> set[str]:
    with Atlas(config.atlas) as atlas:
        return set(atlas.sql("SELECT map_id FROM current_maps")["map_id"].to_pylist())


def points_of(config: RunConfig, map_id: str) -> list[tuple[int, int]]:
    """Part and sequence of every visible point of a map."""
    query = "SELECT part, sequence_id FROM points WHERE map_id = ? ORDER BY ALL"
    with Atlas(config.atlas) as atlas:
        rows = atlas.sql(query, [map_id]).to_pylist()
    return [(row["part"], row["sequence_id"]) for row in rows]


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("points are read")

    monkeypatch.setattr(growth, "read_cover", fail)


def test_missing_maps_are_asked_for_once(config: RunConfig) -> None:
    (job,) = make(config, PCA, UMAP, PCA)
    assert (job.model, job.layer, job.head, job.specs) == ("tiny", 0, 0, (PCA, UMAP))
    assert (job.replaces, job.growths) == ((None, None), ())
    assert find_jobs(config, PCA, UMAP) == []
    assert find_jobs(config) == []


def test_a_failed_map_is_asked_for_again_under_its_name(config: RunConfig) -> None:
    (failed,) = make(config, PCA, status="failed")
    (again,) = find_jobs(config, PCA)
    assert again.map_ids == failed.map_ids


def test_held_out_sequences_go_with_a_fit(config: RunConfig) -> None:
    (job,) = find_jobs(config, replace(PCA, max_tokens=17))
    assert len(job.sample.sequence_ids) == 5
    assert len(job.heldout) == 1 and job.heldout[0] not in job.sample.sequence_ids
    (whole,) = find_jobs(config, PCA)
    assert len(whole.heldout) == 0


# maps that are fitted anew


def test_a_map_of_new_sequences_replaces_the_one_of_its_settings(config: RunConfig) -> None:
    both = (FIT, replace(UMAP, when_grown="fit"))
    (first,) = make(config, *both)
    grow(config)
    (second,) = make(config, both[0])
    assert second.replaces == first.map_ids[:1]
    assert current(config) == {first.map_ids[1], *second.map_ids}
    (third,) = find_jobs(config, both[1])
    assert third.replaces == first.map_ids[1:]


def test_other_settings_are_another_series(config: RunConfig) -> None:
    (first,) = make(config, PCA)
    (second,) = make(config, replace(PCA, dims=3))
    assert second.replaces == (None,)
    assert current(config) == {*first.map_ids, *second.map_ids}


def test_a_map_without_a_second_seed_is_replaced_when_one_is_asked_for(config: RunConfig) -> None:
    (first,) = make(config, PCA)
    (again,) = make(config, replace(PCA, stability=True))
    assert again.replaces == first.map_ids
    assert find_jobs(config, replace(PCA, stability=True)) == find_jobs(config, PCA) == []


def test_going_back_to_a_former_size_makes_that_map_current_again(config: RunConfig) -> None:
    small, large = replace(PCA, max_tokens=9), replace(PCA, max_tokens=900)
    (first,) = make(config, small)
    (second,) = make(config, large)
    assert (second.replaces, second.growths) == (first.map_ids, ())
    (third,) = make(config, small)
    assert third.replaces == second.map_ids
    assert third.map_ids != first.map_ids
    assert current(config) == set(third.map_ids)
    assert find_jobs(config, small) == []


def test_another_bound_with_the_same_sequences_changes_nothing(config: RunConfig) -> None:
    make(config, replace(PCA, max_tokens=900))
    assert find_jobs(config, replace(PCA, max_tokens=9000)) == []


def test_two_sizes_asked_for_together_do_not_replace_each_other(config: RunConfig) -> None:
    small, large = replace(PCA, max_tokens=9), replace(PCA, max_tokens=900)
    (first,) = make(config, small)
    made = make(config, small, large)
    assert [job.replaces for job in made] == [(None,)]
    assert current(config) == {*first.map_ids, *made[0].map_ids}
    assert find_jobs(config, large, small) == []
    grow(config)
    again = replace(large, when_grown="fit")
    *_, third = make(config, small, again)
    assert third.replaces == made[0].map_ids
    assert current(config) == {*first.map_ids, *third.map_ids}


def test_a_dropped_map_is_made_again_under_a_new_name(config: RunConfig) -> None:
    (first,) = make(config, PCA)
    drop_maps(config)
    (second,) = make(config, PCA)
    assert second.map_ids != first.map_ids
    assert second.replaces == (None,)
    assert current(config) == set(second.map_ids)


def drop_maps(config: RunConfig, part: int | None = None) -> None:
    rows = Snapshot.load(config.atlas).newest_maps().to_pylist()
    chosen = [row | {"status": "dropped"} for row in rows if part in (None, row["part"])]
    Lake(config.atlas).commit_rows(MAPS, chosen)


def test_maps_of_a_model_that_came_back_with_other_settings_are_new(config: RunConfig) -> None:
    (first,) = make(config, PCA)
    drop(config, model="tiny")
    other = with_capture(config, max_length=9)
    run(other)
    (second,) = find_jobs(other, PCA)
    assert np.array_equal(first.sample.sequence_ids, second.sample.sequence_ids)
    assert second.map_ids != first.map_ids
    grow(other)
    (third,) = find_jobs(other, PCA)
    assert (third.growths, third.replaces) == ((), first.map_ids)


# maps that grow


def test_new_sequences_become_a_part_of_the_map(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = make(config, PCA, UMAP)
    for part in (1, 2):
        grow(config)
        (job,) = make(config, PCA, UMAP)
        assert job.map_ids == first.map_ids
        assert (job.replaces, len(job.heldout)) == ((None, None), 0)
        assert [g.part for g in job.growths] == [part] * 2
        assert [g.fit["map_id"] for g in job.growths] == list(first.map_ids)
        assert job.sample.n_tokens == 8 and len(job.sample.sequence_ids) == 4
    assert current(config) == set(first.map_ids)
    parts = [part for part, _ in points_of(config, first.map_ids[0])]
    assert parts == [0] * 8 + [1] * 4 + [2] * 4
    forbid_reading(monkeypatch)
    assert find_jobs(config, PCA, UMAP) == []


def put_newest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Later corpora and rows come first in hash order."""

    def rank(corpus: str, source: str, row: int, seed: int) -> int:
        return 10**6 * (corpus == "texts") + 1000 - row

    monkeypatch.setattr(samples, "sample_hash", rank)


def test_displaced_sequences_stay_on_the_map(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(PCA, max_tokens=16)
    put_newest_first(monkeypatch)
    (first,) = make(config, spec)
    grow(config, 5)
    (job,) = make(config, spec)
    before, added = set(first.sample.sequence_ids), set(job.sample.sequence_ids)
    (whole,) = find_jobs(config, replace(UMAP, max_tokens=16))
    sample = set(whole.sample.sequence_ids)
    assert added == sample - before and added and not before <= sample
    assert job.growths[0].displaced == len(before - sample) > 0
    assert {number for _, number in points_of(config, first.map_ids[0])} == before | sample
    assert find_jobs(config, spec) == []


def test_a_part_that_failed_is_tried_again_alone(config: RunConfig) -> None:
    make(config, PCA, UMAP)
    grow(config)
    (failed,) = find_jobs(config, PCA, UMAP)
    units = [
        make_unit(config, failed, index, status) for index, status in enumerate(("failed", "ok"))
    ]
    Lake(config.atlas).commit(MAPS, units)
    (again,) = make(config, PCA, UMAP)
    assert again.map_ids == failed.map_ids[:1]
    assert [g.part for g in again.growths] == [1]
    assert find_jobs(config, PCA, UMAP) == []


def test_a_part_that_another_run_was_faster_with_is_refused(config: RunConfig) -> None:
    (first,) = make(config, PCA)
    grow(config)
    one = find_jobs(config, PCA)
    grow(config)
    two = find_jobs(config, PCA)
    assert [job.growths[0].part for job in (*one, *two)] == [1, 1]
    assert len(commit(config, one)) == 1
    before = points_of(config, first.map_ids[0])
    assert commit(config, two) == []
    assert points_of(config, first.map_ids[0]) == before
    assert len(list((Path(config.atlas) / "points").rglob("*.parquet"))) == 2
    (rest,) = make(config, PCA)
    assert (rest.growths[0].part, len(rest.sample.sequence_ids)) == (2, 4)


def test_a_map_with_sequences_that_are_gone_is_fitted_anew(
    config: RunConfig, tmp_path: Path
) -> None:
    write_source(tmp_path / "b.txt", ["five six"] * 3)
    other = make_config(tmp_path, "b.txt", corpus="other")
    run(other)
    (first,) = make(config, PCA)
    drop(config, corpus="other")
    (second,) = make(config, PCA)
    assert (second.replaces, second.growths) == (first.map_ids, ())
    assert current(config) == set(second.map_ids)


def test_displaced_sequences_that_are_gone_lead_to_a_new_fit(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_newest_first(monkeypatch)
    spec = replace(PCA, max_tokens=1)  # one sequence
    (first,) = make(config, spec)
    write_source(tmp_path / "b.txt", ["five"])
    run(make_config(tmp_path, "b.txt", corpus="other"))
    (job,) = make(config, spec)
    assert (job.growths[0].displaced, job.map_ids) == (1, first.map_ids)
    assert find_jobs(config, spec) == []
    drop(config, corpus="texts")
    (second,) = find_jobs(config, spec)
    assert (second.growths, second.replaces) == ((), first.map_ids)
    assert second.sample.digest == job.growths[0].sample


def test_a_dropped_map_takes_its_parts_with_it(config: RunConfig) -> None:
    (first,) = make(config, PCA)
    grow(config)
    make(config, PCA)
    drop_maps(config, part=0)
    assert points_of(config, first.map_ids[0]) == []
    (second,) = make(config, PCA)
    assert second.growths == () and second.map_ids != first.map_ids
    assert len(points_of(config, second.map_ids[0])) == 12


def test_a_fit_that_is_asked_for_once_replaces_the_map_and_its_parts(config: RunConfig) -> None:
    (first,) = make(config, PCA)
    grow(config)
    make(config, PCA)
    (second,) = make(config, FIT)
    assert (second.replaces, second.growths) == (first.map_ids, ())
    assert current(config) == set(second.map_ids)
    assert find_jobs(config, FIT) == find_jobs(config, PCA) == []
    grow(config)
    (third,) = find_jobs(config, PCA)
    assert third.map_ids == second.map_ids and third.growths[0].part == 1


def test_a_fit_of_the_sequences_that_parts_brought_back_has_a_new_name(config: RunConfig) -> None:
    """The name of a map's first sample is taken by the map that grew from it."""
    (first,) = make(config, FIT)
    grow(config)
    make(config, PCA)
    shards = Snapshot.load(config.atlas).newest_shards().to_pylist()
    drop(config, shard_id=shards[-1]["shard_id"])
    (second,) = make(config, FIT)
    assert np.array_equal(second.sample.sequence_ids, first.sample.sequence_ids)
    assert second.map_ids != first.map_ids and second.replaces == first.map_ids
