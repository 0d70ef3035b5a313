"""A selection of points as Parquet by `/v1/sql`: the statement that the page and docs give."""

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pyarrow.parquet as pq
import pytest

from store.schema import sequence_id
from tests.api.running_service import running_service
from tests.store.lake_fixture import (
    add_file,
    add_map_row,
    add_shard,
    build_atlas,
    positions,
)

ROOT = Path(__file__).parents[2]
LENGTHS = [500] * 60
"""30,000 queries on the map."""

PLACES = [(sequence_id(2, n // 500), n % 500) for n in range(30_000)]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    root = build_atlas(tmp_path_factory.mktemp("atlas"))
    add_shard(root, 2, lengths=LENGTHS, tables=("tokens", "sequences"))
    at, n = positions(2, LENGTHS), len(PLACES)
    own = {"map_id": ["a"] * n, "part": [0] * n, "kind": ["query"] * n, "rank": list(range(n))}
    columns = {**at, **own, "x": [0.5] * n, "y": [0.25] * n}
    where = {"model": "tiny", "layer": 0, "head": 0}
    add_file(root, "points", "m-a-0-q.parquet", columns, where)
    add_map_row(root, "a", 0, "ok", 1)
    with (
        running_service(str(root), "--workers", "2") as url,
        httpx2.Client(base_url=url, timeout=120) as client,
    ):
        yield client


def statement() -> str:
    """The statement as docs/serving.md gives it."""
    text = (ROOT / "docs" / "serving.md").read_text("utf-8")
    found = re.search(r"```sql\n(SELECT points\.\*, token.*?)```", text, re.DOTALL)
    assert found
    return found[1]


def export(client: httpx2.Client, sql: str, parameters: dict[str, Any]) -> list[tuple[int, int]]:
    body = {"sql": sql, "parameters": {**parameters, "m": "a"}, "format": "parquet"}
    reply = client.post("v1/sql", json=body)
    assert (reply.status_code, reply.headers["x-truncated"]) == (200, "false"), reply.text
    table = pq.read_table(io.BytesIO(reply.content))
    assert {"map_id", "kind", "x", "y", "rank", "token"} <= set(table.column_names)
    assert all(
        token == f"t{position}"
        for token, position in zip(
            table["token"].to_pylist(), table["position"].to_pylist(), strict=True
        )
    )
    return sorted(zip(table["sequence_id"].to_pylist(), table["position"].to_pylist(), strict=True))


def test_twenty_thousand_places_are_exported_as_parquet_from_lists(
    client: httpx2.Client,
) -> None:
    chosen = PLACES[::3] + PLACES[1::3]
    lists = {"s": [s for s, _ in chosen], "p": [p for _, p in chosen], "k": ["query"] * len(chosen)}
    sql = re.sub(r"string_split\((\$\w), ','\)(::\w+\[\])?", r"\1", statement())
    assert "unnest($s)" in sql
    assert len(chosen) == 20_000
    assert export(client, sql, lists) == sorted(chosen)


def test_more_are_exported_where_lists_come_as_text(client: httpx2.Client) -> None:
    chosen = [*PLACES, *((s, 999) for s, _ in PLACES[:10_000])]  # the last are on no map
    texts = {
        "s": ",".join(str(s) for s, _ in chosen),
        "p": ",".join(str(p) for _, p in chosen),
        "k": ",".join(["query"] * len(chosen)),
    }
    assert export(client, statement(), texts) == sorted(PLACES)


def test_a_selection_of_too_many_values_is_told_the_limit(client: httpx2.Client) -> None:
    reply = client.post(
        "v1/sql", json={"sql": "SELECT len($a)", "parameters": {"a": [1] * 100_000}}
    )
    assert reply.status_code == 400
    assert "more than 100,000 values" in reply.json()["error"]["message"]
