"""The gate for a stranger's SQL: one statement that reads the views of an atlas, or an error.

Two checks, apart from what runs the statement because each is reviewed as a wall of its own:
`check_text` bounds a text in the API process, before any parser sees it; `check_query` runs in the
worker and allows only what `allowed` names. The worker's sandbox does not rely on either.
"""

import json
import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, NamedTuple, NoReturn

import duckdb

from api.allowed import (
    EXPRESSIONS,
    FUNCTIONS,
    KEYS,
    NEWER_KEYS,
    NODES,
    TABLE_FUNCTIONS,
    TYPES,
)
from store.errors import QueryError

MAX_TEXT_BYTES = 64 * 1024
MAX_DEPTH = 100
"""Most brackets open at once."""

ALLOWED = (
    "write one SELECT, WITH, FROM, VALUES, DESCRIBE, SHOW TABLES, SUMMARIZE, PIVOT with IN (…), "
    "UNPIVOT, or EXPLAIN of one of these"
)

PIVOT = "a PIVOT needs its values in the text, as in PIVOT t ON c IN ('a', 'b') USING …"

SERIALIZE = (
    "SELECT json_serialize_sql(?, skip_null := true, skip_empty := true, skip_default := true)"
)

TAKEN = """
SELECT lower(view_name) FROM duckdb_views() WHERE schema_name <> 'information_schema'
UNION SELECT lower(table_name) FROM duckdb_tables()
"""
"""Names that DuckDB finds without a schema, were a common table expression out of reach."""

_TOKEN = re.compile(
    r"""
    (?P<space>    [ \t\n\r\f]++)
    | (?P<quoted> [eE]'(?:[^'\\]|\\.|'')*+' | '[^']*+' | "[^"]*+")
    | (?P<dollar> \$(?:[A-Za-z_\x80-\U0010ffff][A-Za-z_0-9\x80-\U0010ffff]*+)?\$)
    | (?P<line>   --[^\n\r]*+)
    | (?P<block>  /\*)
    | (?P<word>   [^\W\d]\w*+(?:\$\w*+)*+)
    | (?P<number> \$[0-9]++ | 0[xX](?:_?[0-9a-fA-F])++ | 0[bB](?:_?[01])++ | 0[oO](?:_?[0-7])++
                  | [0-9]++(?:_[0-9]++)*+(?:\.(?:[0-9]++(?:_[0-9]++)*+)?+)?+(?:[eE][+-]?[0-9]++)?+)
    | (?P<open>   [(\[{])
    | (?P<close>  [)\]}])
    | (?P<other>  [!#-&*-/:-@\\^`|~])
    """,
    re.VERBOSE | re.DOTALL,
)
"""A token as DuckDB's lexer cuts it. Every repetition is possessive, so that time stays linear."""

_BLOCK_EDGE = re.compile(r"/\*|\*/")
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


class Token(NamedTuple):
    """A piece of a text: its kind, and its first and last + 1 characters."""

    kind: str
    start: int
    end: int


def check_text(text: str) -> None:
    """Refuse a text that no parser should see; takes time linear in its length.

    Args:
        text: as the client sent it.

    Raises:
        QueryError: it is longer than 64 kB as UTF-8, nests brackets more than 100 deep, holds a
            zero or, outside quotes, a character that SQL does not have, or leaves a quote or
            comment open.
    """
    try:
        n_bytes = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise QueryError(f"character {error.start + 1} is half a character: send UTF-8") from error
    if n_bytes > MAX_TEXT_BYTES:
        raise QueryError(
            f"the statement has more than {MAX_TEXT_BYTES:,} bytes: send long lists of values as "
            "one list parameter, x IN (SELECT unnest($ids))"
        )
    if "\0" in text:
        raise QueryError(f"character {text.index(chr(0)) + 1} is a zero: leave it out")
    depth = 0
    for token in _tokens(text):
        if token.kind == "open":
            depth += 1
        elif token.kind == "close":
            depth = max(0, depth - 1)
        if depth > MAX_DEPTH:
            raise QueryError(
                f"brackets are more than {MAX_DEPTH} deep at character {token.start + 1}: "
                "name inner queries in a WITH clause"
            )


def check_query(connection: duckdb.DuckDBPyConnection, text: str, views: frozenset[str]) -> None:
    """Refuse all but one statement that only reads some views.

    Args:
        connection: to the database that shall run the statement; it runs nothing of the text here.
        text: of the statement.
        views: names that it may read, in lower case.

    Raises:
        QueryError: what is not allowed, and what to write instead.
    """
    check_text(text)
    body, kind = _unwrap_explain(text), duckdb.StatementType.SELECT
    statement = _serialize(connection, body)
    _Walk(connection, views).check(statement)
    # Only now: for some statements DuckDB reads files while it extracts them.
    if body != text:
        kind = duckdb.StatementType.EXPLAIN
    if [found.type for found in connection.extract_statements(text)] != [kind]:
        raise QueryError(f"this is not one statement that reads: {ALLOWED}")


def _tokens(text: str) -> Iterator[Token]:
    """The tokens of a text, without those inside of quotes and comments."""
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            _refuse_character(text, at)
        kind, end = found.lastgroup or "", found.end()
        if kind == "dollar":
            if not found.group().isascii():
                _refuse_character(text, at + 1)
            kind, end = "quoted", _find_end(text, found.group(), end)
        elif kind == "block":
            end = _end_of_block(text, end)
        elif kind == "line" and text[end : end + 1] == "\r" and text[end + 1 : end + 2] != "\n":
            _refuse_character(text, end)
        yield Token(kind, at, end)
        at = end


def _find_end(text: str, delimiter: str, start: int) -> int:
    """The place behind the delimiter that closes a dollar quote."""
    found = text.find(delimiter, start)
    if found < 0:
        raise QueryError(f"the quote {delimiter} is not closed")
    return found + len(delimiter)


def _end_of_block(text: str, start: int) -> int:
    """The place behind a comment, which may hold comments."""
    depth = 1
    for edge in _BLOCK_EDGE.finditer(text, start):
        depth += 1 if edge.group() == "/*" else -1
        if depth == 0:
            return edge.end()
    raise QueryError("a comment /* is not closed")


def _refuse_character(text: str, at: int) -> NoReturn:
    """Say which character no token begins with."""
    if text[at] in "'\"":
        raise QueryError(f"the quote at character {at + 1} is not closed")
    raise QueryError(
        f"character {at + 1} is U+{ord(text[at]):04X}, which SQL does not have outside quotes: "
        "write a plain space, or quote the name"
    )


def sql_words(text: str) -> Iterator[Token]:
    """The tokens that are neither space nor comment."""
    return (token for token in _tokens(text) if token.kind not in ("space", "line", "block"))


def _unwrap_explain(text: str) -> str:
    """The text without a leading EXPLAIN; unchanged where there is none.

    Raises:
        QueryError: EXPLAIN has options or ANALYZE, which would run what it holds.
    """
    words = sql_words(text)
    first, second = next(words, None), next(words, None)
    if first is None or text[first.start : first.end].upper() != "EXPLAIN":
        return text
    following = "" if second is None else text[second.start : second.end].upper()
    if following in ("(", "ANALYZE", "ANALYSE", "VERBOSE"):
        raise QueryError("EXPLAIN takes no ANALYZE and no options: write EXPLAIN SELECT …")
    return text[first.end :]


def _serialize(connection: duckdb.DuckDBPyConnection, text: str) -> dict[str, Any]:
    """The one statement of a text as DuckDB's own tree.

    Raises:
        QueryError: the text does not parse, is not a statement that reads, or is several.
    """
    try:
        (found,) = connection.execute(SERIALIZE, [text]).fetchone() or ("",)
        tree = json.loads(found)
    except duckdb.Error as error:
        raise QueryError(str(error)) from error
    except RecursionError as error:
        raise QueryError("the statement is nested too deeply: name parts in a WITH") from error
    if tree["error"]:
        raise QueryError(_describe_refusal(text, str(tree["error_message"])))
    if not tree["statements"]:
        raise QueryError(f"the text holds no statement: {ALLOWED}")
    if len(tree["statements"]) > 1:
        raise QueryError(f"got {len(tree['statements'])} statements: send one at a time")
    statement: dict[str, Any] = tree["statements"][0]
    return statement


def _describe_refusal(text: str, message: str) -> str:
    """Why DuckDB has no tree for a text, from its own message."""
    if "Only SELECT" not in message:
        return f"{message}; {PIVOT}" if "pivot" in message else message
    words = [text[word.start : word.end].upper() for word in sql_words(text)]
    if ";" in words and any(word != ";" for word in words[words.index(";") :]):
        return "got several statements: send one at a time"
    if words and words[0] in ("SELECT", "WITH", "FROM", "PIVOT", "("):
        return f"the statement does not only read; {PIVOT}"
    return f"{words[0] if words else 'this'} is not allowed, the service reads only: {ALLOWED}"


class _Walk:
    """A walk over a statement's tree that refuses what it does not know."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, views: frozenset[str]) -> None:
        self.connection = connection
        self.views = views
        self.tables: list[dict[str, Any]] = []
        self.ctes: set[str] = set()

    def check(self, statement: dict[str, Any]) -> None:
        """Refuse a statement with any part that is not allowed.

        Raises:
            QueryError: the first such part.
        """
        waiting: list[tuple[str, Any]] = [("statement", statement)]
        while waiting:
            role, part = waiting.pop()
            if isinstance(part, dict):
                waiting.extend(self._check_part(role, part))
            elif isinstance(part, list):
                waiting.extend((role, item) for item in part)
        self._check_ctes()
        for table in self.tables:
            self._check_table(table)

    def _check_part(self, role: str, part: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """Check one dictionary of the tree; gives what is inside, each with its role."""
        if unknown := part.keys() - KEYS - NEWER_KEYS:
            raise QueryError(f"{_spell(unknown)} is not allowed: leave this clause out")
        kind = part.get("type")
        if "class" in part:
            _check_expression(part, TABLE_FUNCTIONS if role == "table function" else FUNCTIONS)
        elif "id" in part:
            _check_type(part)
        elif isinstance(kind, str):
            self._check_node(kind, part)
        if role == "map":
            self.ctes.add(_name(part, "key"))
        for key, value in part.items():
            # The value of a constant is data; all keys beside it are walked.
            if not (key == "value" and "is_null" in part):
                is_call = kind == "TABLE_FUNCTION" and key == "function"
                yield "table function" if is_call else key, value

    def _check_node(self, kind: str, node: dict[str, Any]) -> None:
        """Check a query, a table reference, a modifier or the details of a type."""
        if kind not in NODES:
            raise QueryError(f"{_spell([kind])} is not allowed, the service reads only: {ALLOWED}")
        if kind == "BASE_TABLE":
            self.tables.append(node)
        elif kind == "SHOW_REF":
            _check_show(node)
        elif kind == "TABLE_FUNCTION" and node.get("function", {}).get("class") != "FUNCTION":
            raise QueryError("a table function must be called by its name")
        elif kind == "UNBOUND_TYPE_INFO" and "expr" not in node:
            _check_type_name(node, "name")

    def _check_ctes(self) -> None:
        """Refuse names of common table expressions that could mean something else to DuckDB."""
        taken: set[str] = set()
        if self.ctes - self.views:
            taken = {name for (name,) in self.connection.execute(TAKEN).fetchall()}
        for name in sorted(self.ctes - self.views):
            if name in taken or not _PLAIN_NAME.fullmatch(name):
                raise QueryError(
                    f"WITH {name!r} is not allowed: choose a name of letters, digits and '_' "
                    "that DuckDB does not use itself"
                )

    def _check_table(self, table: dict[str, Any]) -> None:
        """Refuse a table that is neither a view nor defined by the statement."""
        name = _name(table, "table_name")
        _check_path(table, name)
        catalog, schema = _name(table, "catalog_name"), _name(table, "schema_name")
        if (catalog, schema) in {("", ""), ("", "main"), ("memory", "main")} and (
            name in self.views or (not schema and name in self.ctes)
        ):
            return
        full = ".".join(filter(None, (catalog, schema, name)))
        near = get_close_matches(name, self.views, n=3, cutoff=0.5)
        hint = (
            f"nearest: {', '.join(near)}" if near else f"there are {', '.join(sorted(self.views))}"
        )
        raise QueryError(f"{full!r} cannot be read, only the views of the atlas: {hint}")


def _check_expression(expression: dict[str, Any], functions: frozenset[str]) -> None:
    """Refuse an expression of an unknown kind, or a call of a function that is not allowed."""
    group, kind = expression["class"], expression["type"]
    if kind not in EXPRESSIONS.get(group, ()):
        raise QueryError(f"{_spell([kind])} is not allowed here")
    if group == "TYPE":
        _check_type_name(expression, "type_name")
    if "function_name" not in expression:
        return
    name = _name(expression, "function_name")
    # What looks like a schema may be a column, as in text.upper(); the name decides either way.
    if _name(expression, "catalog"):
        raise QueryError(f"write {name}(…) without a catalog")
    _check_path(expression, name, _name(expression, "schema"))
    if name not in functions:
        near = get_close_matches(name, functions, n=3, cutoff=0.75)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise QueryError(
            f"the function {name} is not allowed, only functions that compute from values "
            f"given to them{hint}"
        )


def _check_type(part: dict[str, Any]) -> None:
    """Refuse a type outside of the list."""
    name = _name(part, "id")
    if name == "unbound":
        if "type_info" not in part:
            raise QueryError("a type without a name is not allowed")
    elif name not in TYPES:
        raise QueryError(f"the type {name} is not allowed")


def _check_type_name(part: dict[str, Any], key: str) -> None:
    """Refuse a type that DuckDB would look for in a catalog."""
    name = _name(part, key)
    _check_path(part, name)
    if name not in TYPES or part.get("schema") or part.get("catalog"):
        raise QueryError(f"the type {name} is not allowed")


def _check_show(node: dict[str, Any]) -> None:
    """Refuse SHOW of anything but the tables, a table or a query."""
    shown, name = node.get("show_type"), _name(node, "table_name")
    _check_path(node, name)
    if node.get("schema_name") or node.get("catalog_name"):
        shown = None
    is_described = shown in ("DESCRIBE", "SUMMARY") and "query" in node and not name
    is_listed = shown in ("SHOW_UNQUALIFIED", "SHOW_SPECIAL") and name == '"tables"'
    if not is_described and not is_listed:
        raise QueryError("SHOW takes TABLES alone: write SHOW TABLES, DESCRIBE t or SUMMARIZE t")


def _check_path(part: dict[str, Any], name: str, schema: str = "main") -> None:
    """Refuse a part whose second spelling of its name, as DuckDB 2 has it, is another one."""
    path = [str(piece).lower() for piece in part.get("qualified_name", {}).get("path", ())]
    if path and (path[-1] != name or path[:-1] not in ([], [schema], ["memory", schema])):
        raise QueryError(f"{'.'.join(path)!r} is not allowed: write the name alone")


def _name(part: dict[str, Any], key: str) -> str:
    """A name in a part, in lower case as DuckDB compares them; empty where there is none."""
    name = str(part.get(key, ""))
    return name.lower() if name.isascii() else name


def _spell(names: Any) -> str:
    """Names of DuckDB's tree as words."""
    return ", ".join(sorted(names)).replace("_", " ").lower()
