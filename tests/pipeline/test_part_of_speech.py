"""Tokens take the part of speech of their word, from a real spaCy pipeline made here."""

import builtins
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.inputs import encode_texts
from pipeline.part_of_speech import (
    PARTS_OF_SPEECH,
    Tagger,
    check_taggable,
    load_tagger,
    word_tag,
)
from pipeline.readers import Unit
from pipeline.token_rows import SequenceRecord, TokenRows
from store.errors import ConfigError
from tests.pipeline.test_inputs import SlowTokenizer
from tests.pipeline.tiny_models import tiny_model
from tests.pipeline.tiny_spacy import save_pipeline

TAGS = {"cat": "NOUN", "dog": "NOUN", "sat": "VERB", "the": "DET", "on": "ADP", ",": "PUNCT"}


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Tagger:
    return load_tagger(str(save_pipeline(tmp_path_factory.mktemp("spacy") / "tiny", TAGS)))


def tags_of(tagger: Tagger, texts: list[str], length: int = 24, name: str = "bert") -> list[Any]:
    encoded = encode_texts(tiny_model(name).tokenizer, texts, length)
    found = [each.part_of_speech for each in tagger.tag(texts, encoded)]
    return [None if each is None else each.tolist() for each in found]


def test_tokens_have_the_tag_of_their_word_and_special_ones_none(tagger: Tagger) -> None:
    found = tags_of(tagger, ["the cat sat", "a dog , on", ""])
    assert found == [
        [None, "DET", "NOUN", "VERB", None],
        [None, None, "NOUN", "PUNCT", "ADP", None],  # the pipeline knows no tag of "a"
        [None, None],
    ]


def test_what_capture_cut_off_is_not_read(tagger: Tagger) -> None:
    read: list[str] = []

    class Listening:
        def pipe(self, texts: list[str]) -> Any:
            read.extend(texts)
            return tagger.nlp.pipe(texts)

    found = tags_of(Tagger(Listening()), ["the cat sat on the dog", "the dog"], length=4)
    assert found == [[None, "DET", "NOUN", None], [None, "DET", "NOUN", None]]
    assert read == ["the cat", "the dog"]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 3, "A"),
        (1, 2, "A"),  # a piece of a word
        (3, 7, "B"),  # a space and a word, as GPT-2 spells tokens
        (2, 6, "B"),  # one character of the first word, two of the second
        (2, 5, "A"),  # equally many: the first
        (0, 12, "B"),  # several words: the longest
        (3, 4, None),  # space between words
        (8, 9, None),  # a word without a tag
        (5, 5, None),
        (-1, -1, None),
        (40, 50, None),
    ],
)
def test_the_word_that_covers_most_of_a_token_counts(
    start: int, end: int, expected: str | None
) -> None:
    words = (np.array([0, 4, 8]), np.array([3, 8, 10]), ["A", "B", ""])
    assert word_tag(start, end, words) == expected


def test_the_word_is_that_of_a_plain_search() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        ends = np.cumsum(random.integers(2, 6, size=8))
        first, behind = ends[:-1], ends[1:] - random.integers(0, 2, size=7)
        words = (first, behind, list("ABCDEFG"))
        start = int(random.integers(0, 30))
        end = start + int(random.integers(0, 9))
        overlap = [
            len(set(range(start, end)) & set(range(a, b)))
            for a, b in zip(first, behind, strict=True)
        ]
        best = int(np.argmax(overlap))
        expected = words[2][best] if overlap[best] else None
        assert word_tag(start, end, words) == expected


@pytest.mark.parametrize(("stack", "shift"), [("encoder", 0), ("decoder", 1)])
def test_rows_of_tokens_carry_tags_as_each_stack_reads_them(
    tagger: Tagger, stack: str, shift: int
) -> None:
    loaded, text = tiny_model("t5"), "the cat sat"
    encoded = tagger.tag([text], encode_texts(loaded.tokenizer, [text], 24))
    unit = Unit(0, 0, text, None, {}, 0, None)
    rows = TokenRows(loaded).tokens([SequenceRecord(1, "c", "a.txt", unit, encoded[0])], stack)
    expected = [*[None] * shift, "DET", "NOUN", "VERB", None]
    assert rows["part_of_speech"].to_pylist() == expected[:4]


def test_spacy_tags_are_those_that_measures_know() -> None:
    from spacy.parts_of_speech import IDS

    assert set(IDS) - set(PARTS_OF_SPEECH) == {"", "CONJ", "EOL"}  # of older schemes


def test_a_run_without_spacy_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def fail(name: str, *rest: Any, **options: Any) -> Any:
        if name == "spacy":
            raise ImportError("No module named 'spacy'")
        return load(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(ConfigError, match=r"en_core_web_sm needs spaCy.*qkatlas\[pos\]"):
        load_tagger("en_core_web_sm")


def test_a_pipeline_that_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"xx_none does not load .*python -m spacy download"):
        load_tagger("xx_none")
    (tmp_path / "meta.json").write_text("{")
    with pytest.raises(ConfigError, match=r"does not load as a spaCy pipeline"):
        load_tagger(str(tmp_path))


def test_a_pipeline_that_tags_nothing_is_refused(tmp_path: Path) -> None:
    import spacy

    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(ConfigError, match="no component that tags"):
        load_tagger(str(tmp_path / "blank"))


def test_images_and_slow_tokenizers_cannot_be_tagged() -> None:
    with pytest.raises(ConfigError, match="the corpus is images"):
        check_taggable(tiny_model("vit", "image"))
    loaded = tiny_model("bert")
    check_taggable(loaded)
    with pytest.raises(ConfigError, match=r"fast tokenizer.* SlowTokenizer is none"):
        check_taggable(replace(loaded, tokenizer=SlowTokenizer()))
