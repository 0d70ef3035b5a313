import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress

import duckdb
import pytest

from api import allowed
from api.gate import MAX_DEPTH, MAX_TEXT_BYTES, SERIALIZE, check_query, check_text
from store.errors import QueryError
from store.scan import dataset
from store.snapshot import Snapshot
from store.views import create_views, is_listed, lock, read_contents
from tests.api.fuzz import VIEWS, fuzz, mutate
from tests.api.honest import HONEST, WITH_PARAMETERS
from tests.api.hostile import HOSTILE, LOADS, NEVER
from tests.store.lake_fixture import build_atlas

CALLS = """
SELECT lower(function_name), function_type FROM duckdb_functions()
WHERE function_type <> 'pragma'
"""


@pytest.fixture(scope="module", params=["v0.10.2", "latest"])
def connection(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[duckdb.DuckDBPyConnection]:
    """The views of a small atlas; DuckDB spells a tree in an old and in its newest way."""
    root = build_atlas(tmp_path_factory.mktemp("gate"))
    with duckdb.connect(config={"python_enable_replacements": False}) as found:
        found.execute(f"SET storage_compatibility_version = '{request.param}'")
        contents = read_contents(Snapshot.load(str(root)))
        create_views(found, contents, is_listed, dataset)
        lock(found, [str(root)])
        yield found


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_statement_is_refused(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    with pytest.raises(QueryError, match=r"\w") as caught:
        check_text(HOSTILE[name])
        check_query(connection, HOSTILE[name], VIEWS)
    assert len(str(caught.value)) < 2_000


def test_list_covers_what_was_promised() -> None:
    assert len(HOSTILE) >= 180
    assert len(HONEST) >= 80
    assert len(set(HOSTILE.values())) == len(HOSTILE)


@pytest.mark.parametrize("text", HONEST)
def test_honest_statement_passes_and_runs(connection: duckdb.DuckDBPyConnection, text: str) -> None:
    check_text(text)
    check_query(connection, text, VIEWS)
    with connection.cursor() as cursor:
        cursor.execute(text).fetchall()


@pytest.mark.parametrize(("text", "parameters"), WITH_PARAMETERS)
def test_honest_parameters_are_bound(
    connection: duckdb.DuckDBPyConnection, text: str, parameters: object
) -> None:
    check_query(connection, text, VIEWS)
    with connection.cursor() as cursor:
        cursor.execute(text, parameters).fetchall()


@pytest.mark.parametrize("name", LOADS)
def test_load_is_left_to_the_limits_of_the_worker(
    connection: duckdb.DuckDBPyConnection, name: str
) -> None:
    check_text(LOADS[name])
    check_query(connection, LOADS[name], VIEWS)


def test_no_part_of_a_statement_is_hidden_from_the_gate(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """A query put in any place of an honest statement breaks it, or is seen and refused."""
    n_seen = 0
    for text in HONEST:
        if re.search(r'--|/\*|"|\$\$|(?i:explain)', text):
            continue  # in a comment or a quote it is no query, and an EXPLAIN has no tree
        for place in re.finditer(r"'[^']*'|\b\w+\b", text):
            marked = f"{text[: place.start()]}(FROM read_text('MARK')){text[place.end() :]}"
            (tree,) = connection.execute(SERIALIZE, [marked]).fetchone() or ("",)
            if not json.loads(tree)["error"]:
                assert "MARK" in tree, marked
                n_seen += 1
                with pytest.raises(QueryError, match="the function read_text is not allowed"):
                    check_query(connection, marked, VIEWS)
    assert n_seen > 200


def test_every_allowed_function_is_one_of_duckdb(connection: duckdb.DuckDBPyConnection) -> None:
    found = connection.execute(CALLS).fetchall()
    tables = {name for name, kind in found if kind.startswith("table")}
    computing = {name for name, kind in found if not kind.startswith("table")}
    assert allowed.FUNCTIONS - computing <= {"unnest"}
    assert tables >= allowed.TABLE_FUNCTIONS


def test_no_function_is_allowed_that_must_never_be() -> None:
    both = allowed.FUNCTIONS | allowed.TABLE_FUNCTIONS
    assert not both & NEVER
    words = (
        r"__internal|pragma_|duckdb_|pg_|read_|parquet_|icu_|has_|inet_|st_|.*(secret|execute|log_)"
    )
    assert [name for name in both if re.match(words, name)] == []


def test_function_that_nobody_reviewed_is_refused(connection: duckdb.DuckDBPyConnection) -> None:
    """So is whatever the next DuckDB brings."""
    with duckdb.connect() as other:
        other.execute("CREATE MACRO brand_new(x) AS x")
        with pytest.raises(QueryError, match="the function brand_new is not allowed"):
            check_query(other, "SELECT brand_new(1)", VIEWS)
    for name, kind in connection.execute(CALLS).fetchall():
        known = allowed.TABLE_FUNCTIONS if kind.startswith("table") else allowed.FUNCTIONS
        call = f"FROM \"{name}\"('x')" if kind.startswith("table") else f"SELECT \"{name}\"('x')"
        if name not in known:
            with pytest.raises(QueryError):
                check_query(connection, call, VIEWS)


def test_name_of_a_table_function_reads_nothing_without_brackets(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    """Hence WITH query AS … and WITH summary AS … are free to use."""
    for name, kind in connection.execute(CALLS).fetchall():
        if kind.startswith("table") and name.startswith(("query", "read", "summary", "glob")):
            with pytest.raises(duckdb.CatalogException):
                connection.execute(f'FROM "{name}"')
    with pytest.raises(duckdb.CatalogException):
        connection.execute("FROM schemata")  # of information_schema, outside the search path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("COPY tokens TO 'x.csv'", "COPY is not allowed, the service reads only: write one SELECT"),
        ("SELECT 1; SELECT 2", "statements: send one at a time"),
        ("SELECT 1; DROP VIEW tokens", "several statements: send one at a time"),
        ("FROM tokenz", "'tokenz' cannot be read, only the views of the atlas: nearest: tokens"),
        ("FROM 'a.csv'", "'a.csv' cannot be read.* there are current_maps, files"),
        ("SELECT list_dot_prodct([1], [2])", "is not allowed.*nearest: list_dot_product"),
        ("EXPLAIN ANALYZE SELECT 1", "no ANALYZE and no options: write EXPLAIN SELECT"),
        ("PIVOT heads ON layer USING count(*)", "PIVOT needs its values in the text"),
        ("SHOW DATABASES", "write SHOW TABLES, DESCRIBE t or SUMMARIZE t"),
        ("SELEC 1", 'syntax error at or near "SELEC"'),
        ("", "the text holds no statement: write one SELECT"),
        ("WITH pg_class AS (SELECT 1) FROM pg_class", "choose a name of letters, digits"),
        ("SELECT 1::my_type", "the type my_type is not allowed"),
        ("SELECT '\0'", "character 9 is a zero"),
        ("SELECT\u00a01", r"U\+00A0, which SQL does not have outside quotes: write a plain space"),
        ("SELECT 'x", "the quote at character 8 is not closed"),
        ("SELECT $$x", r"the quote \$\$ is not closed"),
        ("SELECT '\ud800'", "half a character: send UTF-8"),
    ],
)
def test_refusal_says_what_to_do(
    connection: duckdb.DuckDBPyConnection, text: str, message: str
) -> None:
    with pytest.raises(QueryError, match=message):
        check_query(connection, text, VIEWS)


@pytest.mark.parametrize(
    "prefix",
    [
        "", "'(' || ", "'''(' || ", '"(" || ', "$$((($$ || ", "$a$ $$ ( $a$ || ", "e'\\'(' || ",
        "E'\\\\' || ", "e'a''\\'(' || ", "/* ( /* ( */ ( */ ",
        "-- (\n", "'\\' || ", "1e5 + ", "a$$b + ", "1.e'(' + ",
        "$1 + $name + ", "'(' 'x' || ", "0x1F + 1_000.5_0 + .5e-3 + ",
    ],
)  # fmt: skip
def test_brackets_are_counted_outside_quotes_and_comments(prefix: str) -> None:
    check_text(f"SELECT {prefix}{'(' * MAX_DEPTH}1{')' * MAX_DEPTH}")
    check_text(f"SELECT {prefix}{'(1)+' * 5_000}1")
    for opened in "([{":
        with pytest.raises(QueryError, match="brackets are more than 100 deep"):
            check_text(f"SELECT {prefix}{opened * (MAX_DEPTH + 1)}")


def test_text_of_64_kb_passes_and_one_byte_more_does_not() -> None:
    check_text("SELECT '" + "x" * (MAX_TEXT_BYTES - 9) + "'")
    with pytest.raises(QueryError, match="more than 65,536 bytes: send long lists"):
        check_text("SELECT '" + "x" * (MAX_TEXT_BYTES - 8) + "'")
    with pytest.raises(QueryError, match="more than 65,536 bytes"):
        check_text("SELECT '" + "ü" * (MAX_TEXT_BYTES // 2) + "'")


@pytest.mark.parametrize("piece", ["e'\\'", "$a", "/*", "1e", "1_", "a$", "'", '"', "$", "-", "é"])
def test_time_of_the_text_check_grows_with_its_length_alone(piece: str) -> None:
    def seconds(n_bytes: int) -> float:
        started = time.perf_counter()
        with suppress(QueryError):
            check_text((piece * n_bytes)[:n_bytes])
        return time.perf_counter() - started

    assert min(seconds(30_000) for _ in range(3)) < 0.5  # were it quadratic, it would be seconds


def test_mutated_statements_pass_only_where_they_read_views(
    connection: duckdb.DuckDBPyConnection,
) -> None:
    counts = fuzz(connection, VIEWS, range(5_000))
    assert counts["passed"] > 200
    assert counts["refused"] > 2_000
    assert mutate(7) == mutate(7)
