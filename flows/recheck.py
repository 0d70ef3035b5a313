"""Asking for verification again: attention recomputed from the atlas against the model's own.

Capture checks a new model once, on vectors that never left memory. This checks what the lake holds:
stored vectors and stored facts of every captured head, against transformers' eager attention.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flows.config import RunConfig
from flows.environment import prepare_environment
from flows.identity import Row, check_identity, identify, known_models
from flows.samples import take_sequences
from flows.work import find_visible, load_snapshot
from flows.worker import CaptureWorker
from pipeline.corpus import fingerprint, list_sources, modality
from pipeline.inputs import Encoded, encode_units, forward, make_inputs
from pipeline.readers import Unit, read_units
from pipeline.settings import CorpusSpec
from pipeline.stacks import StackShape
from pipeline.tap import eager_attention
from pipeline.verify import STORED_LIMIT
from store.atlas import Atlas
from store.attention import attention
from store.errors import (
    CaptureMismatchError,
    NotInAtlasError,
    SourceChangedError,
    SourceNotFoundError,
    UnsupportedModelError,
)
from store.vectors import HeadVectors

Visitor = Callable[[int, NDArray[np.float32]], None]

KERNEL_LIMIT = {"float32": 0.0, "float16": 2e-2, "bfloat16": 0.2}
"""What two kernels of one model may differ by in its dtype: by 0.08 in SmolLM2's bfloat16."""


@dataclass(frozen=True)
class Recheck:
    """How near the atlas's attention comes to a model's own."""

    model: str
    max_abs_error: float
    limit: float
    """Largest difference that is allowed."""
    n_heads: int
    n_sequences: int
    n_tokens: int


@dataclass
class _Worst:
    """The largest difference that was seen, and where."""

    error: float = 0.0
    where: str = ""

    def see(self, error: float, where: str) -> None:
        if not error <= self.error:  # a NaN counts as worse
            self.error, self.where = error, where


def verify_atlas(config: RunConfig, n_sequences: int) -> list[Recheck]:
    """Compare what the atlas holds for a configuration with the model, a row a model key.

    Args:
        config: names atlas, model and corpus; the corpus tells whether the model reads text.
        n_sequences: how many to compare, in hash order; the longest one is always added.

    Raises:
        NotInAtlasError: nothing was captured under the model's key.
        CaptureConflictError: the atlas holds other weights or settings under it.
        CaptureMismatchError: attention differs by more than the limit.
        SourceNotFoundError, SourceChangedError: an image is gone or another one now.
    """
    prepare_environment()
    kind = modality(list_sources(config.corpus))
    snapshot = load_snapshot(config.atlas)
    known = known_models(snapshot, config.model.key, kind)
    visible = find_visible(snapshot, [row["model"] for row in known])
    if not visible:
        raise NotInAtlasError(
            f"the atlas {config.atlas} holds no captured sequence of {config.model.key}: "
            "capture it with `qkatlas run`"
        )
    check_identity(config, identify(config), known)
    worker = CaptureWorker(config, kind, n_workers=1, strict=False)
    rows = [row for row in known if row["model"] in visible]
    with Atlas(config.atlas) as atlas:
        return _compare_models(worker, atlas, rows, n_sequences)


def _compare_models(
    worker: CaptureWorker, atlas: Atlas, rows: Sequence[Row], n_sequences: int
) -> list[Recheck]:
    """Compare the stacks that the atlas holds, all on the same sequences."""
    held = {row["model"]: row for row in rows}
    stacks = [stack for stack in worker.stacks if stack.model in held]
    chosen = _choose_sequences(atlas, [stack.model for stack in stacks], n_sequences)
    inputs = _rebuild_inputs(worker, atlas, stacks[0].model, chosen)
    vectors = _read_vectors(atlas, stacks, [int(n) for n in chosen["sequence_id"].to_pylist()])
    worst = {model: _Worst() for model in held}
    for sequence_id, encoded in inputs:
        _compare_sequence(worker, vectors, sequence_id, encoded, worst)
    found = []
    for stack in stacks:
        row = held[stack.model]
        limit = max(STORED_LIMIT[row["precision"]], KERNEL_LIMIT[row["dtype"]])
        _refuse_mismatch(stack.model, worst[stack.model], limit)
        n_heads = sum(model == stack.model for model, _, _ in vectors)
        n_tokens = sum(chosen["n_tokens"].to_pylist())
        error = worst[stack.model].error
        found.append(Recheck(stack.model, error, limit, n_heads, len(chosen), n_tokens))
    return found


def _choose_sequences(atlas: Atlas, models: Sequence[str], count: int) -> pa.Table:
    """Sequences that all the models have: some in hash order, and the longest."""
    tables = [atlas.sequences(model) for model in models]
    ids = [set(table["sequence_id"].to_pylist()) for table in tables]
    shared = reduce(set.intersection, ids)
    if not shared:
        raise NotInAtlasError(
            f"no sequence is captured for all of {', '.join(models)}: run `qkatlas run` to its end"
        )
    table = tables[0].filter(pa.array([n in shared for n in tables[0]["sequence_id"].to_pylist()]))
    wanted = set(take_sequences(table, 0, count).sequence_ids.tolist())
    wanted.add(table["sequence_id"][int(np.argmax(table["n_tokens"].to_numpy()))].as_py())
    return table.filter(pa.array([n in wanted for n in table["sequence_id"].to_pylist()]))


def _rebuild_inputs(
    worker: CaptureWorker, atlas: Atlas, model: str, chosen: pa.Table
) -> Iterator[tuple[int, Encoded]]:
    """What the model read of each sequence: stored token ids, or the image file read again."""
    if worker.loaded.modality == "image":
        for row in chosen.to_pylist():
            unit = _read_image(atlas, row)
            yield row["sequence_id"], encode_units(worker.loaded, [unit], worker.length)[0]
        return
    tokens = atlas.tokens(model, chosen["sequence_id"].to_pylist())
    owner = tokens["sequence_id"].to_numpy()
    ids = tokens["vocab_id"].to_numpy().astype(np.int32)
    special = tokens["is_special"].to_numpy(zero_copy_only=False)
    for sequence_id in np.unique(owner):
        own = owner == sequence_id
        n_tokens = int(own.sum())
        yield int(sequence_id), Encoded(n_tokens, False, special[own], vocab_id=ids[own])


def _read_image(atlas: Atlas, row: Row) -> Unit:
    """Read the image of a sequence from its file.

    Raises:
        SourceNotFoundError, SourceChangedError: it is not what was captured.
    """
    corpus = CorpusSpec(row["corpus"], (row["source"],))
    file = list_sources(corpus)[0]
    known = {
        known["fingerprint"].partition(" ")[0]  # behind it stands how the file was cut
        for known in atlas.snapshot.rows("files").to_pylist()
        if (known["corpus"], known["source"]) == (row["corpus"], row["source"])
    }
    if fingerprint(file) not in known:
        raise SourceChangedError(
            f"{file.source} changed since it was captured, so the atlas cannot be checked against "
            "it: restore it"
        )
    for unit in read_units(file, corpus):
        if isinstance(unit, Unit) and unit.row == row["row"]:
            return unit
    raise SourceNotFoundError(f"{file.source} cannot be read any more: restore it")


def _read_vectors(
    atlas: Atlas, stacks: Sequence[StackShape], sequence_ids: Sequence[int]
) -> dict[tuple[str, int, int], HeadVectors]:
    """Stored vectors and facts of every captured head, by (model, layer, head)."""
    models = {stack.model for stack in stacks}
    rows = atlas.snapshot.rows("heads").select(["model", "layer", "head"]).to_pylist()
    heads = [(r["model"], r["layer"], r["head"]) for r in rows if r["model"] in models]
    return {
        (model, layer, head): atlas.read_head(model, layer, head, sequence_ids)
        for model, layer, head in heads
    }


def _compare_sequence(
    worker: CaptureWorker,
    vectors: dict[tuple[str, int, int], HeadVectors],
    sequence_id: int,
    encoded: Encoded,
    worst: dict[str, _Worst],
) -> None:
    """Run the model on one sequence and compare every captured head."""
    models = {stack.stack: stack.model for stack in worker.stacks}

    def visit(index: int, own: NDArray[np.float32]) -> None:
        site = worker.sites[index]
        for head in range(site.n_heads):
            found = vectors.get((models[site.stack], site.layer, head))
            if found is None:
                continue
            queries = found.queries[found.query_at.sequence_id == sequence_id]
            keys = found.keys[found.key_at.sequence_id == sequence_id]
            error = np.abs(attention(queries, keys, found.facts) - own[head]).max()
            where = f"layer {site.layer}, head {head}, sequence {sequence_id}"
            worst[found.model].see(float(error), where)

    run_eager(worker, encoded, visit)


def run_eager(worker: CaptureWorker, encoded: Encoded, visit: Visitor) -> None:
    """Run a model's own eager attention over one sequence and show it, call by call.

    Args:
        worker: with the model and its traced calls.
        encoded: the sequence, without padding.
        visit: gets the call's number and its weights, shape (n_heads, n_queries, n_keys).

    Raises:
        UnsupportedModelError: a module returns no attention weights.
    """
    loaded, names = worker.loaded, dict(worker.loaded.model.named_modules())
    modules = {id(names[site.module]): names[site.module] for site in worker.sites}
    seen = 0

    def show(module: nn.Module, _: object, output: Any) -> None:
        nonlocal seen
        visit(seen, _find_weights(module, output, worker.sites[seen].n_heads))
        seen += 1

    hooks = [module.register_forward_hook(show) for module in modules.values()]
    try:
        with torch.inference_mode(), eager_attention(loaded.model):
            forward(loaded, make_inputs(loaded, [encoded]))
    finally:
        for hook in hooks:
            hook.remove()


def _find_weights(module: nn.Module, output: Any, n_heads: int) -> NDArray[np.float32]:
    """The attention weights among what an eager attention module returns."""
    for part in reversed(output) if isinstance(output, tuple) else ():  # T5 has a bias before
        if isinstance(part, Tensor) and part.ndim == 4 and part.shape[:2] == (1, n_heads):
            weights: NDArray[np.float32] = part[0].float().cpu().numpy()
            return weights
    raise UnsupportedModelError(
        f"{type(module).__name__} returns no attention weights from its eager attention, "
        "so the atlas cannot be checked against it"
    )


def _refuse_mismatch(model: str, worst: _Worst, limit: float) -> None:
    if not worst.error <= limit:
        raise CaptureMismatchError(
            f"{model}, {worst.where}: attention recomputed from the atlas differs from the model's "
            f"own by {worst.error:.2g}, expected at most {limit:.0e}; look whether versions of "
            "torch and transformers changed, or drop the model and capture it again"
        )
