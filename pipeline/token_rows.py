"""The tables `tokens` and `sequences`: what describes each position and each sequence."""

import colorsys
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.inputs import Encoded, decoder_start, image_tokens, picture
from pipeline.models import LoadedModel
from pipeline.readers import Unit
from store.schema import TABLES


@dataclass(frozen=True)
class SequenceRecord:
    """A unit of the corpus as the model read it."""

    sequence_id: int
    corpus: str
    source: str
    unit: Unit
    encoded: Encoded


class TokenRows:
    """Makes the rows that describe sequences and tokens for one loaded model."""

    def __init__(self, loaded: LoadedModel) -> None:
        """Read the vocabulary once."""
        self._loaded = loaded
        tokenizer = loaded.tokenizer
        self._vocabulary = pa.array([], pa.string())
        if tokenizer is not None:
            ids = list(range(len(tokenizer)))
            self._vocabulary = pa.array(tokenizer.convert_ids_to_tokens(ids), pa.string())

    def sequences(self, records: Sequence[SequenceRecord]) -> pa.Table:
        """Rows of the table `sequences`."""
        is_image = self._loaded.modality == "image"
        columns = {
            "corpus": [record.corpus for record in records],
            "sequence_id": [record.sequence_id for record in records],
            "source": [record.source for record in records],
            "row": [record.unit.row for record in records],
            "char_offset": [record.unit.char_offset for record in records],
            "n_tokens": [record.encoded.n_tokens for record in records],
            "truncated": [record.encoded.truncated for record in records],
            "text": [record.unit.text for record in records],
            "image": [self._png(record.encoded) if is_image else None for record in records],
            "labels": [list(record.unit.labels.items()) for record in records],
        }
        return pa.table(columns, schema=_schema("sequences"))

    def tokens(self, records: Sequence[SequenceRecord], stack: str) -> pa.Table:
        """Rows of the table `tokens`, as the given stack reads the sequences."""
        columns: dict[str, Any] = {
            "sequence_id": np.repeat(
                np.array([record.sequence_id for record in records], np.int64),
                [record.encoded.n_tokens for record in records],
            ),
            "position": np.concatenate(
                [np.arange(record.encoded.n_tokens, dtype=np.int32) for record in records]
            ),
        }
        encoded = [record.encoded for record in records]
        if self._loaded.modality == "image":
            columns |= self._patch_columns(encoded)
        else:
            if stack == "decoder" and self._loaded.is_encoder_decoder:
                start = decoder_start(self._loaded)
                encoded = [_shifted(sequence, start) for sequence in encoded]
            columns |= self._text_columns(encoded)
        schema = _schema("tokens")
        n = len(columns["position"])
        arrays = [
            pa.array(columns[field.name], type=field.type)
            if field.name in columns
            else pa.nulls(n, field.type)
            for field in schema
        ]
        return pa.Table.from_arrays(arrays, schema=schema)

    def _text_columns(self, encoded: Sequence[Encoded]) -> dict[str, Any]:
        ids = np.concatenate([e.vocab_id for e in encoded if e.vocab_id is not None])
        columns: dict[str, Any] = {
            "token": self._vocabulary.take(pa.array(ids)),
            "vocab_id": ids,
            "is_special": np.concatenate([sequence.is_special for sequence in encoded]),
        }
        if all(sequence.char_start is not None for sequence in encoded):
            columns["char_start"] = _nullable(encoded, "char_start")
            columns["char_end"] = _nullable(encoded, "char_end")
        tags = [e.part_of_speech for e in encoded if e.part_of_speech is not None]
        if tags:
            columns["part_of_speech"] = pa.array(np.concatenate(tags), pa.string())
        return columns

    def _patch_columns(self, encoded: Sequence[Encoded]) -> dict[str, Any]:
        """Place and mean colour of each patch; tokens that are no patches come first."""
        columns: dict[str, list[NDArray[np.float64]]] = {}
        for sequence in encoded:
            for name, values in self._patches(sequence).items():
                columns.setdefault(name, []).append(values)
        joined = {name: np.concatenate(parts) for name, parts in columns.items()}
        special = np.concatenate([sequence.is_special for sequence in encoded])
        return {
            "is_special": special,
            **{
                name: pa.array(
                    values.astype(np.int32) if name.startswith("patch_") else values, mask=special
                ).cast(_schema("tokens").field(name).type)
                for name, values in joined.items()
            },
        }

    def _patches(self, sequence: Encoded) -> dict[str, NDArray[np.float64]]:
        if sequence.pixels is None:
            raise TypeError("an image without pixels")
        _, (rows, columns) = image_tokens(self._loaded, _size(sequence.pixels))
        shown = np.asarray(picture(self._loaded, sequence.pixels, None), dtype=np.float64) / 255
        high, wide = shown.shape[0] // rows, shown.shape[1] // columns
        cells = shown[: rows * high, : columns * wide].reshape(rows, high, columns, wide, 3)
        colours = cells.mean(axis=(1, 3)).reshape(-1, 3)
        hsv = np.array([colorsys.rgb_to_hsv(*colour) for colour in colours])
        grid = np.stack(np.divmod(np.arange(rows * columns), columns), axis=1)
        front = np.zeros((sequence.n_tokens - rows * columns, 5))
        values = np.concatenate([front, np.concatenate([grid, hsv], axis=1)])
        names = ("patch_row", "patch_col", "hue", "saturation", "brightness")
        return dict(zip(names, values.T, strict=True))

    def _png(self, sequence: Encoded) -> bytes:
        if sequence.pixels is None:
            raise TypeError("an image without pixels")
        file = io.BytesIO()
        picture(self._loaded, sequence.pixels).save(file, "PNG")
        return file.getvalue()


def _size(pixels: NDArray[np.float32]) -> tuple[int, int]:
    return int(pixels.shape[-2]), int(pixels.shape[-1])


def _schema(table: str) -> pa.Schema:
    return TABLES[table].file_schema.remove_metadata()


def _nullable(encoded: Sequence[Encoded], name: str) -> pa.Array:
    values = np.concatenate([getattr(sequence, name) for sequence in encoded])
    return pa.array(values, mask=values < 0)


def _shifted(sequence: Encoded, start: int) -> Encoded:
    """The tokens that a decoder reads at the positions of a sequence."""

    def shift(values: Any, first: Any) -> Any:
        return (
            None if values is None else np.concatenate([[first], values[:-1]]).astype(values.dtype)
        )

    return Encoded(
        sequence.n_tokens,
        sequence.truncated,
        shift(sequence.is_special, True),
        shift(sequence.vocab_id, start),
        shift(sequence.char_start, -1),
        shift(sequence.char_end, -1),
        shift(sequence.part_of_speech, None),
    )
