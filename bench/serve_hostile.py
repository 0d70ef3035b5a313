"""An honest client while another sends loads that must be killed: its waits, and their ends.

Apart from `serve_load`, where all clients are honest.
"""

import asyncio
import time
from typing import Any

import httpx
import numpy as np

from tests.api.hostile import LOADS

TIMEOUT_S = 2.0
CALM_S = 10.0
QUERY = "SELECT layer, count(*) AS n, avg(entropy) FROM head_measures GROUP BY layer"

Row = dict[str, Any]


def measure_hostile(url: httpx.URL) -> Row:
    """An honest client's p99 calm and beside every load, and how late the latest load ended."""
    return asyncio.run(_measure(url))


async def _measure(url: httpx.URL) -> Row:
    calm = await _ask_until(url, asyncio.create_task(asyncio.sleep(CALM_S)))
    loads = asyncio.create_task(_send_loads(url))
    beside = await _ask_until(url, loads)
    ends = loads.result()
    calm_p50, calm_p99 = np.percentile(calm, (50, 99)) * 1e3
    p50, p99 = np.percentile(beside, (50, 99)) * 1e3
    latest = max(ends, key=lambda name: ends[name])
    return {
        "loads": len(ends),
        "latest": latest,
        "beyond_deadline_s": round(ends[latest] - TIMEOUT_S, 2),
        "calm_ms": [round(calm_p50, 1), round(calm_p99, 1)],
        "beside_ms": [round(p50, 1), round(p99, 1)],
        "p99_ratio": round(p99 / calm_p99, 2),
    }


def _open(url: httpx.URL, address: str) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(local_address=address)
    return httpx.AsyncClient(base_url=url, transport=transport, timeout=60)


async def _ask_until(url: httpx.URL, end: "asyncio.Task[Any]") -> list[float]:
    """Seconds of each of the honest client's queries, 20 ms apart."""
    times = []
    async with _open(url, "127.0.0.2") as client:
        while not end.done():
            started = time.perf_counter()
            reply = await client.post("/v1/sql", json={"sql": QUERY})
            reply.raise_for_status()
            times.append(time.perf_counter() - started)
            await asyncio.sleep(0.02)
    return times


async def _send_loads(url: httpx.URL) -> dict[str, float]:
    """Seconds until each load had ended, whatever became of it."""
    ends = {}
    async with _open(url, "127.0.0.3") as client:
        for name, sql in LOADS.items():
            started = time.perf_counter()
            await client.post("/v1/sql", json={"sql": sql, "timeout_s": TIMEOUT_S})
            ends[name] = time.perf_counter() - started
    return ends
