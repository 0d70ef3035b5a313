"""The two writes that a viewer may do to its own table: add a column of colours, and fill it.

Apart from `gate`, which lets nothing write. A text is taken apart into words, its expressions are
checked as the SELECT that they would be, and what runs is put together here anew: no words of the
client's but a name and whole bracketed expressions are in it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from api.gate import check_text, sql_words
from store.errors import QueryError

TABLE = "dataset"

COLUMN = re.compile(r'"__ev_(?:[^"]|""){1,200}"|__ev_\w{1,200}')
"""Names that a viewer gives to its columns of colours; no column of the atlas begins so."""

DEFAULT = re.compile(r"-?\d{1,9}")

ADD = ("ALTER", "TABLE", TABLE, "ADD", "COLUMN", "IF", "NOT", "EXISTS")
FILL = ("UPDATE", TABLE, "SET")

REFUSAL = (
    "a viewer may add columns to its own table and fill them: write ALTER TABLE dataset ADD COLUMN "
    'IF NOT EXISTS "__ev_…" INTEGER DEFAULT 0; UPDATE dataset SET "__ev_…" = … WHERE …'
)


class Word(NamedTuple):
    """A word of a text, and the space before it; a comment counts as one."""

    text: str
    space: str


@dataclass(frozen=True)
class Write:
    """A statement that may run once its check has passed the gate."""

    sql: str
    check: str | None
    """A SELECT over the same expressions; None where there are none."""


def is_write(text: str) -> bool:
    """True where a text begins as one of the two writes.

    Raises:
        QueryError: no parser should see it.
    """
    check_text(text)
    first = next(sql_words(text), None)
    return first is not None and text[first.start : first.end].upper() in (ADD[0], FILL[0])


def read_writes(text: str) -> list[Write]:
    """The writes of a text, each to be run on its own.

    Raises:
        QueryError: it holds anything else.
    """
    check_text(text)
    return [_read_write(words) for words in _split(text)]


def _split(text: str) -> Iterator[list[Word]]:
    """The words of each statement."""
    words: list[Word] = []
    end = 0
    for token in sql_words(text):
        word = Word(text[token.start : token.end], " " if token.start > end else "")
        end = token.end
        if words and not word.space and word.text[0] == words[-1].text[0] == '"':
            words[-1] = words[-1]._replace(text=words[-1].text + word.text)  # a "" inside a name
        elif word.text == ";":
            if words:
                yield words
            words = []
        else:
            words.append(word)
    if words:
        yield words


def _read_write(words: Sequence[Word]) -> Write:
    if _begins(words, ADD):
        return _read_add([word.text for word in words[len(ADD) :]])
    if _begins(words, FILL):
        return _read_fill(words[len(FILL) :])
    raise QueryError(REFUSAL)


def _begins(words: Sequence[Word], expected: Sequence[str]) -> bool:
    """True where the first words are these, whatever their case; the table may be quoted."""
    first = [word.text.upper() for word in words[: len(expected)]]
    quoted = f'"{TABLE}"'.upper()
    return [TABLE.upper() if word == quoted else word for word in first] == [
        word.upper() for word in expected
    ]


def _read_add(words: Sequence[str]) -> Write:
    """From `name INTEGER DEFAULT 0`."""
    kind, default = [word.upper() for word in words[1:3]], "".join(words[3:])
    is_plain = kind == ["INTEGER"] or (
        kind == ["INTEGER", "DEFAULT"] and DEFAULT.fullmatch(default)
    )
    if not is_plain:
        raise QueryError(REFUSAL)
    column = _read_column(words[0])
    added = f"ALTER TABLE {TABLE} ADD COLUMN IF NOT EXISTS {column} INTEGER DEFAULT {default or 0}"
    return Write(added, None)


def _read_fill(words: Sequence[Word]) -> Write:
    """From `name = expression WHERE condition`."""
    if len(words) < 3 or words[1].text != "=":
        raise QueryError(REFUSAL)
    column, (value, condition) = _read_column(words[0].text), _cut_at_where(words[2:])
    return Write(
        f"UPDATE {TABLE} SET {column} = ({value}) WHERE ({condition})",
        f"SELECT ({value}) FROM {TABLE} WHERE ({condition})",
    )


def _read_column(word: str) -> str:
    """A column's name in quotes."""
    if not COLUMN.fullmatch(word):
        raise QueryError(REFUSAL)
    return word if word.startswith('"') else f'"{word}"'


def _cut_at_where(words: Sequence[Word]) -> tuple[str, str]:
    """The texts before and after a WHERE that stands in no bracket, both with closed brackets.

    Raises:
        QueryError: a bracket closes that is not open, or stays open; a part is empty.
    """
    depth, parts = 0, [""]
    for word in words:
        depth += (word.text in "([{") - (word.text in ")]}")
        if depth < 0:
            raise QueryError(REFUSAL)
        if depth == 0 and word.text.upper() == "WHERE":
            parts.append("")
        else:
            parts[-1] += word.space + word.text
    if depth or len(parts) > 2 or not all(part.strip() for part in parts):
        raise QueryError(REFUSAL)
    return parts[0], parts[1] if len(parts) == 2 else "true"
