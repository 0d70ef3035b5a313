"""The two writes of a viewer: what it sends passes, anything near it does not."""

from collections.abc import Iterator

import duckdb
import pytest

from api.colouring import is_write, read_writes
from api.gate import check_query
from api.session_database import VIEWS, _write
from store.errors import QueryError

BY_CATEGORY = """
    ALTER TABLE dataset ADD COLUMN IF NOT EXISTS "__ev_token_id" INTEGER DEFAULT 0;
    UPDATE dataset
    SET "__ev_token_id" =
      CASE "token"::TEXT
      WHEN 'a1' THEN 0 WHEN 'a;2 WHERE (' THEN 1 WHEN 'it''s' THEN 2
      ELSE (CASE WHEN "token" IS NULL THEN 4 ELSE 3 END) END
"""
BY_NUMBER = """
    ALTER TABLE dataset ADD COLUMN IF NOT EXISTS "__ev_x_id" INTEGER DEFAULT 0;
    UPDATE dataset SET "__ev_x_id" = CASE WHEN isfinite("x"::DOUBLE)
      THEN FLOOR((("x"::DOUBLE - -1.5) * 0.2))::INTEGER ELSE NULL END
"""
LATER = 'UPDATE dataset SET "__ev_x_id" = 7 WHERE "__ev_x_id" IS NULL;'


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:") as made:
        made.execute("""
            CREATE TABLE dataset AS
            SELECT i AS id, i::DOUBLE AS x, 'a' || i AS token FROM range(9) t(i)
        """)
        yield made


def test_colours_of_a_viewer_are_written(connection: duckdb.DuckDBPyConnection) -> None:
    for text in (BY_CATEGORY, BY_NUMBER, BY_CATEGORY, LATER):
        assert is_write(text)
        _write(connection, text)
    found = connection.execute('SELECT "__ev_token_id", "__ev_x_id" FROM dataset').fetchall()
    assert found == [(0 if i == 1 else 3, int((i + 1.5) * 0.2)) for i in range(9)]


@pytest.mark.parametrize(
    "text",
    [
        'update "dataset" set __ev_a = 1 -- all',
        'UPDATE dataset SET "__ev_a" = /* WHERE */ (SELECT max(id) FROM dataset WHERE id > 1)',
        'ALTER TABLE dataset ADD COLUMN IF NOT EXISTS "__ev_a ""b" INTEGER',
        "UPDATE dataset SET __ev_a = list_sum([x FOR x IN [1, 2]])",
    ],
)
def test_other_spellings_pass(connection: duckdb.DuckDBPyConnection, text: str) -> None:
    connection.execute("ALTER TABLE dataset ADD COLUMN __ev_a INTEGER")
    _write(connection, text)


ADD = "ALTER TABLE dataset ADD COLUMN IF NOT EXISTS "

REFUSED = {
    "another table": "UPDATE other SET __ev_a = 1",
    "a schema": "UPDATE main.dataset SET __ev_a = 1",
    "a column of the atlas": "UPDATE dataset SET x = 1",
    "two columns": "UPDATE dataset SET __ev_a = 1, x = 1",
    "two columns in brackets": "UPDATE dataset SET (__ev_a, x) = (1, 2)",
    "from": "UPDATE dataset SET __ev_a = 1 FROM dataset d",
    "returning": "UPDATE dataset SET __ev_a = 1 RETURNING *",
    "returning later": "UPDATE dataset SET __ev_a = 1 WHERE true RETURNING *",
    "with": "WITH t AS (SELECT 1) UPDATE dataset SET __ev_a = 1",
    "closes a bracket": "UPDATE dataset SET __ev_a = 1) WHERE (true",
    "opens one": "UPDATE dataset SET __ev_a = (1 WHERE true",
    "two conditions": "UPDATE dataset SET __ev_a = 1 WHERE true WHERE true",
    "no condition": "UPDATE dataset SET __ev_a = 1 WHERE",
    "no value": "UPDATE dataset SET __ev_a = ",
    "reads a file": "UPDATE dataset SET __ev_a = (SELECT count(*) FROM read_text('/etc/passwd'))",
    "file as table": "UPDATE dataset SET __ev_a = (SELECT count(*) FROM '/etc/passwd')",
    "catalog": "UPDATE dataset SET __ev_a = (SELECT count(*) FROM duckdb_settings())",
    "environment": "UPDATE dataset SET __ev_a = length(getenv('HOME')) WHERE getenv('HOME') <> ''",
    "condition": "UPDATE dataset SET __ev_a = 1 WHERE (SELECT true FROM glob('*'))",
    "copy after": "UPDATE dataset SET __ev_a = 1; COPY dataset TO 'x'",
    "copy before": f"{ADD}__ev_b INTEGER; COPY dataset TO 'x'",
    "select after": "UPDATE dataset SET __ev_a = 1; SELECT 1",
    "drop": "ALTER TABLE dataset DROP COLUMN x",
    "rename": "ALTER TABLE dataset RENAME TO other",
    "rename a column": "ALTER TABLE dataset RENAME x TO __ev_x",
    "type": "ALTER TABLE dataset ALTER x TYPE VARCHAR",
    "another type": f"{ADD}__ev_b VARCHAR",
    "another name": f"{ADD}b INTEGER",
    "a default that computes": f"{ADD}__ev_b INTEGER DEFAULT nextval('s')",
    "no default": f"{ADD}__ev_b INTEGER DEFAULT",
    "a check": f"{ADD}__ev_b INTEGER CHECK (true)",
    "not ours": "ALTER TABLE dataset ADD COLUMN __ev_b INTEGER",
    "database": "ALTER DATABASE memory SET ALIAS TO a",
    "escape of quotes": "UPDATE dataset SET __ev_a = e'\\'' || ') FROM x --'",
}


@pytest.mark.parametrize("name", REFUSED)
def test_nothing_else_is_written(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    connection.execute("ALTER TABLE dataset ADD COLUMN __ev_a INTEGER")
    connection.execute("CREATE TABLE other AS FROM dataset")
    before = [connection.execute(f"FROM {table}").fetchall() for table in ("dataset", "other")]
    with pytest.raises((QueryError, duckdb.Error)):
        if is_write(REFUSED[name]):
            _write(connection, REFUSED[name])
        else:
            check_query(connection, REFUSED[name], VIEWS)
    after = [connection.execute(f"FROM {table}").fetchall() for table in ("dataset", "other")]
    assert after == before
    assert connection.execute("SHOW TABLES").fetchall() == [("dataset",), ("other",)]


@pytest.mark.parametrize("value", ["1/0", "CAST(token AS INTEGER)", "nothing", "error('no')"])
def test_a_write_that_fails_as_it_runs_leaves_nothing(
    connection: duckdb.DuckDBPyConnection, value: str
) -> None:
    _write(connection, BY_NUMBER)
    before = connection.execute("FROM dataset").fetchall()
    with pytest.raises(duckdb.Error):
        _write(connection, f"{LATER} {BY_CATEGORY}; UPDATE dataset SET __ev_token_id = {value}")
    assert connection.execute("FROM dataset").fetchall() == before
    _write(connection, BY_CATEGORY)  # the connection is in no transaction


def test_columns_are_added_before_any_is_filled(connection: duckdb.DuckDBPyConnection) -> None:
    _write(connection, f"{BY_NUMBER}; {BY_CATEGORY}")
    assert len(connection.execute("FROM dataset").description) == 5


def test_columns_have_an_end(connection: duckdb.DuckDBPyConnection) -> None:
    add = "ALTER TABLE dataset ADD COLUMN IF NOT EXISTS __ev_{} INTEGER;"
    with pytest.raises(QueryError, match="at most 200"):
        for start in range(0, 1_000, 50):
            _write(connection, "".join(add.format(n) for n in range(start, start + 50)))
    (n_columns,) = connection.execute(
        "SELECT count(*) FROM duckdb_columns() WHERE table_name = 'dataset'"
    ).fetchall()
    assert n_columns[0] <= 200


@pytest.mark.parametrize("text", ["SELECT 1", "", "-- ALTER\nSELECT 1", "FROM dataset"])
def test_what_reads_is_no_write(text: str) -> None:
    assert not is_write(text)


def test_an_empty_text_writes_nothing() -> None:
    assert read_writes(" ; ;") == []
