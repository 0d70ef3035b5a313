"""Which sequences maps and measures are made of, and which heads still need them."""

from json import dumps
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.config import RunConfig
from flows.measure_jobs import find_measure_jobs
from flows.samples import HeadJob, hash_order, take_heldout, take_sequences, take_tokens
from pipeline.sampling import sample_hash
from pipeline.settings import MeasureSpec
from store.atlas import Atlas
from store.lake import Lake
from tests.flows.small_runs import capture_eight, grow, make_config, run, write_source

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
    order = hash_order(sequences, seed)
    sample = take_tokens(sequences, order, max_tokens)
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


@given(TOKENS, st.integers(1, 500), st.integers(0, 5))
def test_heldout_sequences_come_right_after_those_on_the_map(
    n_tokens: list[int], max_tokens: int, seed: int
) -> None:
    sequences = table(n_tokens)
    order = hash_order(sequences, seed)
    sample = take_tokens(sequences, order, max_tokens)
    heldout = take_heldout(sequences, order, max_tokens)
    n_taken = len(sample.sequence_ids)
    end = n_taken + len(heldout)
    assert heldout.tolist() == sorted(order[n_taken:end])
    found = sum(n_tokens[i] for i in heldout.tolist())
    assert found <= sample.n_tokens / 5
    assert end == len(n_tokens) or found + n_tokens[order[end]] > sample.n_tokens // 5


def test_heldout_sequences_are_bounded_and_there_may_be_none() -> None:
    many = table([100] * 400)
    order = hash_order(many, 0)
    assert len(take_heldout(many, order, 30_000)) == 25
    assert len(take_heldout(many, order, 40_000)) == 0


# measures


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return capture_eight(tmp_path)


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
    tried = (find_measures(config, MeasureSpec(sequences=4, seed=seed)) for seed in range(1, 20))
    (other,) = next(found for found in tried if found)  # some seeds draw the same four
    assert other.sample.n_tokens == job.sample.n_tokens
    assert set(other.sample.sequence_ids) != set(job.sample.sequence_ids)
