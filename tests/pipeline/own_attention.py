"""What a model itself attends to, by a forward pass that shares nothing with capture.

A fresh model from the same folder runs with eager attention, one sequence at a time, so that there
is no padding.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.models import LoadedModel
from pipeline.readers import Unit
from store.atlas import Atlas
from store.attention import HeadFacts, attention
from tests.pipeline.captured_lake import Capture

Weights = dict[str, list[NDArray[np.float32]]]
"""Attention of one sequence: stack to layers, each (n_heads, n_queries, n_keys)."""

Change = Callable[[HeadFacts], HeadFacts]


def load_eager(folder: Path, modality: str) -> tuple[Any, Any]:
    """A model and what prepares its input, from their folder."""
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    options: dict[str, Any] = {"attn_implementation": "eager", "dtype": torch.float32}
    make = AutoTokenizer if modality == "text" else AutoImageProcessor
    return AutoModel.from_pretrained(folder, **options).eval(), make.from_pretrained(folder)


def copy_eager(loaded: LoadedModel) -> tuple[Any, Any]:
    """A new model with the weights of a loaded one, where loading takes long."""
    from transformers import AutoModel

    config = type(loaded.model.config).from_dict(loaded.model.config.to_dict())
    model = AutoModel.from_config(config, attn_implementation="eager")
    model.load_state_dict(loaded.model.state_dict())
    return model.eval(), loaded.tokenizer


def own_attention(ready: Capture, model: Any, prepare: Any) -> dict[int, Weights]:
    """The model's own attention in each sequence of a corpus, by sequence id."""
    tower = f"{'text' if ready.loaded.modality == 'text' else 'vision'}_model"
    run = getattr(model, tower, model)
    names = {stack: f"{stack}_attentions" for stack in ("encoder", "decoder", "cross")}
    names[tower.removesuffix("_model") if run is not model else ""] = "attentions"
    found = {}
    for number, unit in ready.units().items():
        with torch.inference_mode():
            inputs = _inputs(model, prepare, unit, ready.extractor.length)
            out = run(**inputs, output_attentions=True)
        found[number] = {
            stack: [layer[0].numpy() for layer in out[name]]
            for stack, name in names.items()
            if out.get(name)
        }
    return found


def _inputs(model: Any, prepare: Any, unit: Unit, length: int) -> dict[str, Any]:
    if unit.image is not None:
        return {"pixel_values": prepare([unit.image], return_tensors="pt").pixel_values}
    ids = prepare(unit.text, truncation=True, max_length=length, return_tensors="pt").input_ids
    if hasattr(model, "_shift_right"):
        return {"input_ids": ids, "decoder_input_ids": model._shift_right(ids)}
    return {"input_ids": ids}


def largest_error(ready: Capture, own: dict[int, Weights], change: Change | None = None) -> float:
    """The largest difference of recomputed and own attention, over all that was captured.

    Args:
        ready: what was captured.
        own: the model's own attention by sequence id.
        change: falsifies a head's facts.
    """
    stacks = {stack.model: stack.stack for stack in ready.stacks}
    errors = []
    with Atlas(ready.uri) as atlas:
        for want in ready.wanted:
            for head in want.heads:
                vectors = atlas.read_head(want.model, want.site.layer, head)
                facts = change(vectors.facts) if change else vectors.facts
                for number, weights in own.items():
                    queries = vectors.queries[vectors.query_at.sequence_id == number]
                    keys = vectors.keys[vectors.key_at.sequence_id == number]
                    expected = weights[stacks[want.model]][want.site.layer][head]
                    found = attention(queries, keys, facts)
                    assert found.shape == expected.shape
                    errors.append(np.abs(found - expected).max())
    return float(np.max(errors))  # NaN where any is NaN
