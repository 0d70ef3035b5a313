"""How a record's text becomes units: lines, paragraphs, sentences or windows of tokens.

Every unit is an exact slice of its record, so that a character offset leads back to the source.
"""

import re
from collections.abc import Callable, Iterator, Sequence

from pipeline.settings import SplitSpec
from store.errors import ConfigError

TokenSpans = Callable[[str], Sequence[tuple[int, int]]]
"""Gives the (first, behind the last) character of each token of a text, special tokens left out."""

_BLANK_LINE = re.compile(r"\n\s*\n")
_LINE_END = re.compile(r"\n")

_TERMINATOR = re.compile(r"[.!?…]+[\"'”’»)\]}*_`]*|[。！？]+[」』”’）]*")
_QUOTES = "\"'“‘«"
_CJK_TERMINATORS = "。！？"
_WORD_BEFORE = re.compile(r"[^\s\"'“‘«(\[{/—–]+$")
_WORD_AFTER = re.compile(r"\w+")
_ACRONYM = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")
_LOOK_BACK = 40
"""Longest abbreviation looked for, in characters."""


def _words(listed: str) -> frozenset[str]:
    """The words of a list."""
    return frozenset(listed.split())


_NEVER_LAST = _words(
    "adm approx asst brig ca capt cf col dr e.g eg eqs gen gov hon i.e ie lt maj messrs mme mlle "
    "mr mrs ms prof rep rev sen sgt supt viz vs"
)
"""Abbreviations that hardly end a sentence, in lower case, without the last full stop."""

_BEFORE_NUMBERS = _words(
    "apr art aug ch chap dec eq feb fig figs fri jan jul jun mar mon no nos nov oct op p pp ref "
    "refs sec secs sect sep sept tab thu tue v ver vol vols wed"
)
"""Abbreviations before a number, else words like others ("He said no. Then he left.")."""

_MAY_BE_LAST = _words("al ave bros co corp dept ed eds esq est etc inc jr ltd mt ph.d sr st univ")
"""Abbreviations that end a sentence where the next word is one that often begins a sentence."""

_STARTERS = _words(
    "a after all also although an and another any as at because both but by each even every few "
    "finally first for from he hence her here his how however i if in indeed it its later many "
    "meanwhile moreover most much my nevertheless no not note now of on once one only or other our "
    "others several she since so some such that the their then there therefore these they this "
    "those though thus to today two under until upon we what when where whether which while who "
    "why with yet you your"
)


def check_split(spec: SplitSpec, token_spans: TokenSpans | None) -> None:
    """Refuse a split that cannot be made.

    Raises:
        ConfigError: window or stride is missing, misplaced or out of range, or windows are asked
            for where there are no tokens.
    """
    if spec.unit != "window":
        if spec.window is not None or spec.stride is not None:
            raise ConfigError(
                f"corpus.split has a window or stride but its unit is {spec.unit!r}; "
                "set unit to 'window' or remove them"
            )
        return
    if spec.window is None or spec.window < 1:
        raise ConfigError(f"corpus.split.window is {spec.window}, expected tokens, at least 1")
    if spec.stride is not None and not 1 <= spec.stride <= spec.window:
        raise ConfigError(
            f"corpus.split.stride is {spec.stride}, expected 1 to the window's {spec.window} "
            "tokens, so that none is left out"
        )
    if token_spans is None:
        raise ConfigError(
            "corpus.split.unit is 'window', which counts tokens, but no tokenizer is there; "
            "use another unit"
        )


def split_record(
    text: str, spec: SplitSpec, token_spans: TokenSpans | None = None
) -> Iterator[tuple[int, str]]:
    """The units of a record, in order, as (characters before the unit, the unit).

    A unit is `text[offset : offset + len(unit)]`, without white space around it, never empty.

    Raises:
        ConfigError: see `check_split`.
    """
    check_split(spec, token_spans)
    if spec.unit == "record":
        spans: Iterator[tuple[int, int]] = iter([(0, len(text))])
    elif spec.unit == "line":
        spans = _spans_between(text, _LINE_END)
    elif spec.unit == "paragraph":
        spans = _spans_between(text, _BLANK_LINE)
    elif spec.unit == "sentence":
        spans = _sentence_spans(text)
    else:
        assert spec.window is not None and token_spans is not None  # checked above
        spans = _window_spans(text, spec.window, spec.stride or spec.window, token_spans(text))
    for begin, end in spans:
        piece = text[begin:end]
        unit = piece.strip()
        if unit:
            yield begin + len(piece) - len(piece.lstrip()), unit


def _spans_between(text: str, separator: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """The spans that the separators leave."""
    begin = 0
    for found in separator.finditer(text):
        yield begin, found.start()
        begin = found.end()
    yield begin, len(text)


def _window_spans(
    text: str, window: int, stride: int, tokens: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """Spans of `window` tokens every `stride` tokens, the last one shorter; all text is in one.

    A window reaches to where the next token begins, so that characters which the tokenizer drops
    are kept; tokens that share a character (bytes of an emoji) never cut it.
    """
    n_tokens = len(tokens)
    for first in range(0, max(n_tokens, 1), stride):
        behind = first + window
        begin = tokens[first][0] if first else 0
        if behind >= n_tokens:
            yield begin, len(text)
            return
        yield begin, max(tokens[behind - 1][1], tokens[behind][0])


def _sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    """Spans of sentences; a blank line ends one, a single line end does not."""
    for begin, end in _spans_between(text, _BLANK_LINE):
        start = begin
        for found in _TERMINATOR.finditer(text, begin, end):
            if _ends_sentence(text, start, found.start(), found.end(), end):
                yield start, found.end()
                start = found.end()
        yield start, end


def _ends_sentence(text: str, start: int, mark: int, behind: int, end: int) -> bool:
    """Whether the sentence from `start` ends at the mark in text[mark:behind]."""
    if text[mark] in _CJK_TERMINATORS:
        return True
    if behind >= end or not text[behind].isspace():
        return False
    following = _next_word_at(text, behind, end)
    if following >= end:
        return True
    if text[mark:behind].startswith(".") and not text.startswith("..", mark):
        return _full_stop_ends(text, start, mark, following, end)
    return not text[following].islower()


def _next_word_at(text: str, position: int, end: int) -> int:
    """Where the next thing behind white space begins."""
    while position < end and text[position].isspace():
        position += 1
    return position


def _full_stop_ends(text: str, start: int, mark: int, following: int, end: int) -> bool:
    """Whether a single full stop at `mark` ends the sentence that began at `start`."""
    if text[following].islower():
        return False
    found = _WORD_BEFORE.search(text[max(start, mark - _LOOK_BACK) : mark])
    if found is None:
        return True
    word = found.group().lower()
    if word in _NEVER_LAST:
        return False
    if word in _BEFORE_NUMBERS:
        return not text[following].isdigit()
    if word in _MAY_BE_LAST or _ACRONYM.fullmatch(word):
        return text[following] in _QUOTES or _begins_with_starter(text, following, end)
    if len(word) == 1 and word.isalpha() and found.group() != "I":
        return _begins_with_starter(text, following, end)
    is_list_number = word.isdigit() and not text[start : mark - len(word)].strip()
    return not is_list_number


def _begins_with_starter(text: str, following: int, end: int) -> bool:
    """Whether the next word is one with which sentences often begin."""
    found = _WORD_AFTER.match(text, following, min(end, following + _LOOK_BACK))
    return found is not None and found.group().lower() in _STARTERS
