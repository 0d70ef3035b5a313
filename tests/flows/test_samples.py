"""Which sequences maps and measures are made of, and which heads still need them."""

from dataclasses import replace
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.config import RunConfig
from flows.identity import Row
from flows.samples import (
    HeadJob,
    find_map_jobs,
    find_measure_jobs,
    hash_order,
    name_map,
    settings_of,
    take_sequences,
    take_tokens,
)
from pipeline.sampling import sample_hash
from pipeline.settings import MapSpec, MeasureSpec
from store.atlas import Atlas
from store.lake import MAPS, Lake
from store.schema import TABLES
from tests.flows.small_runs import drop, make_config, run, with_capture, write_source

PCA, UMAP = MapSpec("pca"), MapSpec("umap")
ALL = MeasureSpec()


def table(n_tokens: list[int]) -> pa.Table:
    rows = [
        {"corpus": f"c{n % 2}", "source": f"{n % 3}.txt", "row": n, "sequence_id": n, "n_tokens": k}
        for n, k in enumerate(n_tokens)
    ]
    schema = pa.schema(
        [("corpus", pa.string()), ("source", pa.string())]
        + [(name, pa.int64()) for name in ("row", "sequence_id", "n_tokens")]
    )
    return pa.Table.from_pylist(rows, schema=schema)


TOKENS = st.lists(st.integers(1, 50), min_size=1, max_size=40)


@given(TOKENS, st.integers(0, 5), st.randoms(use_true_random=False))
def test_hash_order_does_not_depend_on_the_tables_order(
    n_tokens: list[int], seed: int, draw: Any
) -> None:
    sequences = table(n_tokens)
    mixed = sequences.take(pa.array(draw.sample(range(len(n_tokens)), len(n_tokens))))
    order = [t["row"].take(pa.array(hash_order(t, seed))).to_pylist() for t in (sequences, mixed)]
    assert order[0] == order[1]
    rows = sequences.to_pylist()
    plain = sorted(rows, key=lambda r: sample_hash(r["corpus"], r["source"], r["row"], seed))
    assert order[0] == [row["row"] for row in plain]


@given(TOKENS, st.integers(1, 500), st.integers(0, 5))
def test_taking_tokens_stays_within_the_bound(
    n_tokens: list[int], max_tokens: int, seed: int
) -> None:
    sequences = table(n_tokens)
    sample = take_tokens(sequences, seed, max_tokens)
    order = hash_order(sequences, seed)
    count = len(sample.sequence_ids)
    assert count >= 1
    assert sample.n_tokens == sum(n_tokens[i] for i in order[:count])
    assert sample.n_tokens <= max_tokens or count == 1
    assert count == len(n_tokens) or sample.n_tokens + n_tokens[order[count]] > max_tokens
    assert sample.sequence_ids.tolist() == sorted(order[:count])


@given(TOKENS, st.integers(1, 60))
def test_taking_sequences_takes_the_first_in_hash_order(n_tokens: list[int], count: int) -> None:
    sequences = table(n_tokens)
    sample = take_sequences(sequences, 0, count)
    assert sample.sequence_ids.tolist() == sorted(hash_order(sequences, 0)[:count])
    assert sample.corpora == dumps(sorted({f"c{n % 2}" for n in sample.sequence_ids.tolist()}))
    more = take_sequences(sequences, 0, count + 1)
    assert set(sample.sequence_ids) <= set(more.sequence_ids)


def test_a_maps_id_is_stable_and_follows_every_setting() -> None:
    sample = take_tokens(table([3, 4, 5]), 0, 100)
    name = name_map("m", 0, 1, PCA, sample)
    assert name == name_map("m", 0, 1, MapSpec("pca"), take_tokens(table([3, 4, 5]), 0, 99))
    changed = [replace(PCA, dims=3), replace(PCA, joint="balance"), replace(PCA, seed=1), UMAP]
    others = [name_map("m", 0, 1, spec, sample) for spec in changed]
    others += [name_map("m", 1, 1, PCA, sample), name_map("n", 0, 1, PCA, sample)]
    others += [name_map("m", 0, 1, PCA, take_tokens(table([3, 4, 5]), 0, 7))]
    others += [name_map("m", 0, 1, PCA, replace(sample, capture="other weights"))]
    others += [name_map("m", 0, 1, PCA, sample, 1)]
    assert len({name, *others}) == len(others) + 1


# jobs


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    write_source(tmp_path / "a.txt", [f"one two {n}" for n in range(8)])
    config = make_config(tmp_path, "a.txt")
    run(config)
    return config


def grow(config: RunConfig, count: int = 4) -> None:
    source = Path(config.corpus.sources[0])
    write_source(source, [f"more {n}" for n in range(count)], "a")
    run(config)


def find_jobs(config: RunConfig, *specs: MapSpec) -> list[HeadJob]:
    with Atlas(config.atlas) as atlas:
        return find_map_jobs(specs, atlas, ["tiny"])


def make(config: RunConfig, *specs: MapSpec, status: str = "ok") -> list[HeadJob]:
    """Write the ledger rows of all jobs, as if the maps had been made."""
    jobs = find_jobs(config, *specs)
    zero: dict[Any, object] = {pa.string(): ""}
    blank: Row = {f.name: zero.get(f.type, 0) for f in TABLES["maps"].schema if not f.nullable}
    rows = []
    for job in jobs:
        for spec, name, older in zip(job.specs, job.map_ids, job.replaces, strict=True):
            place = {"model": job.model, "layer": job.layer, "head": job.head, "map_id": name}
            parameters = dumps({"settings": settings_of(spec), "own": 1})
            own = {"parameters": parameters, "status": status, "replaces": older, "dims": spec.dims}
            rows.append({**blank, **place, **own})
    Lake(config.atlas).commit_rows(MAPS, rows)
    return jobs


def current(config: RunConfig) -> set[str]:
    with Atlas(config.atlas) as atlas:
        return set(atlas.sql("SELECT map_id FROM current_maps")["map_id"].to_pylist())


def test_missing_maps_are_asked_for_once(config: RunConfig) -> None:
    (job,) = make(config, PCA, UMAP, PCA)
    assert (job.model, job.layer, job.head, job.specs) == ("tiny", 0, 0, (PCA, UMAP))
    assert job.replaces == (None, None)
    assert find_jobs(config, PCA, UMAP) == []
    assert find_jobs(config) == []


def test_a_failed_map_is_asked_for_again_under_its_name(config: RunConfig) -> None:
    (failed,) = make(config, PCA, status="failed")
    (again,) = find_jobs(config, PCA)
    assert again.map_ids == failed.map_ids


def test_new_sequences_give_a_map_that_replaces_the_one_of_its_settings(config: RunConfig) -> None:
    (first,) = make(config, PCA, UMAP)
    grow(config)
    (second,) = make(config, PCA)
    assert second.replaces == first.map_ids[:1]
    assert current(config) == {first.map_ids[1], *second.map_ids}
    (third,) = find_jobs(config, UMAP)
    assert third.replaces == first.map_ids[1:]


def test_other_settings_are_another_series(config: RunConfig) -> None:
    (first,) = make(config, PCA)
    (second,) = make(config, replace(PCA, dims=3))
    assert second.replaces == (None,)
    assert current(config) == {*first.map_ids, *second.map_ids}


def test_going_back_to_a_former_sample_makes_that_map_current_again(config: RunConfig) -> None:
    small, large = replace(PCA, max_tokens=9), replace(PCA, max_tokens=900)
    (first,) = make(config, small)
    (second,) = make(config, large)
    assert second.replaces == first.map_ids
    (third,) = make(config, small)
    assert third.replaces == second.map_ids
    assert third.map_ids != first.map_ids
    assert current(config) == set(third.map_ids)
    assert find_jobs(config, small) == []


def test_two_sizes_asked_for_together_do_not_replace_each_other(config: RunConfig) -> None:
    small, large = replace(PCA, max_tokens=9), replace(PCA, max_tokens=900)
    (first,) = make(config, small)
    made = make(config, small, large)
    assert [job.replaces for job in made] == [(None,)]
    assert current(config) == {*first.map_ids, *made[0].map_ids}
    assert find_jobs(config, large, small) == []


def test_a_dropped_map_is_made_again_under_a_new_name(config: RunConfig) -> None:
    (first,) = make(config, PCA)
    with Atlas(config.atlas) as atlas:
        row = atlas.snapshot.newest_maps().to_pylist()[0]
    Lake(config.atlas).commit_rows(MAPS, [row | {"status": "dropped"}])
    (second,) = make(config, PCA)
    assert second.map_ids != first.map_ids
    assert second.replaces == (None,)
    assert current(config) == set(second.map_ids)


def test_maps_of_a_model_that_came_back_with_other_settings_are_new(config: RunConfig) -> None:
    (first,) = make(config, PCA)
    drop(config, model="tiny")
    other = with_capture(config, max_length=9)
    run(other)
    (second,) = find_jobs(other, PCA)
    assert np.array_equal(first.sample.sequence_ids, second.sample.sequence_ids)
    assert second.map_ids != first.map_ids


# measures


def measure(config: RunConfig, job: HeadJob, generation: int) -> None:
    row = {
        "model": job.model,
        "layer": job.layer,
        "head": job.head,
        "measure": "entropy",
        "value": 0.5,
        "corpora": job.sample.corpora,
        "sample": job.sample.digest,
        "n_sequences": len(job.sample.sequence_ids),
        "n_tokens": job.sample.n_tokens,
        "generation": generation,
    }
    Lake(config.atlas).append("measures", lambda _: [row], "measures")


def find_measures(config: RunConfig, spec: MeasureSpec | None = ALL) -> list[HeadJob]:
    with Atlas(config.atlas) as atlas:
        return find_measure_jobs(spec, atlas, ["tiny"])


def test_measures_are_taken_once_and_again_when_sequences_come(config: RunConfig) -> None:
    (job,) = find_measures(config)
    measure(config, job, 1)
    assert find_measures(config) == []
    grow(config)
    (again,) = find_measures(config)
    assert len(again.sample.sequence_ids) == 12
    measure(config, again, 2)
    assert find_measures(config) == []


def test_the_newest_generation_of_measures_counts(config: RunConfig) -> None:
    (job,) = find_measures(config)
    (few,) = find_measures(config, MeasureSpec(sequences=2))
    measure(config, few, 2)
    measure(config, job, 1)
    assert len(find_measures(config)) == 1
    assert find_measures(config, MeasureSpec(sequences=2)) == []


def test_measures_are_taken_again_when_a_corpus_comes(config: RunConfig, tmp_path: Path) -> None:
    (job,) = find_measures(config)
    measure(config, job, 1)
    write_source(tmp_path / "b.txt", ["five six"])
    run(make_config(tmp_path, "b.txt", corpus="other"))
    (again,) = find_measures(config)
    assert again.sample.corpora == '["other", "texts"]'
    assert find_measures(config, None) == []


def test_measures_of_other_sequences_of_the_same_size_are_taken_again(config: RunConfig) -> None:
    (job,) = find_measures(config, MeasureSpec(sequences=4, seed=0))
    measure(config, job, 1)
    (other,) = find_measures(config, MeasureSpec(sequences=4, seed=1))
    assert other.sample.n_tokens == job.sample.n_tokens
    assert set(other.sample.sequence_ids) != set(job.sample.sequence_ids)
