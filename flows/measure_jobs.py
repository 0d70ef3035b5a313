"""Which heads still need measures, decided from the table `measures` alone.

Measures of the corpus and the induction score are taken apart from each other, as the latter has
sequences of its own and needs the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from flows.samples import HeadJob, Sample, list_heads, name_capture, take_sequences
from pipeline.settings import InductionSpec, MeasureSpec
from store.atlas import Atlas

INDUCTION = "induction"
"""Name of the measure that is taken on random sequences."""

Head = tuple[str, int, int]
"""Model key, layer and query head."""


@dataclass(frozen=True)
class InductionJob:
    """Heads that need an induction score, of one or more stacks of a model."""

    heads: tuple[Head, ...]
    samples: dict[str, str]
    """For each model key, the token of the sequences and the capture."""
    spec: InductionSpec


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


def find_induction_job(
    spec: MeasureSpec | None, atlas: Atlas, models: Sequence[str]
) -> InductionJob | None:
    """Heads whose newest induction score has another seed, count, length or capture, or none."""
    if spec is None:
        return None
    induction = InductionSpec(seed=spec.seed)
    samples = {model: name_repeats(induction, name_capture(atlas, model)) for model in models}
    heads: list[Head] = []
    for model, sample in samples.items():
        newest = _newest_samples(atlas, model, is_induction=True)
        heads += [(model, *at) for at in list_heads(atlas, model) if newest.get(at) != sample]
    return InductionJob(tuple(heads), samples, induction) if heads else None


def name_repeats(spec: InductionSpec, capture: str) -> str:
    """A token of the random sequences and of the capture whose heads read them."""
    return f"repeats-{spec.sequences}x{spec.block}-seed-{spec.seed}-{capture}"


def _measured_heads(atlas: Atlas, model: str, sample: Sample) -> set[tuple[int, int]]:
    """Heads whose measures of the highest generation are of this sample."""
    newest = _newest_samples(atlas, model, is_induction=False)
    return {head for head, digest in newest.items() if digest == sample.digest}


def _newest_samples(
    atlas: Atlas, model: str, is_induction: bool
) -> dict[tuple[int, int], str | None]:
    """For each head the sample of its newest induction score, or of its newest other measures."""
    rows = atlas.snapshot.rows("measures")
    newest: dict[tuple[int, int], dict[str, Any]] = {}
    for row in rows.filter(pc.equal(rows["model"], model)).to_pylist():
        head = (row["layer"], row["head"])
        if (row["measure"] == INDUCTION) != is_induction:
            continue
        if head not in newest or row["generation"] > newest[head]["generation"]:
            newest[head] = row
    return {head: row["sample"] for head, row in newest.items()}
