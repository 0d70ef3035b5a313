"""Is this the model that the atlas knows under its key? Decided from files, without torch."""

from collections.abc import Iterable
from dataclasses import dataclass
from json import dumps
from typing import Any

from flows.config import RunConfig
from pipeline.model_files import find_model, hash_tokenizer, hash_weights
from store.errors import CaptureConflictError
from store.snapshot import Snapshot

Row = dict[str, Any]


@dataclass(frozen=True)
class Identity:
    """What makes a capture this one: the columns of `models` that a run fixes."""

    source: str
    revision: str | None
    weights_sha256: str
    tokenizer_sha256: str | None
    dtype: str
    precision: str
    max_length: int
    layers: str
    heads: str
    special_tokens: bool
    part_of_speech: str | None
    sample_seed: int
    sample_fraction: float


_FREE = ("source", "revision")  # where the same weights came from does not matter


def identify(config: RunConfig) -> Identity:
    """Hash a model's files and collect the settings that its capture depends on.

    Raises:
        ModelLoadError: the model is not found.
    """
    files = find_model(config.model)
    capture = config.capture
    return Identity(
        source=config.model.name,
        revision=files.revision,
        weights_sha256=hash_weights(files, config.model.random_seed),
        tokenizer_sha256=hash_tokenizer(files),
        dtype=config.model.dtype,
        precision=capture.precision,
        max_length=capture.max_length,
        layers=dumps(capture.layers),
        heads=dumps(capture.heads),
        special_tokens=capture.special_tokens,
        part_of_speech=capture.part_of_speech,
        sample_seed=capture.sample.seed,
        sample_fraction=capture.sample.fraction,
    )


def known_models(snapshot: Snapshot | None, key: str, modality: str) -> list[Row]:
    """The rows of `models` that a run of this key fills: one a stack, checked rows first.

    Of a two-tower model a text corpus fills the text tower only, and images the other. A row
    counts from the moment it is there, captured shards or not: whoever comes after a run that
    stopped early is held to its settings.
    """
    if snapshot is None:
        return []
    other = f"{key}--vision" if modality == "text" else f"{key}--text"
    found: dict[str, Row] = {}
    rows = sorted(
        snapshot.rows("models").to_pylist(), key=lambda row: row["attention_max_abs_error"] is None
    )
    for row in rows:
        model = row["model"]
        own = model == key or model.startswith(f"{key}--")
        if own and model != other:
            found.setdefault(model, row)
    return list(found.values())


def check_identity(config: RunConfig, identity: Identity, known: Iterable[Row]) -> None:
    """Refuse another capture under a key that is taken.

    Raises:
        CaptureConflictError: weights or settings differ.
    """
    for row in known:
        for field, wanted in vars(identity).items():
            if field in _FREE or row[field] == wanted:
                continue
            raise CaptureConflictError(
                f"the atlas holds {config.model.key} with {field} {_short(row[field])}, this run "
                f"has {_short(wanted)}; set model.key to another name, or `qkatlas drop --model "
                f"{row['model']}` first"
            )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 20 else f"{text[:12]}…"
