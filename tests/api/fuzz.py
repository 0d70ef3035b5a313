"""Mutated statements, made from the hostile and the honest lists, and what must hold for each.

`python -m tests.api.fuzz 100000` sends that many through the gate alone.
"""

import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable

import duckdb

from api.gate import check_query, check_text
from store.errors import QueryError
from tests.api.honest import HONEST, WITH_PARAMETERS
from tests.api.hostile import HOSTILE, NEVER, PATHS

_VIEWS = """
current_maps files head_measures heads keys maps measures models points queries rejects sequences
shards tokens vectors
"""

VIEWS = frozenset(_VIEWS.split())
HOSTILE_SEEDS = [text for name, text in HOSTILE.items() if not name.startswith("size")]
HONEST_SEEDS = HONEST + [text for text, _ in WITH_PARAMETERS]
_PIECE = re.compile(r"\w+|\s+|'[^']*'|[^\w\s]")
_QUOTED = re.compile(
    r"[eE]'(?:[^'\\]|\\.|'')*'|'[^']*'|\"[^\"]*\"|(\$\w*\$).*?\1|--[^\n]*"
    r"|/\*(?:/\*.*?\*/|.)*?\*/",
    re.DOTALL,
)
_CALL = re.compile(
    r"(?:\b(?:select|from|where|join|and|or|not|in|by|lateral|when|then|else|having|limit)\s*"
    r"|[-+*/(\[{:.<>=|])\s*(?P<name>\w+)\s*\(",
    re.IGNORECASE,
)
"""A call outside quotes, and not the columns of an alias, which look the same."""
NOISE = (
    " ", "\n", "\t", "\r", "\f", "\v", "\0", "\u00a0", "\u200b", "\u2028", "\ufeff", "/**/",
    "/* ' */",
    "/* /* */ */", "--\n", "-- '\n", "--\r", ";", "'", '"', "''", "$$", "$a$", "e'\\'", "(", ")",
    "[", "]", "{", "}", "\\", "?", "$1", "::", "..", "->", "@", "#1", "\ud800", "é", "İ", "K",
)  # fmt: skip
WRAPS = (
    "EXPLAIN {}", "EXPLAIN ANALYZE {}", "EXPLAIN (ANALYZE) {}", "SELECT * FROM ({})", "SELECT ({})",
    "WITH x AS ({}) FROM x", "FROM ({}) SELECT *", "DESCRIBE {}", "SUMMARIZE {}", "({})", "{};{}",
    "PREPARE p AS {}", "COPY ({}) TO 'x.csv'", "CREATE TABLE x AS {}", "CALL query('{}')", "{} --",
    "SELECT EXISTS ({})", "({}) UNION ALL ({})", "PIVOT ({}) ON a IN (1) USING count(*)", "/*{}*/",
    "WITH RECURSIVE x AS ({} UNION ALL {}) FROM x", "SELECT list_transform([1], x -> ({}))",
)  # fmt: skip
WORDS = (
    *sorted(NEVER), *(f"'{path}'" for path in PATHS.values()), "ledger.heads", "duckdb_views",
    "pg_class", "information_schema.tables", "EXPLAIN", "ANALYZE", "COPY", "TO", "FROM", "WITH",
    "RECURSIVE", "DELETE", "INSERT", "UPDATE", "SET", "INTO", "RETURNING", "LATERAL", "PIVOT", "AT",
    "COLUMNS", "main", "system", "memory", "tokens", "heads", "SHOW", "ALL", "USING", "VALUES",
)  # fmt: skip


def mutate(seed: int) -> str:
    """A statement, changed in one to four ways; the same for the same seed."""
    rng = random.Random(seed)
    text = rng.choice(rng.choice((HOSTILE_SEEDS, HONEST_SEEDS)))
    for _ in range(rng.choice((1, 1, 2, 4))):
        text = rng.choice(MUTATIONS)(rng, text)
    return text


def _put_noise(rng: random.Random, text: str) -> str:
    pieces = _PIECE.findall(text)
    pieces.insert(rng.randint(0, len(pieces)), rng.choice(NOISE))
    return "".join(pieces)


def _put_word(rng: random.Random, text: str) -> str:
    pieces = _PIECE.findall(text) or [""]
    at = rng.randrange(len(pieces))
    pieces[at : at + rng.randint(0, 1)] = [f" {rng.choice(WORDS)}" if rng.random() < 0.5 else ""]
    return "".join(pieces)


def _swap_name(rng: random.Random, text: str) -> str:
    """Put a forbidden function or table where a name or a text was."""
    pieces = _PIECE.findall(text)
    names = [at for at, piece in enumerate(pieces) if piece[0].isalpha() or piece[0] == "'"]
    if names:
        pieces[rng.choice(names)] = rng.choice(WORDS)
    return "".join(pieces)


def _splice(rng: random.Random, text: str) -> str:
    """Put a span of another statement into this one."""
    other = _PIECE.findall(rng.choice(rng.choice((HOSTILE_SEEDS, HONEST_SEEDS)))) or [""]
    start = rng.randrange(len(other))
    span = other[start : start + rng.randint(1, 12)]
    pieces = _PIECE.findall(text)
    at = rng.randint(0, len(pieces))
    return "".join([*pieces[:at], *span, *pieces[at + rng.randint(0, 3) :]])


def _cut(rng: random.Random, text: str) -> str:
    start = rng.randint(0, len(text))
    return text[:start] + text[start + rng.randint(1, 8) :]


def _change_case(rng: random.Random, text: str) -> str:
    return "".join(rng.choice((letter.upper(), letter.lower(), letter)) for letter in text)


def _wrap(rng: random.Random, text: str) -> str:
    return rng.choice(WRAPS).replace("{}", text.rstrip("; \n"))


def _join(rng: random.Random, text: str) -> str:
    other = rng.choice(rng.choice((HOSTILE_SEEDS, HONEST_SEEDS)))
    return text + rng.choice(("; ", " UNION ALL ", "\n", ", ", " -- ", "/*")) + other


def _quote_word(rng: random.Random, text: str) -> str:
    pieces = _PIECE.findall(text) or [""]
    at = rng.randrange(len(pieces))
    pieces[at] = rng.choice(('"{}"', "'{}'", "$${}$$", "({})", "[{}]")).replace("{}", pieces[at])
    return "".join(pieces)


def _nest(rng: random.Random, text: str) -> str:
    depth = rng.choice((2, 50, 99, 101, 3_000))
    return "SELECT * FROM " + "(" * depth + text + ")" * depth


MUTATIONS: tuple[Callable[[random.Random, str], str], ...] = (
    _put_noise, _put_word, _swap_name, _splice, _cut, _change_case, _wrap, _join, _quote_word, _nest
)  # fmt: skip


def fuzz(
    connection: duckdb.DuckDBPyConnection, views: frozenset[str], seeds: Iterable[int]
) -> Counter[str]:
    """Send mutated statements through the gate; counts what passed and what was refused.

    Raises:
        AssertionError: one passed that another reading of the text finds forbidden.
    """
    counts: Counter[str] = Counter()
    for seed in seeds:
        text = mutate(seed)
        try:
            check_text(text)
            check_query(connection, text, views)
        except QueryError:
            counts["refused"] += 1
            continue
        counts["passed"] += 1
        assert not (found := find_escape(connection, text, views)), f"seed {seed}: {found}: {text}"
    return counts


def find_escape(
    connection: duckdb.DuckDBPyConnection, text: str, views: frozenset[str]
) -> str | None:
    """What a statement that passed must not do, read from DuckDB's tokens and tables instead."""
    kinds = [statement.type.name for statement in connection.extract_statements(text)]
    if kinds not in (["SELECT"], ["EXPLAIN"]):
        return f"statements {kinds}"
    for call in _CALL.finditer(_QUOTED.sub("''", text)):
        if call.group("name").lower() in NEVER:
            return f"a call of {call.group('name')}"
    try:
        if outside := {name.lower() for name in connection.get_table_names(text)} - views:
            return f"tables {outside}"
        connection.execute(text if kinds == ["EXPLAIN"] else f"EXPLAIN {text}").fetchall()
    except (duckdb.PermissionException, duckdb.IOException) as error:
        return f"a file: {error}"
    except duckdb.Error:
        return None  # it does not bind, so it would not run either
    return None


def main() -> None:
    """Fuzz the gate over views that hold nothing."""
    n_statements = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with duckdb.connect(config={"python_enable_replacements": False}) as connection:
        views = make_views(connection)
        print(dict(fuzz(connection, views, range(n_statements))))


def make_views(connection: duckdb.DuckDBPyConnection) -> frozenset[str]:
    """Views without rows under the names that an atlas has, and raw tables that it hides."""
    connection.execute("CREATE SCHEMA ledger")
    for name in VIEWS:
        connection.execute(f"CREATE TABLE ledger.{name} (model VARCHAR, layer INT, head INT)")
        connection.execute(f"CREATE VIEW {name} AS FROM ledger.{name}")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return VIEWS


if __name__ == "__main__":
    main()
