"""Texts and images become tensors that hold just what the model would have read."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.inputs import (
    Encoded,
    decoder_start,
    encode_texts,
    encode_units,
    image_tokens,
    make_batches,
    make_inputs,
    max_length,
    picture,
    shift_right,
    token_spans,
)
from pipeline.models import LoadedModel
from pipeline.readers import Unit
from store.errors import ConfigError, UnsupportedModelError
from tests.pipeline.tiny_models import make_text, make_tokenizer, tiny_model


def make_encoded(n_tokens: int) -> Encoded:
    ids = np.arange(n_tokens, dtype=np.int32) + 5
    return Encoded(n_tokens, False, np.zeros(n_tokens, np.bool_), vocab_id=ids)


class SlowTokenizer:
    """A tokenizer without offsets, as those written in Python are."""

    is_fast = False

    def __init__(self) -> None:
        self.fast = make_tokenizer("bert")

    def __call__(self, texts: Any, return_offsets_mapping: bool = False, **options: Any) -> Any:
        assert not return_offsets_mapping
        found = self.fast(texts, **options)
        return {name: found[name] for name in found}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("bert", 40), ("roberta", 38), ("gpt2", 64), ("opt", 40), ("bart", 40), ("clip", 40)],
)
def test_longest_sequence_is_what_the_model_can_read(name: str, expected: int) -> None:
    loaded = tiny_model(name)
    assert max_length(loaded, 512) == expected
    assert max_length(loaded, 7) == 7
    ids = torch.full((1, expected), 9)
    inputs = {"input_ids": ids}
    with torch.inference_mode():
        run = loaded.model.get_text_features if name == "clip" else loaded.model
        run(**inputs)
        if name != "gpt2":
            with pytest.raises((IndexError, ValueError, RuntimeError)):
                run(torch.full((1, expected + 1), 9))


def test_longest_sequence_is_the_tokenizers_where_it_has_a_limit() -> None:
    loaded = replace(tiny_model("t5"), tokenizer=make_tokenizer("t5", model_max_length=20))
    assert max_length(loaded, 512) == 20


def test_texts_are_cut_and_marked() -> None:
    tokenizer = tiny_model("bert").tokenizer
    texts = [make_text(2), make_text(6), make_text(7), make_text(50)]
    encoded = encode_texts(tokenizer, texts, 8)
    assert [e.n_tokens for e in encoded] == [4, 8, 8, 8]
    assert [e.truncated for e in encoded] == [False, False, True, True]
    assert encoded[3].is_special.tolist() == [True, *[False] * 6, True]
    assert encode_texts(tokenizer, [], 8) == []


def test_special_tokens_can_be_left_out() -> None:
    encoded = encode_texts(tiny_model("bert").tokenizer, [make_text(3)], 8, special_tokens=False)
    assert encoded[0].n_tokens == 3
    assert not encoded[0].is_special.any()


def test_offsets_cut_the_words_out_of_the_text() -> None:
    text = "  the  cat, sat"
    (encoded,) = encode_texts(make_tokenizer("bert"), [text], 8)
    assert encoded.char_start is not None and encoded.char_end is not None
    spans = list(zip(encoded.char_start.tolist(), encoded.char_end.tolist(), strict=True))
    assert spans[0] == spans[-1] == (-1, -1)
    assert [text[start:end] for start, end in spans[1:-1]] == ["the", "cat", ",", "sat"]


def test_slow_tokenizer_gives_no_characters_and_still_tells_truncation() -> None:
    texts = [make_text(2), make_text(6), make_text(7)]
    encoded = encode_texts(SlowTokenizer(), texts, 8)
    assert [e.truncated for e in encoded] == [False, False, True]
    assert all(e.char_start is None and e.char_end is None for e in encoded)


def test_windows_need_a_fast_tokenizer() -> None:
    assert token_spans(make_tokenizer("bert"), "the cat") == [(0, 3), (4, 7)]
    with pytest.raises(ConfigError, match=r"corpus.split: windows .* SlowTokenizer is none"):
        token_spans(SlowTokenizer(), "the cat")


def test_batches_hold_every_sequence_once_within_the_budget() -> None:
    lengths = [3, 50, 1, 8, 8, 2, 30, 5]
    batches = list(make_batches([make_encoded(n) for n in lengths], 40))
    assert sorted(index for batch in batches for index in batch) == list(range(8))
    assert batches[0] == [1]  # longer than the budget, so alone
    for batch in batches[1:]:
        assert len(batch) * max(lengths[index] for index in batch) <= 40
    order = [lengths[index] for batch in batches for index in batch]
    assert order == sorted(order, reverse=True)


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2"])
def test_padding_is_on_the_right(name: str) -> None:
    loaded = tiny_model(name)
    inputs = make_inputs(loaded, [make_encoded(2), make_encoded(4)])
    pad = loaded.tokenizer.pad_token_id
    assert inputs.lengths == (2, 4)
    assert inputs.tensors["input_ids"].tolist() == [[5, 6, pad, pad], [5, 6, 7, 8]]
    assert inputs.tensors["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]


def test_tokenizer_without_padding_token_pads_with_zero() -> None:
    loaded = replace(tiny_model("gpt2"), tokenizer=make_tokenizer("bare"))
    inputs = make_inputs(loaded, [make_encoded(1), make_encoded(2)])
    assert inputs.tensors["input_ids"].tolist() == [[5, 0], [5, 6]]


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_decoder_reads_what_the_model_would_give_it(name: str) -> None:
    from transformers.models.bart.modeling_bart import shift_tokens_right

    loaded = tiny_model(name)
    ids = torch.tensor([[7, 8, 9, 1]])
    config = loaded.model.config
    expected = (
        loaded.model._shift_right(ids)
        if name == "t5"
        else shift_tokens_right(ids, config.pad_token_id, config.decoder_start_token_id)
    )
    assert torch.equal(shift_right(loaded, ids), expected)


def test_decoder_starts_with_the_first_id_that_the_configuration_names() -> None:
    def start(**names: int | None) -> int:
        model = SimpleNamespace(config=SimpleNamespace(**names))
        return decoder_start(LoadedModel(model, None, None, torch.device("cpu"), "text"))

    assert start(decoder_start_token_id=4, bos_token_id=3) == 4
    assert start(decoder_start_token_id=None, bos_token_id=3, pad_token_id=1) == 3
    assert start(pad_token_id=1) == 1
    assert start() == 0


def make_units(*sizes: tuple[int, int]) -> list[Unit]:
    random = np.random.default_rng(0)
    images = [Image.fromarray(random.integers(0, 255, (*s, 3), dtype=np.uint8)) for s in sizes]
    return [Unit(0, 0, None, image, {}, 0, None) for image in images]


def test_images_become_patches_behind_the_class_token() -> None:
    loaded = tiny_model("vit", "image")
    encoded = encode_units(loaded, make_units((32, 32), (90, 20)), 8)
    assert [e.n_tokens for e in encoded] == [17, 17]
    assert encoded[0].is_special.tolist() == [True] + [False] * 16
    assert image_tokens(loaded, (32, 32)) == (17, (4, 4))
    assert encode_units(loaded, [], 8) == []


def test_picture_shows_the_pixels_that_the_model_saw() -> None:
    loaded = tiny_model("clip", "image")
    (unit,) = make_units((32, 32))
    assert unit.image is not None
    (encoded,) = encode_units(loaded, [unit], 8)
    assert encoded.pixels is not None
    shown = np.asarray(picture(loaded, encoded.pixels)).astype(int)
    assert np.abs(shown - np.asarray(unit.image).astype(int)).max() <= 1


def test_picture_is_at_most_as_large_as_asked() -> None:
    loaded = tiny_model("vit", "image")
    pixels = np.zeros((3, 400, 300), np.float32)
    assert picture(loaded, pixels).size == (192, 256)
    assert picture(loaded, pixels, None).size == (300, 400)


@pytest.mark.parametrize("patch_size", [None, (8, 4)])
def test_image_model_without_square_patches_is_refused(patch_size: object) -> None:
    model = SimpleNamespace(config=SimpleNamespace(patch_size=patch_size))
    loaded = LoadedModel(model, None, None, torch.device("cpu"), "image")
    with pytest.raises(UnsupportedModelError, match="SimpleNamespace has no square patch_size"):
        image_tokens(loaded, (64, 32))
