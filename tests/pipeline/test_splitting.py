"""Units are exact slices of their record, in order, and lose no character that matters."""

import re
from pydoc_data import topics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.settings import SplitSpec, SplitUnit
from pipeline.splitting import split_record
from store.errors import ConfigError

TEXTS = st.text(st.sampled_from("aB1 .!?…\n\r\t\"')(e.g.Mr。é"), max_size=120)
UNITS: list[SplitUnit] = ["record", "line", "paragraph", "sentence"]


def words(text: str) -> list[tuple[int, int]]:
    """Word tokens, as a tokenizer that drops white space would give them."""
    return [found.span() for found in re.finditer(r"\w+|[^\w\s]", text)]


def pieces(text: str, unit: SplitUnit) -> list[str]:
    return [piece for _, piece in split_record(text, SplitSpec(unit))]


def assert_exact_slices(text: str, units: list[tuple[int, str]]) -> None:
    for offset, piece in units:
        assert text[offset : offset + len(piece)] == piece == piece.strip() != ""


@given(TEXTS, st.sampled_from(UNITS))
def test_pieces_are_exact_slices_in_order_and_lose_nothing(text: str, unit: SplitUnit) -> None:
    units = list(split_record(text, SplitSpec(unit)))
    assert_exact_slices(text, units)
    behind = 0
    for offset, piece in units:
        assert not text[behind:offset].strip()
        behind = offset + len(piece)
    assert not text[behind:].strip()


@given(TEXTS, st.integers(1, 6), st.data())
def test_windows_cover_every_token(text: str, window: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, window))
    units = list(split_record(text, SplitSpec("window", window, stride), words))
    assert_exact_slices(text, units)
    covered = {place for offset, piece in units for place in range(offset, offset + len(piece))}
    assert {place for place, letter in enumerate(text) if letter.strip()} <= covered
    assert all(len(words(piece)) <= window for _, piece in units)
    assert [offset for offset, _ in units] == [
        words(text)[first][0] for first in range(0, stride * len(units), stride)
    ]


def test_windows_match_a_plain_version() -> None:
    text = "one two three four five six seven"
    units = list(split_record(text, SplitSpec("window", 3, 2), words))
    assert [piece for _, piece in units] == ["one two three", "three four five", "five six seven"]


def test_last_window_is_shorter_and_no_window_repeats_only_old_tokens() -> None:
    assert [p for _, p in split_record("a b c d e", SplitSpec("window", 2), words)] == [
        "a b", "c d", "e",
    ]  # fmt: skip
    assert [p for _, p in split_record("a b c d", SplitSpec("window", 3, 1), words)] == [
        "a b c", "b c d",
    ]  # fmt: skip


def test_windows_keep_characters_that_the_tokenizer_drops_or_shares() -> None:
    def every_byte(text: str) -> list[tuple[int, int]]:
        return [(i, i + 1) for i, letter in enumerate(text) for _ in letter.encode()]

    units = list(split_record("aé🙂b", SplitSpec("window", 2), every_byte))
    assert_exact_slices("aé🙂b", units)
    assert [piece for _, piece in units] == ["aé", "é🙂", "🙂", "🙂b"]
    assert list(split_record("\x01x", SplitSpec("window", 2), lambda text: [])) == [(0, "\x01x")]


@pytest.mark.parametrize(
    ("spec", "spans", "message"),
    [
        (SplitSpec("window", 8), None, "counts tokens, but no tokenizer"),
        (SplitSpec("window"), words, "window is None, expected tokens, at least 1"),
        (SplitSpec("window", 0), words, "window is 0"),
        (SplitSpec("window", 4, 5), words, "stride is 5, expected 1 to the window's 4"),
        (SplitSpec("window", 4, 0), words, "stride is 0"),
        (SplitSpec("line", 4), words, "unit is 'line'; set unit to 'window'"),
    ],
)
def test_impossible_split_is_refused(spec: SplitSpec, spans: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        list(split_record("text", spec, spans))  # type: ignore[arg-type]


def test_lines_and_paragraphs() -> None:
    text = "  one\ntwo \r\n \t\r\nthree\n\n\nfour"
    assert list(split_record(text, SplitSpec("line"))) == [
        (2, "one"), (6, "two"), (16, "three"), (24, "four"),
    ]  # fmt: skip
    assert pieces(text, "paragraph") == ["one\ntwo", "three", "four"]
    assert pieces(text, "record") == [text.strip()]


@pytest.mark.parametrize(
    "sentences",
    [
        ["He said no.", "Then he left."],
        ['"What?" he asked.', "Nobody knew!", "Nobody?", "Nobody."],
        ["Mr. J. Smith met Dr. Who vs. Mrs. Peel in Fig. 3 on Jan. 5.", "It rained."],
        ["He lives in the U.S. Senate.", "Pi is 3.14 or so.", "Version 2.0.1 is out."],
        ["She came at 5 p.m. on Monday.", "He left at 6 p.m.", "The end."],
        ["Use a list, e.g. Python's, i.e. CPython's.", "Then go on."],
        ["Wait... really.", "Then...", "Nothing.", "And so on…", "End"],
        ["He stopped (at last.)", '"Done."', "Next “word.”", "(In brackets.)", "Last."],
        ["1. The first item.", "Then prose."],
        ["Buy milk, eggs, etc. from the shop.", "Bread, etc.", "The rest follows."],
        ["So did I.", "You know *why*.", "`code.`", "Done."],
        ["我是。", "你好！", "吗？"],
        ["Smith et al. (2003) found it.", "No. 5 is alive."],
    ],
)
def test_sentences_end_where_a_reader_ends_them(sentences: list[str]) -> None:
    assert pieces(" ".join(sentences), "sentence") == sentences


def test_sentence_spans_single_newlines_but_not_blank_lines() -> None:
    text = "A sentence that is\nhard-wrapped. Another\none\n\nHeading\n\nLast."
    assert pieces(text, "sentence") == [
        "A sentence that is\nhard-wrapped.", "Another\none", "Heading", "Last.",
    ]  # fmt: skip


def test_language_reference_splits_into_sentences_of_sensible_length() -> None:
    units = [
        piece for text in topics.topics.values() for piece in pieces(text, "sentence") if piece
    ]
    lengths = sorted(len(unit) for unit in units)
    assert len(units) > 3_000
    assert 40 < lengths[len(lengths) // 2] < 140


@pytest.mark.parametrize("text", ["." * 200_000 + "x", "a. " * 20_000, "\n " * 100_000 + "x"])
def test_odd_texts_take_linear_work(text: str) -> None:
    for unit in UNITS:
        assert "".join(pieces(text, unit)).replace(" ", "").replace("\n", "") == (
            text.replace(" ", "").replace("\n", "")
        )
