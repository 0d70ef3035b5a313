"""From units of a corpus to tensors: tokens or pixels, batches, the forward pass."""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.models import LoadedModel
from pipeline.readers import Unit
from pipeline.tap import AttentionCall, StopForward, run_forward
from store.errors import ConfigError, UnsupportedModelError

_UNLIMITED = 1_000_000  # tokenizers without a limit of their own report a huge number
_IMAGE_SIDE = 256
_PROBE_LENGTHS = (5, 9, 7)


@dataclass(frozen=True)
class Encoded:
    """One sequence as the model reads it, without padding. Arrays have shape (n_tokens,)."""

    n_tokens: int
    truncated: bool
    is_special: NDArray[np.bool_]
    vocab_id: NDArray[np.int32] | None = None
    char_start: NDArray[np.int32] | None = None
    """First character; -1 for special tokens. None where the tokenizer does not tell."""
    char_end: NDArray[np.int32] | None = None
    part_of_speech: NDArray[np.object_] | None = None
    """Tag of the word that a token belongs to, or None; None as a whole unless asked for."""
    pixels: NDArray[np.float32] | None = None
    """Shape (3, height, width), as the processor made it."""


@dataclass(frozen=True)
class Inputs:
    """A padded batch on the model's device."""

    tensors: dict[str, Tensor]
    lengths: tuple[int, ...]

    @property
    def n_sequences(self) -> int:
        """Sequences in the batch."""
        return len(self.lengths)


def max_length(loaded: LoadedModel, wanted: int) -> int:
    """The longest sequence in tokens: what was asked for, within what the model can read.

    Position tables that begin behind their padding row (RoBERTa) hold that many fewer.
    """
    limits = [wanted]
    config = getattr(loaded.model.config, "text_config", loaded.model.config)
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        limits.append(positions)
    if loaded.tokenizer is not None and loaded.tokenizer.model_max_length < _UNLIMITED:
        limits.append(int(loaded.tokenizer.model_max_length))
    for name, module in loaded.model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - first)
    return min(limits)


def encode_units(
    loaded: LoadedModel, units: Sequence[Unit], length: int, special_tokens: bool = True
) -> list[Encoded]:
    """Tokenize texts or process images.

    Args:
        loaded: the model with its tokenizer or processor.
        units: texts or images, according to the model's modality.
        length: longest sequence in tokens; texts beyond are cut. No effect on images.
        special_tokens: whether the tokenizer adds its special tokens.
    """
    if loaded.modality == "image":
        return _encode_images(loaded, [unit.image for unit in units if unit.image is not None])
    return encode_texts(
        loaded.tokenizer, [unit.text or "" for unit in units], length, special_tokens
    )


def encode_texts(
    tokenizer: Any, texts: Sequence[str], length: int, special_tokens: bool = True
) -> list[Encoded]:
    """Tokenize texts, cutting them at `length` tokens, special tokens included."""
    if not texts:
        return []
    fast = bool(tokenizer.is_fast)
    batch = tokenizer(
        list(texts),
        add_special_tokens=special_tokens,
        truncation=True,
        max_length=length,
        return_special_tokens_mask=True,
        return_offsets_mapping=fast,
        return_attention_mask=False,
    )
    found = []
    for index, ids in enumerate(batch["input_ids"]):
        special = np.array(batch["special_tokens_mask"][index], dtype=np.bool_)
        start = end = None
        if fast:
            offsets = np.array(batch["offset_mapping"][index], dtype=np.int32).reshape(-1, 2)
            start, end = (np.where(special, -1, column).astype(np.int32) for column in offsets.T)
        found.append(
            Encoded(
                n_tokens=len(ids),
                truncated=_is_cut(tokenizer, batch, index, texts[index], length, special_tokens),
                is_special=special,
                vocab_id=np.array(ids, dtype=np.int32),
                char_start=start,
                char_end=end,
            )
        )
    return found


def token_spans(tokenizer: Any, text: str) -> list[tuple[int, int]]:
    """First character and the one behind the last of each token, without special tokens.

    Raises:
        ConfigError: the tokenizer cannot tell characters of tokens.
    """
    if not tokenizer.is_fast:
        raise ConfigError(
            f"corpus.split: windows need a fast tokenizer, and {type(tokenizer).__name__} is none; "
            "split by sentence or paragraph"
        )
    spans = tokenizer(
        text, add_special_tokens=False, truncation=False, return_offsets_mapping=True, verbose=False
    )["offset_mapping"]
    return [(int(start), int(end)) for start, end in spans]


def _is_cut(
    tokenizer: Any, batch: Any, index: int, text: str, length: int, special_tokens: bool
) -> bool:
    if len(batch["input_ids"][index]) < length:
        return False
    if tokenizer.is_fast:
        return bool(batch.encodings[index].overflowing)
    whole = tokenizer(text, add_special_tokens=special_tokens, truncation=False)["input_ids"]
    return len(whole) > length


def _encode_images(loaded: LoadedModel, images: Sequence[Image.Image]) -> list[Encoded]:
    if not images:
        return []
    pixels = loaded.processor(list(images), return_tensors="np")["pixel_values"]
    n_tokens, grid = image_tokens(loaded, tuple(pixels.shape[-2:]))
    special = np.arange(n_tokens) < n_tokens - grid[0] * grid[1]
    return [
        Encoded(n_tokens, False, special, pixels=np.ascontiguousarray(image, dtype=np.float32))
        for image in pixels
    ]


@lru_cache(maxsize=8)
def image_tokens(loaded: LoadedModel, size: tuple[int, int]) -> tuple[int, tuple[int, int]]:
    """Tokens of an image of this height and width, and its grid of patches (rows, columns).

    Tokens that are no patches (CLS, registers) come first; how many the first attention call tells.

    Raises:
        UnsupportedModelError: the model has no square patches, or fewer tokens than patches.
    """
    config = getattr(loaded.model.config, "vision_config", loaded.model.config)
    patch = getattr(config, "patch_size", None)
    if isinstance(patch, list | tuple):
        patch = patch[0] if len(set(patch)) == 1 else None
    if not isinstance(patch, int):
        raise UnsupportedModelError(
            f"{loaded.architecture} has no square patch_size in its configuration; "
            "images need a model that cuts them into square patches, such as ViT"
        )
    rows, columns = size[0] // patch, size[1] // patch
    blank = torch.zeros(1, 3, *size, device=loaded.device, dtype=loaded.model.dtype)
    n_tokens = _first_query_length(loaded, Inputs({"pixel_values": blank}, (0,)))
    if n_tokens < rows * columns:
        raise UnsupportedModelError(
            f"{loaded.architecture} attends over {n_tokens} tokens of an image of {rows} x "
            f"{columns} patches; models that attend within windows are not supported"
        )
    return n_tokens, (rows, columns)


def _first_query_length(loaded: LoadedModel, inputs: Inputs) -> int:
    lengths: list[int] = []

    def visit(call: AttentionCall) -> None:
        lengths.append(call.query.shape[2])
        raise StopForward

    run_forward(lambda: forward(loaded, inputs), visit)
    return lengths[0] if lengths else 0


def probe_inputs(loaded: LoadedModel) -> Inputs:
    """A small padded batch of made-up input, with decoder and encoder lengths that differ."""
    if loaded.modality == "image":
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        return make_inputs(loaded, _encode_images(loaded, [Image.fromarray(noise)] * 2))
    ids = _plain_ids(loaded)
    encoded = [
        Encoded(n, False, np.zeros(n, np.bool_), vocab_id=np.resize(ids, n)) for n in _PROBE_LENGTHS
    ]
    inputs = make_inputs(loaded, encoded)
    if loaded.is_encoder_decoder:
        for name in ("decoder_input_ids", "decoder_attention_mask"):
            inputs.tensors[name] = inputs.tensors[name][:, :-1]
    return inputs


def _plain_ids(loaded: LoadedModel) -> NDArray[np.int32]:
    """A few token ids that are no special tokens: padding ids would shift RoBERTa's positions."""
    special = set(loaded.tokenizer.all_special_ids)
    size = min(len(loaded.tokenizer), 1000)
    plain = [index for index in range(size) if index not in special]
    return np.array(plain[-8:], dtype=np.int32)


def make_batches(encoded: Sequence[Encoded], tokens: int) -> Iterator[list[int]]:
    """Indices of sequences, batch by batch, longest first, so that little padding is needed.

    Args:
        encoded: the sequences.
        tokens: most tokens in a batch, padding included; a longer sequence goes alone.
    """
    order = sorted(range(len(encoded)), key=lambda index: -encoded[index].n_tokens)
    batch: list[int] = []
    for index in order:
        if batch and (len(batch) + 1) * encoded[batch[0]].n_tokens > tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def make_inputs(loaded: LoadedModel, encoded: Sequence[Encoded]) -> Inputs:
    """Pad sequences on the right and bring them to the model's device."""
    lengths = tuple(sequence.n_tokens for sequence in encoded)
    if loaded.modality == "image":
        pixels = np.stack([e.pixels for e in encoded if e.pixels is not None])
        values = torch.from_numpy(pixels).to(loaded.device, loaded.model.dtype)
        return Inputs({"pixel_values": values}, lengths)
    pad = loaded.tokenizer.pad_token_id
    ids = np.full((len(encoded), max(lengths)), 0 if pad is None else pad, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, sequence in enumerate(encoded):
        ids[row, : sequence.n_tokens] = _ids(sequence)
        mask[row, : sequence.n_tokens] = 1
    tensors = {
        "input_ids": torch.from_numpy(ids).to(loaded.device),
        "attention_mask": torch.from_numpy(mask).to(loaded.device),
    }
    if loaded.is_encoder_decoder:
        tensors["decoder_input_ids"] = shift_right(loaded, tensors["input_ids"])
        tensors["decoder_attention_mask"] = tensors["attention_mask"]
    return Inputs(tensors, lengths)


def _ids(sequence: Encoded) -> NDArray[np.int32]:
    if sequence.vocab_id is None:
        raise TypeError("a text without token ids")
    return sequence.vocab_id


def decoder_start(loaded: LoadedModel) -> int:
    """The id that the decoder reads first."""
    config = loaded.model.config
    for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id"):
        found = getattr(config, name, None)
        if isinstance(found, int):
            return found
    return 0


def shift_right(loaded: LoadedModel, ids: Tensor) -> Tensor:
    """What the decoder reads: the start token, then the sequence without its last token."""
    start = torch.full_like(ids[:, :1], decoder_start(loaded))
    return torch.cat([start, ids[:, :-1]], dim=1)


def forward(loaded: LoadedModel, inputs: Inputs) -> object:
    """Run the model, or the tower of a two-tower model that reads this kind of input."""
    kind = loaded.modality
    run = getattr(loaded.model, f"get_{kind}_features", None)
    if run is None or not hasattr(loaded.model, "get_image_features"):
        run = loaded.model
    options = {"use_cache": False} if kind == "text" and _takes_cache(loaded) else {}
    return run(**inputs.tensors, **options)


def _takes_cache(loaded: LoadedModel) -> bool:
    parameters = inspect.signature(loaded.model.forward).parameters
    return "use_cache" in parameters


def picture(
    loaded: LoadedModel, pixels: NDArray[np.float32], side: int | None = _IMAGE_SIDE
) -> Image.Image:
    """The pixels that the model saw, un-normalised, at most `side` pixels a side.

    Args:
        loaded: the model with its processor.
        pixels: shape (3, height, width), as the processor made them.
        side: longest side of the picture; None keeps the model's size.
    """
    mean = np.array(loaded.processor.image_mean or [0.0] * 3)[:, None, None]
    spread = np.array(loaded.processor.image_std or [1.0] * 3)[:, None, None]
    shown = pixels
    if getattr(loaded.processor, "do_normalize", True):
        shown = pixels * spread + mean
    bytes_ = (np.clip(shown, 0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
    image = Image.fromarray(bytes_)
    if side is not None:
        image.thumbnail((side, side))
    return image
