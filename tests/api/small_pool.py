"""A pool over a small atlas, and jobs for it."""

import hashlib
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from api.jobs import SqlJob
from api.pool import Pool
from api.settings import ServeSettings
from store.snapshot import Snapshot
from tests.store.lake_fixture import add_map_row, add_points, build_atlas

_NUMBERS = itertools.count()


def make_atlas(root: Path) -> Path:
    """Two shards and a map."""
    build_atlas(root)
    add_points(root, "a", 0)
    add_map_row(root, "a", 0, "ok", 1)
    return root


@asynccontextmanager
async def running_pool(atlas: Path, **settings: Any) -> AsyncIterator[Pool]:
    """A pool of two workers and a spare, unless told otherwise; ended at the end."""
    chosen = {"workers": 2, "worker_threads": 1, "worker_memory_bytes": 400_000_000, **settings}
    pool = Pool(ServeSettings(str(atlas), **chosen))
    try:
        await pool.start(Snapshot.load(str(atlas)))
        yield pool
    finally:
        await pool.stop()


def make_job(sql: str, **changed: Any) -> SqlJob:
    """A job with an id of its own."""
    usual = {
        "parameters": None,
        "format": "json",
        "max_rows": 1_000,
        "max_bytes": 1_000_000,
        "timeout_s": 60.0,
        "id": f"job{next(_NUMBERS)}",
    }
    return SqlJob(sql, **{**usual, **changed})


def hash_files(root: Path) -> dict[str, str]:
    """A digest of every file below a folder."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
