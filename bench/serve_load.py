"""Thirty-two clients at once over mixed endpoints, beside each endpoint alone.

Apart from `serve`, which compares one client with what needs no server. Every client asks every
endpoint once a round, in an order and of heads of its own, and waits for each reply. Clients have
addresses of their own (127.0.0.2 and up), as a share of the SQL workers goes by address.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

import httpx
import numpy as np

from bench.serve_atlases import MODEL
from store.atlas import Atlas

N_CLIENTS = 32
N_ALONE = 40

ARROW = {"accept": "application/vnd.apache.arrow.stream"}

_HEAD = f"/v1/models/{MODEL}/layers/{{layer}}/heads/{{head}}"
ENDPOINTS: dict[str, tuple[str, dict[str, object]]] = {
    "models": ("/v1/models", {}),
    "heads": ("/v1/heads", {"model": MODEL, "sort": "-entropy"}),
    "maps": ("/v1/maps", {"model": MODEL, "filter": "layer:=:{layer}"}),
    "points": ("/v1/maps/{map_id}/points", {"max_points": 10_000}),
    "points in a box": ("/v1/maps/{map_id}/points", {"box": "-1,1,-1,1", "limit": 1000}),
    "matrix": (f"/v1/models/{MODEL}/matrix", {"method": "pca", "max_points": 2000}),
    "sequences": (f"/v1/models/{MODEL}/sequences", {"limit": 100}),
    "sequence": (f"/v1/models/{MODEL}/sequences/{{sequence_id}}", {}),
    "attention": (f"{_HEAD}/attention", {"sequence_id": "{sequence_id}"}),
    "nearest keys": (f"{_HEAD}/nearest_keys", {"sequence_id": "{sequence_id}", "position": 1}),
    "search": (f"/v1/models/{MODEL}/tokens/search", {"text": "the", "match": "substring"}),
    "count": (f"/v1/models/{MODEL}/tokens/count", {"text": "a", "match": "prefix"}),
    "sql": ("/v1/sql", {"sql": "SELECT * FROM head_measures WHERE layer = {layer}"}),
}
"""Path and query; points and the matrix come in Arrow, all else in JSON."""

IN_ARROW = ("points", "matrix")

Row = dict[str, Any]
Times = dict[str, list[float]]


def measure_load(client: httpx.Client, uri: str, rounds: int) -> Row:
    """Milliseconds of each endpoint, alone and among 32 clients, and what failed.

    Args:
        client: of the server.
        uri: of the atlas that it serves.
        rounds: of each client, over all endpoints.
    """
    places = list_places(uri)
    asyncio.run(run_clients(client.base_url, places, 1, 1))  # fills caches
    alone = asyncio.run(run_clients(client.base_url, places, 1, N_ALONE))
    loaded = asyncio.run(run_clients(client.base_url, places, N_CLIENTS, rounds))
    rows = {name: describe(alone[0][name], loaded[0][name]) for name in ENDPOINTS}
    return {
        "clients": N_CLIENTS,
        "requests": sum(map(len, loaded[0].values())),
        "per_s": round(sum(map(len, loaded[0].values())) / loaded[2], 1),
        "errors": alone[1] | loaded[1],
        "worst_p99_over_p50": max(row["p99_over_p50"] for row in rows.values()),
        "endpoints": rows,
    }


def list_places(uri: str) -> list[dict[str, object]]:
    """Heads with their maps and a sequence each, to fill the paths with."""
    heads = "SELECT layer, head, map_id FROM current_maps ORDER BY layer, head"
    with Atlas(uri) as atlas:
        sequences = atlas.sequences(MODEL)["sequence_id"].to_pylist()
        found = atlas.ask(heads).to_pylist()
    return [{**row, "sequence_id": sequences[at]} for at, row in enumerate(found)]


async def run_clients(
    url: httpx.URL, places: list[dict[str, object]], n_clients: int, rounds: int
) -> tuple[Times, dict[str, int], float]:
    """Seconds of each request by endpoint, failures by what went wrong, and seconds in all."""
    times: Times = {name: [] for name in ENDPOINTS}
    errors: dict[str, int] = defaultdict(int)

    async def run_client(number: int) -> None:
        transport = httpx.AsyncHTTPTransport(local_address=f"127.0.0.{number + 2}")
        async with httpx.AsyncClient(base_url=url, transport=transport, timeout=120) as client:
            for name, request in make_requests(client, Random(number), places, rounds):
                started = time.perf_counter()
                try:
                    reply = await client.send(request)
                    if reply.is_error:
                        errors[f"{name}: {reply.status_code} {reply.text[:120]}"] += 1
                except httpx.HTTPError as error:
                    errors[f"{name}: {error!r}"] += 1
                times[name].append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*map(run_client, range(n_clients)))
    return times, errors, time.perf_counter() - started


def make_requests(
    client: httpx.AsyncClient, random: Random, places: list[dict[str, object]], rounds: int
) -> Iterator[tuple[str, httpx.Request]]:
    """Every endpoint once a round, in random order, each of a random head."""
    for _ in range(rounds):
        for name in random.sample(list(ENDPOINTS), len(ENDPOINTS)):
            path, query = ENDPOINTS[name]
            place = random.choice(places)
            params = {key: str(value).format(**place) for key, value in query.items()}
            headers = ARROW if name in IN_ARROW else {}
            yield (
                name,
                client.build_request("GET", path.format(**place), params=params, headers=headers),
            )


def describe(alone: Sequence[float], loaded: Sequence[float]) -> Row:
    """Quantiles of an endpoint in milliseconds."""
    alone_p50, alone_p99 = np.percentile(alone, (50, 99)) * 1e3
    p50, p99 = np.percentile(loaded, (50, 99)) * 1e3
    return {
        "alone_p50_ms": round(alone_p50, 1),
        "alone_p99_ms": round(alone_p99, 1),
        "p50_ms": round(p50, 1),
        "p99_ms": round(p99, 1),
        "p99_over_p50": round(p99 / p50, 2),
    }
