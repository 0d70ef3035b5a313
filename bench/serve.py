"""The service beside what it replaces: files read directly, one large JSON, a glob, bare DuckDB.

Run with `python -m bench.serve TEXT`. A real server in a process of its own answers over loopback;
it and its reference run in turns, and a ratio is one of medians. The atlases come from
`bench.serve_atlases`. Parts, chosen by `--only`: a points of a head, b matrix, c 100,048 files,
d 32 clients at once (`bench.serve_load`), e SQL, f hostile loads (`bench.serve_hostile`). Replies
to a, b, c and e are asked for uncompressed. The last line is JSON.
"""

import gzip
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import duckdb
import httpx
import numpy as np
import pyarrow as pa
import typer
from rich.console import Console
from rich.table import Table

from api.settings import ServeSettings
from bench.atlases import BUILD
from bench.serve_atlases import MODEL, build_many, build_serve
from bench.serve_hostile import measure_hostile
from bench.serve_load import measure_load
from store.atlas import Atlas
from store.views import listed_view, quote

ARROW = {"accept": "application/vnd.apache.arrow.stream", "accept-encoding": "identity"}
LAYER, HEAD = 7, 4
N_POINTS, N_MATRIX = 10_000, 2_000
START_S = 60.0
"""Seconds that a server may take to start; its log is build/bench/serve.log."""

COLUMNS = ["kind", "sequence_id", "position", "x", "y", "rank", "token", "is_special"]

POINTS = f"""
SELECT {", ".join(COLUMNS)} FROM read_parquet({{points}}) p JOIN (
    SELECT sequence_id, position, token, is_special FROM read_parquet({{tokens}})
) t USING (sequence_id, position)
WHERE map_id = $map_id AND rank <= $rank {{place}}
"""

NEAREST = f"""
SELECT sequence_id, position, list_dot_product(vector, $vector::FLOAT[]) AS score
FROM read_parquet({{keys}})
WHERE model = '{MODEL}' AND layer = {LAYER} AND kv_head = {{kv_head}}
ORDER BY score DESC LIMIT 10
"""

STATEMENTS = {
    "all heads": "SELECT layer, head, kind, count(*), avg(x), stddev(y) FROM points GROUP BY ALL",
    "tokens of a head": f"""
        SELECT token, count(*) AS n, avg(distortion) FROM points
        JOIN tokens USING (model, sequence_id, position)
        WHERE layer = {LAYER} AND head = {HEAD} GROUP BY token ORDER BY n DESC LIMIT 100""",
    "vectors of a head": f"""
        SELECT position, avg(list_dot_product(vector, vector)) FROM queries
        WHERE layer = {LAYER} AND head = {HEAD} GROUP BY position""",
    "rows of a head": f"SELECT * FROM points WHERE layer = {LAYER} AND head = {HEAD}",
}

Row = dict[str, Any]


def measure(
    texts: Annotated[list[Path], typer.Argument(help="Plain text, a paragraph a line.")],
    only: Annotated[str, typer.Option(help="Parts, of a,b,c,d,e,f.")] = "a,b,c,d,e,f",
    repetitions: Annotated[int, typer.Option(help="Pairs of each figure.")] = 30,
    rounds: Annotated[int, typer.Option(help="Of each client, over all endpoints.")] = 6,
) -> None:
    """Measure the service."""
    parts = set(only.split(","))
    uri = build_serve(texts)
    result: Row = {"bench": "serve", "cores": os.cpu_count()}
    with serve(uri) as (client, _):
        if "a" in parts:
            result["a"] = measure_points(client, uri, repetitions)
        if "b" in parts:
            result["b"] = measure_matrix(client, repetitions)
        if "d" in parts:
            result["d"] = measure_load(client, uri, rounds)
        if "e" in parts:
            result["e"] = measure_sql(client, uri, repetitions)
        if "f" in parts:
            result["f"] = measure_hostile(client.base_url)
    if "c" in parts:
        result["c"] = measure_many(build_many(uri), repetitions)
    print_figures(result)
    print(json.dumps(result))


@contextmanager
def serve(uri: str) -> Iterator[tuple[httpx.Client, float]]:
    """A server in a process of its own: a client of it, and seconds from start to first reply.

    It is handed over once all its workers have started, so that these take no time of what follows.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "qkatlas", "serve", "--atlas", uri, "--port", str(port)]
    with (BUILD / "serve.log").open("w") as log:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            wait_for_reply(client, process, started)
            seconds = time.perf_counter() - started
            while client.get("/readyz").json()["workers"]["idle"] <= ServeSettings(uri).workers:
                time.sleep(0.1)
            yield client, seconds
    finally:
        process.terminate()
        process.wait(30)


def wait_for_reply(client: httpx.Client, process: subprocess.Popen[bytes], started: float) -> None:
    """Ask for the heads until they come."""
    while time.perf_counter() - started < START_S:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}; see its log")
        try:
            if client.get("/v1/heads", params={"model": MODEL}).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.01)
    raise RuntimeError(f"no reply within {START_S} s; see its log")


def ask(client: httpx.Client, path: str, **params: object) -> httpx.Response:
    """A reply in Arrow."""
    return client.get(path, params={k: str(v) for k, v in params.items()}, headers=ARROW)


def to_table(reply: httpx.Response) -> pa.Table:
    """The rows of a reply in Arrow."""
    return pa.ipc.open_stream(reply.raise_for_status().content).read_all()


def time_pairs(
    ours: Callable[[], object],
    reference: Callable[[], object],
    repetitions: int,
    rest_s: float = 0.0,
) -> Row:
    """Median milliseconds of two calls in turns with rests, after a turn that warms up; ratio."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(repetitions + 1):
        for call, own in zip((ours, reference), times, strict=True):
            time.sleep(rest_s)
            started = time.perf_counter()
            call()
            if number:
                own.append(time.perf_counter() - started)
    low, high = (median(own) * 1e3 for own in times)
    return {"ms": round(low, 2), "reference_ms": round(high, 2), "ratio": round(low / high, 3)}


def measure_points(client: httpx.Client, uri: str, repetitions: int) -> Row:
    """Part a: a head's points beside the same rows from its files, listed."""
    with Atlas(uri) as atlas:
        map_id = find_map(atlas)
        points = listed(atlas.snapshot.files("points", layer=LAYER, head=HEAD))
        tokens = listed(atlas.snapshot.files("tokens"))
    query = POINTS.format(points=points, tokens=tokens, place="")
    return measure_head(client, map_id, query, repetitions)


def measure_head(client: httpx.Client, map_id: str, query: str, repetitions: int) -> Row:
    """A head's points over HTTP beside DuckDB's own reading, once the rows are seen to agree."""
    path = f"/v1/maps/{map_id}/points"

    def ours() -> pa.Table:
        wanted = {"columns": ",".join(COLUMNS), "max_points": N_POINTS, "limit": N_POINTS}
        return to_table(ask(client, path, **wanted))

    found = ours()
    with duckdb.connect() as bare:
        parameters = {"map_id": map_id, "rank": max(found["rank"].to_pylist())}

        def reference() -> pa.Table:
            return bare.execute(query, parameters).to_arrow_table()

        check_same(found, reference(), COLUMNS)
        return {"rows": len(found)} | time_pairs(ours, reference, repetitions)


def check_same(ours: pa.Table, reference: pa.Table, columns: list[str]) -> None:
    """Refuse to compare answers that differ, in whatever order their rows come."""
    first, second = (
        sorted(zip(*table.select(columns).to_pydict().values(), strict=True), key=repr)
        for table in (ours, reference)
    )
    if first != second:
        raise RuntimeError(f"{len(first)} rows by HTTP differ from {len(second)} by DuckDB")


def find_map(atlas: Atlas) -> str:
    """The map of the head that is measured."""
    query = "SELECT map_id FROM current_maps WHERE layer = ? AND head = ?"
    return str(atlas.ask(query, [LAYER, HEAD])["map_id"][0].as_py())


def listed(files: pa.Table) -> str:
    """Files as a list in SQL, and what `read_parquet` need not look for."""
    paths = ", ".join(quote(path) for path in files["path"].to_pylist())
    return f"[{paths}], hive_partitioning = false"


def measure_matrix(client: httpx.Client, repetitions: int) -> Row:
    """Part b: all heads of a method beside AttentionViz's JSON, in bytes and in time to decode."""
    path = f"/v1/models/{MODEL}/matrix"
    body = ask(client, path, method="pca", max_points=N_MATRIX).raise_for_status().content
    heads, places = decode_matrix(body)
    result: Row = {"bytes": len(body), "gzip_bytes": len(gzip.compress(body, 6))}
    for name, form in {"as_served": AS_SERVED, "one_method": ("pca_x", "pca_y")}.items():
        text = as_attentionviz(heads, places, form)
        packed = gzip.compress(text, 6)
        result[name] = {
            "bytes": len(text),
            "times_fewer": round(len(text) / len(body), 1),
            "gzip_times_fewer": round(len(packed) / result["gzip_bytes"], 1),
            "decode": time_pairs(
                partial(decode_matrix, body), partial(json.loads, text), repetitions
            ),
        }
    return result


Matrix = tuple[pa.Table, list[np.ndarray[Any, Any]]]


def decode_matrix(body: bytes) -> Matrix:
    """The heads of a matrix, and each one's points as float32, shape (n_points, dims)."""
    found = pa.ipc.open_stream(body).read_all()["heads"].combine_chunks().flatten()
    heads = pa.Table.from_struct_array(found)
    places = []
    for low, high, packed in zip(
        *(heads[name].to_pylist() for name in ("low", "high", "points")), strict=True
    ):
        first, last = np.array(low, np.float32), np.array(high, np.float32)
        whole = np.frombuffer(packed, "<u2").reshape(-1, len(low))
        places.append(first + whole * ((last - first) / np.float32(65535)))
    return heads, places


AS_SERVED = (
    *(f"{method}_{axis}" for method in ("tsne", "umap", "pca") for axis in "xy"),
    *(f"{method}_{axis}_3d" for method in ("tsne", "umap", "pca") for axis in "xyz"),
    "norm",
)
"""What AttentionViz gives of each point: `getMatrixData` of its server, 2023. Tokens come apart."""


def as_attentionviz(
    heads: pa.Table, places: list[np.ndarray[Any, Any]], form: Sequence[str]
) -> bytes:
    """The same points of the same heads in AttentionViz's JSON: an object a point.

    Args:
        heads: with columns layer and head.
        places: of each head, float32, shape (n_points, 2).
        form: names of a point's numbers, pca_x and pca_y among them. These two are our
            coordinates; all others are mixtures of them, so that digits and compression are real.
    """
    mix = np.random.default_rng(0).normal(size=(2, len(form)))
    mix[:, [form.index("pca_x"), form.index("pca_y")]] = np.eye(2)
    data = []
    for at, points in enumerate(places):
        place = {name: heads[name][at].as_py() for name in ("layer", "head")}
        numbers = np.round(points.astype(np.float64) @ mix, 5).tolist()
        data.append({**place, "tokens": [dict(zip(form, row, strict=True)) for row in numbers]})
    return json.dumps({"data": data}).encode()


def measure_many(uri: str, repetitions: int) -> Row:
    """Part c: a head among 100,048 files beside globs; and how soon a server answers from them."""
    starts = []
    for _ in range(3):
        with serve(uri) as (_, seconds):
            starts.append(round(seconds, 2))
    with serve(uri) as (client, _), Atlas(uri) as atlas:
        files = [len(atlas.snapshot.files(name)) for name in ("points", "tokens", "keys")]
        query = POINTS.format(
            points=quote(f"{uri}/points/model=*/*/*/*.parquet"),
            tokens=quote(f"{uri}/tokens/model=*/*.parquet"),
            place=f"AND model = '{MODEL}' AND layer = {LAYER} AND head = {HEAD}",
        )
        return {
            "start_s": starts,
            "files": dict(zip(("points", "tokens", "keys"), files, strict=True)),
            "points": measure_head(client, find_map(atlas), query, repetitions),
            "nearest_keys": measure_nearest(client, atlas, uri, repetitions),
        }


def measure_nearest(client: httpx.Client, atlas: Atlas, uri: str, repetitions: int) -> Row:
    """The ten best keys of a query: nothing of the head's files is kept, so it bounds nothing."""
    place = {"sequence_id": atlas.sequences(MODEL)["sequence_id"][0].as_py(), "position": 3}
    read = atlas.read_head(MODEL, LAYER, HEAD, [place["sequence_id"]])
    path = f"/v1/models/{MODEL}/layers/{LAYER}/heads/{HEAD}/nearest_keys"
    kv_head = atlas.find_head(MODEL, LAYER, HEAD)["kv_head"]
    query = NEAREST.format(keys=quote(f"{uri}/keys/model=*/*/*/*.parquet"), kv_head=kv_head)
    vector = {"vector": read.queries[place["position"]].tolist()}
    with duckdb.connect() as bare:

        def ours() -> pa.Table:
            return to_table(ask(client, path, **place))

        def reference() -> pa.Table:
            return bare.execute(query, vector).to_arrow_table()

        check_same(ours(), reference(), ["sequence_id", "position"])
        return time_pairs(ours, reference, repetitions)


def measure_sql(client: httpx.Client, uri: str, repetitions: int) -> Row:
    """Part e: statements through a worker beside a bare connection with the same files."""
    with duckdb.connect() as bare, Atlas(uri) as atlas:
        bare.execute(f"SET threads = {ServeSettings(uri).worker_threads}")
        for name in ("points", "tokens", "queries"):
            bare.execute(listed_view(name, atlas.snapshot.files(name)["path"].to_pylist()))
        return {
            name: measure_statement(client, bare, statement, repetitions)
            for name, statement in STATEMENTS.items()
        }


def measure_statement(
    client: httpx.Client, bare: duckdb.DuckDBPyConnection, statement: str, repetitions: int
) -> Row:
    """One statement, both ways, once they are seen to give as many rows."""

    def ours() -> pa.Table:
        body = {"sql": statement, "format": "arrow"}
        return to_table(client.post("/v1/sql", json=body, headers=ARROW))

    def reference() -> pa.Table:
        return bare.execute(statement).to_arrow_table()

    found, expected = ours(), reference()
    if len(found) != len(expected):
        raise RuntimeError(f"{len(found)} rows by HTTP, {len(expected)} by DuckDB: {statement}")
    return {"rows": len(found)} | time_pairs(ours, reference, repetitions)


def list_figures(result: Row) -> Iterator[tuple[str, float, str, float]]:
    """Name, figure, relation and bound of everything that issue 4 sets a bound for."""
    if "a" in result:
        yield "a. points of a head ÷ DuckDB", result["a"]["ratio"], "≤", 1.5
    if "b" in result:
        served = result["b"]["as_served"]
        yield "b. AttentionViz's bytes ÷ matrix", served["times_fewer"], "≥", 20
        yield "b. AttentionViz's decoding ÷ matrix", 1 / served["decode"]["ratio"], "≥", 5
    if "c" in result:
        yield "c. glob ÷ points of a head", 1 / result["c"]["points"]["ratio"], "≥", 10
        yield "c. start to first reply, s", median(result["c"]["start_s"]), "≤", 3
    if "d" in result:
        yield "d. failed requests", sum(result["d"]["errors"].values()), "≤", 0
        yield "d. worst p99 ÷ p50 of an endpoint", result["d"]["worst_p99_over_p50"], "≤", 5
    if "e" in result:
        slow = [row for row in result["e"].values() if row["reference_ms"] >= 20]
        yield "e. SQL ÷ DuckDB, worst of ≥ 20 ms", max(row["ratio"] for row in slow), "≤", 1.5
    if "f" in result:
        yield "f. p99 beside hostile loads ÷ calm", result["f"]["p99_ratio"], "≤", 2
        yield "f. latest end beyond its deadline, s", result["f"]["beyond_deadline_s"], "≤", 1


def print_figures(result: Row) -> None:
    """What was asked for, and the endpoints under load."""
    table = Table("figure", "measured", "wanted", "")
    for name, value, relation, bound in list_figures(result):
        held = value <= bound if relation == "≤" else value >= bound
        table.add_row(name, f"{value:.2f}", f"{relation} {bound:g}", "✓" if held else "✗")
    console = Console()
    console.print(table)
    if "d" in result:
        load = Table("endpoint", *next(iter(result["d"]["endpoints"].values())))
        for name, row in result["d"]["endpoints"].items():
            load.add_row(name, *map(str, row.values()))
        console.print(load)


if __name__ == "__main__":
    typer.run(measure)
