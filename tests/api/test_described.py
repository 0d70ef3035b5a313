"""A described statement has the columns of its answer, and is not run."""

import asyncio
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from api.described import list_parameters
from api.pool import Pool
from store.errors import QueryError
from tests.api.honest import HONEST
from tests.api.hostile import HOSTILE
from tests.api.small_pool import make_atlas, make_job, running_pool


async def ask(pool: Pool, sql: str, **more: Any) -> pa.Table:
    reply = await pool.run(make_job(sql, format="arrow", **more), "me")
    return pa.ipc.open_stream(io.BytesIO(reply.body)).read_all()


def test_columns_are_those_of_the_answer(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running_pool(make_atlas(tmp_path / "atlas")) as pool:
            for sql in HONEST:
                described = await ask(pool, sql, describe=True)
                assert described.num_rows == 0
                assert described.schema.equals((await ask(pool, sql)).schema), sql

    asyncio.run(scene())


def test_what_is_described_passes_the_gate_and_is_not_run(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running_pool(make_atlas(tmp_path / "atlas")) as pool:
            for sql in HOSTILE.values():
                with pytest.raises(QueryError):
                    await pool.run(make_job(sql, format="arrow", describe=True), "me")
            endless = "SELECT count(*) AS n FROM range(1_000_000_000_000) t(i) WHERE i % 7 = 3"
            found = await ask(pool, endless, describe=True, timeout_s=20.0)
            assert found.schema.names == ["n"]
            with_parameter = f"{endless} AND i > ? ; -- end"
            found = await ask(pool, with_parameter, describe=True, timeout_s=20.0)
            assert found.schema.names == ["n"]

    asyncio.run(scene())


INT, BIG = pa.int32(), pa.int64()

EXPLAINED = [("explain_key", pa.string()), ("explain_value", pa.string())]

PARAMETERS: list[tuple[str, Any, list[str], list[tuple[str, pa.DataType]]]] = [
    ("SELECT 1 AS a", None, [], [("a", INT)]),
    ("SELECT ? AS a, 2 AS a ; ; -- ;", None, ["1"], [("a", INT), ("a", INT)]),
    ("SELECT ? AS a", [2**40], ["1"], [("a", BIG)]),
    ("SELECT $b AS b, $a AS a", None, ["a", "b"], [("b", INT), ("a", INT)]),
    ("SELECT $b AS ü /* ; */;", {"b": "x"}, ["b"], [("ü", pa.string())]),
    ("SELECT [" + "?, " * 11 + "1] AS a", None, [f"{n + 1}" for n in range(11)], []),
    ("SELECT * FROM unnest(?) t(a)", None, ["1"], []),
    ("SELECT * FROM unnest(?) t(a)", [["x"]], ["1"], [("a", pa.string())]),
    ("SELECT list_sum(?) AS a", [[1.5]], ["1"], [("a", pa.float64())]),
    ("FROM tokens SELECT position WHERE token = ?", None, ["1"], [("position", INT)]),
    ("EXPLAIN SELECT ? AS a", None, ["1"], EXPLAINED),
    ("explain FROM tokens WHERE token = $a ; -- end", {"a": "x"}, ["a"], EXPLAINED),
]

ABOUT = [
    ("EXPLAIN FROM tokens WHERE token = ?", ["t1"]),
    ("DESCRIBE SELECT ? AS a, ? AS a", [1, "x"]),
    ("SUMMARIZE FROM tokens WHERE token <> $a;", {"a": "t1"}),
    ("FROM (SUMMARIZE SELECT ? AS a)", [1]),
]


def test_parameters_are_named_and_nulls_until_they_have_values(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running_pool(make_atlas(tmp_path / "atlas")) as pool:
            for sql, given, names, columns in PARAMETERS:
                schema = (await ask(pool, sql, describe=True, parameters=given)).schema
                assert list_parameters(schema) == names
                found = [(field.name, field.type) for field in schema]
                assert found == columns or (sql.startswith("SELECT [") and len(found) == 1), sql
            with pytest.raises(QueryError, match="UNNEST"):
                await ask(pool, "FROM unnest(?)", describe=True, parameters=["x"])

    asyncio.run(scene())


def test_what_tells_of_a_statement_takes_its_parameters(tmp_path: Path) -> None:
    async def scene() -> None:
        async with running_pool(make_atlas(tmp_path / "atlas")) as pool:
            for sql, given in ABOUT:
                described = await ask(pool, sql, describe=True, parameters=given)
                answer = await ask(pool, sql, parameters=given)
                assert described.schema.equals(answer.schema) and answer.num_rows, sql
            for sql in ("EXPLAIN SELECT nothing, ?", "SELECT nothing, ?", "DESCRIBE FROM none, ?"):
                with pytest.raises(QueryError) as caught:
                    await ask(pool, sql, describe=True, parameters=[1])
                assert "LIMIT" not in str(caught.value) and "SELECT *" not in str(caught.value)

    asyncio.run(scene())
