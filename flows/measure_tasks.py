"""What Ray tasks do to measure heads: one head over the corpus, or all on random sequences."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from flows.config import RunConfig
from flows.head_tasks import HeadTask, open_atlas
from flows.measure_jobs import INDUCTION, InductionJob
from pipeline.measures import TokenFacts, measure_head, punctuation
from store.atlas import Atlas
from store.vectors import Positions

Row = dict[str, Any]


def measure_one(task: HeadTask) -> list[Row]:
    """A head's measures as rows without generation."""
    atlas = open_atlas(task.uri, task.version)
    job = task.job
    head = atlas.read_head(job.model, job.layer, job.head, job.sample.sequence_ids.tolist())
    row = next(r for r in atlas.models().to_pylist() if r["model"] == job.model)
    query_tokens = _token_facts(atlas, row["query_model"], job.sample.digest, head.query_at)
    key_tokens = _token_facts(atlas, row["key_model"], job.sample.digest, head.key_at)
    values = measure_head(head, query_tokens, key_tokens)
    return [
        {
            "model": job.model,
            "layer": job.layer,
            "head": job.head,
            "measure": name,
            "value": value,
            "corpora": job.sample.corpora,
            "sample": job.sample.digest,
            "n_sequences": len(job.sample.sequence_ids),
            "n_tokens": job.sample.n_tokens,
        }
        for name, value in values.items()
    ]


_token_cache: dict[tuple[str, str, str], TokenFacts] = {}


def _token_facts(atlas: Atlas, model: str, digest: str, at: Positions) -> TokenFacts:
    """The tokens at a sample's positions; the same for every head of a model, so read once."""
    key = (atlas.uri, model, digest)
    if key not in _token_cache:
        _token_cache.clear()
        _token_cache[key] = read_token_facts(atlas, model, np.unique(at.sequence_id).tolist())
    return _token_cache[key]


def read_token_facts(atlas: Atlas, model: str, sequence_ids: Sequence[int]) -> TokenFacts:
    """What measures need to know of the tokens of some sequences."""
    rows = atlas.tokens(model, sequence_ids).sort_by(
        [("sequence_id", "ascending"), ("position", "ascending")]
    )
    return TokenFacts(
        rows["sequence_id"].to_numpy(),
        rows["position"].to_numpy().astype(np.int64),
        rows["vocab_id"].fill_null(-1).to_numpy().astype(np.int64),
        rows["is_special"].to_numpy(zero_copy_only=False),
        punctuation(rows["token"].to_pylist()),
        rows["part_of_speech"].fill_null("").to_numpy(zero_copy_only=False),
    )


@dataclass(frozen=True)
class InductionTask:
    """Heads of a run whose induction score is missing."""

    config: RunConfig
    modality: str
    job: InductionJob

    @property
    def place(self) -> str:
        """The heads in words."""
        return f"{', '.join(self.job.samples)}, induction"


def measure_induction(task: InductionTask) -> list[Row]:
    """Induction scores as rows without generation; the model is loaded unless all are undefined."""
    if task.modality == "image":
        return [_induction_row(task.job, *head, None) for head in task.job.heads]
    from flows.worker import CaptureWorker

    worker = CaptureWorker(task.config, task.modality, 1, strict=False)
    with Atlas(task.config.atlas) as atlas:
        repeats, scores = worker.score_induction(task.job.spec, cache(atlas.facts))
    size = (0, 0) if repeats is None else (len(repeats.encoded), repeats.n_tokens)
    return [_induction_row(task.job, *head, scores[head], *size) for head in task.job.heads]


def _induction_row(
    job: InductionJob,
    model: str,
    layer: int,
    head: int,
    value: float | None,
    n_sequences: int = 0,
    n_tokens: int = 0,
) -> Row:
    return {
        "model": model,
        "layer": layer,
        "head": head,
        "measure": INDUCTION,
        "value": value,
        "corpora": "[]",
        "sample": job.samples[model],
        "n_sequences": n_sequences,
        "n_tokens": n_tokens,
    }
