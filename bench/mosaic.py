"""Mosaic queries over HTTP: the service beside `duckdb-server` on the same files.

Run with `python -m bench.mosaic TEXT`. Both are processes of their own on loopback, read the same
listed files with as many threads, get the same text and take turns; a ratio is one of medians, of
whole replies that are not decoded. `duckdb-server` 0.28.0 runs in `build/duckdb-server`, with the
DuckDB that the service has. It has no gate and no sandbox, and holds its result in its own memory.
The statements are those that vgplot makes, over several heads where one head is too quick to tell
apart. The last line is JSON.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table

from api.settings import ServeSettings
from bench.atlases import BUILD
from bench.serve import HEAD, LAYER, START_S, check_same, serve, time_pairs, to_table
from bench.serve_atlases import build_serve
from store.atlas import Atlas
from store.views import listed_view

HOME = Path("build/duckdb-server")
PINNED = ["duckdb-server==0.28.0", *(f"{name}=={version(name)}" for name in ("duckdb", "pyarrow"))]
WANTED, SLOW_MS = 1.5, 20.0
"""Largest ratio, and the least time of a query that it is asked of."""

REST_S = 0.1
"""Pause before each query: after an answer a server goes on for a while, freeing what it made."""

BROWSER = "gzip, deflate, br, zstd"
"""What a browser accepts of this machine, or by TLS."""

START = """
import json, sys
import duckdb
from diskcache import Cache
from pkg.server import server
from socketify import App, AppListenOptions

asked = json.load(sys.stdin)
listen = App.listen
def listen_there(self, port, started):
    listen(self, AppListenOptions(port=asked["port"], host="127.0.0.1"), started)
App.listen = listen_there  # its own port is fixed, and open to others
connection = duckdb.connect()
for statement in asked["statements"]:
    connection.execute(statement)
server(connection, Cache())
"""

JOINED = "(SELECT * FROM points JOIN tokens USING (model, sequence_id, position)"
ONE_HEAD = f"layer = {LAYER} AND head = {HEAD}"

STATEMENTS = {
    "histogram of all heads": """
        SELECT 0.5 * floor(x / 0.5) AS x1, 0.5 * (1 + floor(x / 0.5)) AS x2, count(*) AS y
        FROM points GROUP BY x1, x2""",
    "histogram by kind, brushed": f"""
        SELECT 5 * floor(position / 5) AS x1, kind AS fill, count(*) AS y FROM points
        WHERE layer >= {LAYER} AND x BETWEEN -1 AND 1 AND y BETWEEN -1 AND 1 GROUP BY x1, fill""",
    "tokens of a layer, counted": f"""
        SELECT count(*) AS x, token FROM {JOINED} WHERE layer = {LAYER}) GROUP BY token""",
    "raster of a layer": f"""
        SELECT floor(x * 50)::INTEGER + 1000 * floor(y * 50)::INTEGER AS index,
               count(*)::DOUBLE AS density
        FROM points WHERE layer = {LAYER} GROUP BY index""",
    "domain of the later layers": f"""
        SELECT min(x) AS low, max(x) AS high, min(y) AS bottom, max(y) AS top
        FROM points WHERE layer >= {LAYER}""",
    "points of a head": f"""
        SELECT x, y, kind AS fill FROM {JOINED} WHERE {ONE_HEAD})""",
    "points of three heads": f"""
        SELECT x, y, kind AS fill, head AS fx FROM points
        WHERE layer = {LAYER} AND head IN (3, 4, 5)""",
    "points of a layer, filtered by token": f"""
        SELECT x, y, kind AS fill, token FROM {JOINED} WHERE layer = {LAYER})
        WHERE token IN ('Ġthe', 'Ġof', 'Ġin') AND position BETWEEN 5 AND 50""",
}
Row = dict[str, Any]


def measure(
    texts: Annotated[list[Path], typer.Argument(help="Plain text, a paragraph a line.")],
    repetitions: Annotated[int, typer.Option(help="Pairs of each figure.")] = 30,
) -> None:
    """Measure Mosaic's door."""
    uri = build_serve(texts)
    install()
    result: Row = {"bench": "mosaic", "cores": os.cpu_count(), "reference": PINNED}
    with serve(uri) as (client, _), serve_reference(uri) as reference:
        result["statements"] = {
            name: measure_statement(client, reference, " ".join(statement.split()), repetitions)
            for name, statement in STATEMENTS.items()
        }
    slow = [row for row in result["statements"].values() if row["reference_ms"] >= SLOW_MS]
    result["worst_ratio"] = max((row["ratio"] for row in slow), default=None)
    print_figures(result)
    print(json.dumps(result))


def install() -> None:
    """Give `duckdb-server` an environment of its own, once."""
    python = str(HOME / "bin" / "python")
    if not Path(python).exists():
        subprocess.run([sys.executable, "-m", "venv", str(HOME)], check=True)
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, *PINNED], check=True)


@contextmanager
def serve_reference(uri: str) -> Iterator[httpx.Client]:
    """A client of `duckdb-server` over views of the atlas's live files."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Atlas(uri) as atlas:
        views = [
            listed_view(name, atlas.snapshot.files(name)["path"].to_pylist())
            for name in ("points", "tokens")
        ]
    threads = f"SET threads = {ServeSettings(uri).worker_threads}"
    asked = json.dumps({"port": port, "statements": [threads, *views]}).encode()
    with (BUILD / "duckdb-server.log").open("wb") as log:
        process = subprocess.Popen(
            [HOME / "bin" / "python", "-c", START], stdin=subprocess.PIPE, stdout=log, stderr=log
        )
    try:
        assert process.stdin is not None
        process.stdin.write(asked)
        process.stdin.close()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            wait_for_answer(client, process)
            yield client
    finally:
        process.kill()  # it has no other end
        process.wait(30)


def wait_for_answer(client: httpx.Client, process: "subprocess.Popen[bytes]") -> None:
    """Ask until it answers."""
    until = time.perf_counter() + START_S
    while time.perf_counter() < until:
        if process.poll() is not None:
            raise RuntimeError(f"duckdb-server ended with {process.returncode}; see its log")
        try:
            ask(client, "/", "SELECT 1 AS one")
            return
        except httpx.TransportError:
            time.sleep(0.05)
    raise RuntimeError(f"duckdb-server gave no answer within {START_S} s; see its log")


def ask(client: httpx.Client, path: str, statement: str) -> httpx.Response:
    """A whole reply to what `restConnector` sends; ours is compressed, duckdb-server's never is."""
    body = {"type": "arrow", "sql": statement}
    reply = client.post(path, json=body, headers={"accept-encoding": BROWSER})
    if not reply.is_success:
        raise RuntimeError(f"{reply.status_code}: {reply.text}: {statement}")
    return reply


def measure_statement(
    client: httpx.Client, reference: httpx.Client, statement: str, repetitions: int
) -> Row:
    """One statement, both ways, once the rows are seen to be the same."""
    found = to_table(ask(client, "/mosaic/", statement))
    expected = to_table(ask(reference, "/", statement))
    check_same(found, expected, expected.column_names)
    times = time_pairs(
        lambda: ask(client, "/mosaic/", statement),
        lambda: ask(reference, "/", statement),
        repetitions,
        REST_S,
    )
    return {"rows": len(found), "bytes": expected.nbytes} | times


def print_figures(result: Row) -> None:
    """The statements, and whether those that are slow enough hold the bound."""
    table = Table("query", "rows", "MB", "ours, ms", "duckdb-server, ms", "ratio", "")
    for name, row in result["statements"].items():
        asked = row["reference_ms"] >= SLOW_MS
        mark = ("✓" if row["ratio"] <= WANTED else "✗") if asked else f"below {SLOW_MS:g} ms"
        cells = (row["rows"], round(row["bytes"] / 1e6, 1), row["ms"], row["reference_ms"])
        table.add_row(name, *map(str, cells), f"{row['ratio']:.2f}", mark)
    Console().print(table)


if __name__ == "__main__":
    typer.run(measure)
