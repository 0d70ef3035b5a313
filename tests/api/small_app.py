"""The app over a small atlas, without workers for SQL, asked in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from httpx2 import Response
from starlette.testclient import TestClient

from api.app import make_app
from api.settings import ServeSettings
from store.snapshot import Snapshot
from tests.store.lake_fixture import add_file, add_map_row, build_atlas, positions

TOKEN = "a-token-of-20-letters"
POINTS = 30
"""Of each map: 15 queries and 15 keys."""


class NoWorkers:
    """A pool that runs nothing and remembers the versions that it was told of."""

    layers: dict[str, bool] = {}  # noqa: RUF012
    idle = 2

    def __init__(self, settings: ServeSettings) -> None:
        self.versions: list[str] = []

    async def start(self, snapshot: Snapshot) -> None:
        self.versions.append(snapshot.version)

    async def replace(self, snapshot: Snapshot) -> None:
        self.versions.append(snapshot.version)

    async def stop(self) -> None:
        pass

    def describe(self) -> dict[str, Any]:
        counts = {"workers": 2, "idle": self.idle, "running": 0, "waiting": 0}
        return {**counts, "layers": dict(self.layers)}


@contextmanager
def running_app(atlas: Path, **settings: Any) -> Iterator[TestClient]:
    """A client of the app while it lives."""
    with patch("api.app.Pool", NoWorkers):
        app = make_app(ServeSettings(str(atlas), **settings))
        with TestClient(app, base_url="http://localhost:8765") as client:
            yield client


def build_mapped_atlas(root: Path) -> Path:
    """An atlas of one model with a 2-D map of every head of layer 0."""
    build_atlas(root)
    for head in range(4):
        add_map(root, head)
    return root


def add_map(root: Path, head: int) -> None:
    """Commit the map `m<head>` with points of every query and key of the first shard."""
    at = positions(0)
    n = len(at["position"])
    order = np.random.default_rng(head).permutation(2 * n).tolist()
    columns = {
        "sequence_id": [*at["sequence_id"]] * 2,
        "position": [*at["position"]] * 2,
        "map_id": [f"m{head}"] * 2 * n,
        "part": [0] * 2 * n,
        "kind": ["query"] * n + ["key"] * n,
        "x": [float(rank) for rank in order],
        "y": [-0.5 * rank for rank in order],
        "rank": order,
    }
    by_rank = {name: [values[i] for i in np.argsort(order)] for name, values in columns.items()}
    where = {"model": "tiny", "layer": 0, "head": head}
    add_file(root, "points", f"m-m{head}-0-q.parquet", by_rank, where)
    facts = {"layer": 0, "head": head, "method": "pca", "n_queries": n, "n_keys": n}
    add_map_row(root, f"m{head}", 0, "ok", 1, score_spearman=-0.5, **facts)


def get_rows(client: TestClient, url: str) -> list[dict[str, Any]]:
    """The rows of one page."""
    reply = client.get(url)
    assert reply.status_code == 200, reply.text
    rows: list[dict[str, Any]] = reply.json()["rows"]
    return rows


def error_of(reply: Response) -> tuple[int, str, str]:
    """Status, kind and message of a reply that tells of a problem."""
    said = reply.json()["error"]
    return reply.status_code, said["kind"], said["message"]
