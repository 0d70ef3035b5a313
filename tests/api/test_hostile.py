"""Strangers against real workers: hostile statements, hostile loads and mutated ones."""

import asyncio
import sys
from pathlib import Path

import psutil
import pytest

from api import worker_process
from api.pool import Pool
from store.errors import QueryError, QueryKilledError
from tests.api.hostile import HOSTILE, LOADS
from tests.api.small_pool import hash_files, make_atlas, make_job, running_pool
from tests.api.worker_fuzz import fuzz_pool

CAP = 400_000_000
"""Bytes that a query may take, as `running_pool` sets it."""

WITHOUT_GATE = """
import api.sealed_database
api.sealed_database.check_query = lambda *_: None
from api.worker import main
main()
"""


@pytest.fixture
def atlas(tmp_path: Path) -> Path:
    (tmp_path / "secret.csv").write_text("canary")
    return make_atlas(tmp_path / "atlas")


def find_workers() -> dict[int, psutil.Process]:
    found = psutil.Process().children()
    return {child.pid: child for child in found if child.status() != psutil.STATUS_ZOMBIE}


def test_no_hostile_statement_runs(atlas: Path) -> None:
    before = hash_files(atlas.parent)

    async def scene() -> None:
        async with running_pool(atlas) as pool:
            await wait_until_full(pool)
            workers = set(find_workers())
            for name, text in HOSTILE.items():
                with pytest.raises(QueryError):
                    await pool.run(make_job(text, timeout_s=20.0), name)
            assert set(find_workers()) == workers

    asyncio.run(scene())
    assert hash_files(atlas.parent) == before


def test_the_walls_behind_the_gate_keep_files_too(
    atlas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the gate statements may run, but they read, write and reach nothing."""
    monkeypatch.setattr(worker_process, "COMMAND", (sys.executable, "-I", "-c", WITHOUT_GATE))
    secret = atlas.parent / "secret.csv"
    before = hash_files(atlas.parent)
    reads = [f"SELECT * FROM {call}('{secret}')" for call in ("read_csv", "read_text", "glob")]
    writes = [f"COPY (SELECT 1) TO '{path}'" for path in (secret, f"{secret}.new", "broker://x")]
    attaches = [f"ATTACH '{secret}.db'", f"ATTACH '{secret}'", "INSTALL httpfs", "LOAD httpfs"]

    async def scene() -> None:
        async with running_pool(atlas) as pool:
            for text in reads + writes + attaches:
                with pytest.raises((QueryError, QueryKilledError)):
                    await pool.run(make_job(text, timeout_s=20.0), "me")
            for text in HOSTILE.values():
                try:
                    reply = await pool.run(make_job(text, timeout_s=1.0), "me")
                except (QueryError, QueryKilledError):
                    continue
                assert b"canary" not in reply.body
                assert b"root:" not in reply.body

    asyncio.run(scene())
    assert hash_files(atlas.parent) == before


def test_hostile_loads_end_and_others_are_served(atlas: Path) -> None:
    async def scene() -> None:
        async with running_pool(atlas) as pool:
            await wait_until_full(pool)
            at_rest = max(worker.memory_info().rss for worker in find_workers().values())
            stop = asyncio.Event()
            honest = asyncio.create_task(ask_until(pool, stop))
            watch = asyncio.create_task(watch_memory(stop))
            for text in LOADS.values():
                try:
                    await pool.run(make_job(text, timeout_s=1.0, max_bytes=10**6), "hostile")
                except (QueryError, QueryKilledError):
                    continue
            stop.set()
            assert await honest >= len(LOADS)
            assert await watch < at_rest + CAP
            await wait_until_full(pool)

    asyncio.run(scene())


async def ask_until(pool: Pool, stop: asyncio.Event) -> int:
    """Ask as an honest client does; gives how often it was answered."""
    answered = 0
    while not stop.is_set():
        reply = await pool.run(make_job("SELECT count(*) FROM tokens"), "honest")
        answered += reply.n_rows
        await asyncio.sleep(0.01)
    return answered


async def watch_memory(stop: asyncio.Event) -> int:
    """The most memory in bytes that a worker held."""
    most = 0
    while not stop.is_set():
        for worker in find_workers().values():
            try:
                most = max(most, worker.memory_info().rss)
            except psutil.NoSuchProcess:
                continue
        await asyncio.sleep(0.02)
    return most


def test_mutated_statements_change_nothing(atlas: Path) -> None:
    before = hash_files(atlas.parent)

    async def scene() -> None:
        async with running_pool(atlas) as pool:
            counts = await fuzz_pool(pool, range(5_000))
            assert counts["refused"] > 1_000
            assert counts["answered"] > 100
            assert sum(counts.values()) == 5_000
            assert len((await pool.run(make_job("SELECT 1"), "me")).body) > 0

    asyncio.run(scene())
    assert hash_files(atlas.parent) == before


async def wait_until_full(pool: Pool) -> None:
    async with asyncio.timeout(60):
        while pool.describe()["idle"] < 3:
            await asyncio.sleep(0.02)
