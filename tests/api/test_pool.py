"""The pool: what workers see, who gets one, and what happens when one dies."""

import asyncio
import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest

from api.pool import Pool
from api.sandbox import LAYERS
from store import views
from store.errors import BusyError, QueryError, QueryKilledError
from store.snapshot import Snapshot
from store.views import FILE_TABLES, ROW_TABLES
from tests.api.small_pool import make_atlas, make_job, running_pool
from tests.store.lake_fixture import add_shard

LANDLOCK = ctypes.CDLL(None).syscall(444, None, 0, 1) > 0
LONG = "SELECT count(*) FROM range(1_000_000_000_000) t(i) WHERE i % 7 = 3"
Scene = Callable[[Pool], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_atlas(tmp_path_factory.mktemp("at las ü"))


def play(atlas: Path, scene: Scene, **settings: Any) -> None:
    """Run a scene with a pool."""

    async def run() -> None:
        async with running_pool(atlas, **settings) as pool:
            await scene(pool)

    asyncio.run(run())


async def ask(pool: Pool, sql: str, client: str = "me", **changed: Any) -> list[dict[str, Any]]:
    """The rows of a query."""
    reply = await pool.run(make_job(sql, **changed), client)
    rows: list[dict[str, Any]] = json.loads(reply.body)
    assert reply.n_rows == len(rows)
    return rows


async def wait_until(happened: Callable[[], bool], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not happened():
            await asyncio.sleep(0.01)


async def check_views(pool: Pool) -> None:
    for name in (*FILE_TABLES, *ROW_TABLES, "vectors", "current_maps", "head_measures"):
        await ask(pool, f"SELECT * FROM {name}")
    (counted,) = await ask(pool, "SELECT count(*) AS n, max(layer) AS layer FROM queries")
    assert counted == {"n": 2 * 15 * 8, "layer": 1}
    joined = "SELECT token FROM queries JOIN tokens USING (model, sequence_id, position)"
    rows = await ask(pool, f"{joined} WHERE layer = 1 AND head = 3 ORDER BY ALL LIMIT 1")
    assert rows == [{"token": "t0"}]
    pruned = await ask(pool, "SELECT max(layer) AS n FROM keys WHERE layer = 1 AND kv_head = 0")
    assert pruned == [{"n": 1}]


def test_a_worker_sees_every_view(atlas: Path) -> None:
    play(atlas, check_views)


def test_a_worker_sees_every_view_through_datasets(
    atlas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "MAX_LISTED_FILES", 0)
    play(atlas, check_views)


def test_parameters_are_bound_by_place_and_by_name(atlas: Path) -> None:
    async def scene(pool: Pool) -> None:
        assert await ask(pool, "SELECT ? AS a, ? AS b", parameters=[1, "x"]) == [{"a": 1, "b": "x"}]
        named = await ask(pool, "SELECT $a AS a", parameters={"a": "'; DROP"})
        assert named == [{"a": "'; DROP"}]
        with pytest.raises(QueryError, match="arameter"):
            await ask(pool, "SELECT $a AS a", parameters=[])

    play(atlas, scene)


def test_a_failing_query_leaves_its_worker_in_use(atlas: Path) -> None:
    async def scene(pool: Pool) -> None:
        await wait_until(lambda: pool.describe()["idle"] == 3)
        before = find_workers()
        for sql in ("SELECT nothing FROM tokens", "SELEC", "SELECT 'a'::INTEGER"):
            with pytest.raises(QueryError):
                await ask(pool, sql)
        assert find_workers() == before

    play(atlas, scene)


def test_a_deadline_ends_a_query_and_nothing_else(atlas: Path) -> None:
    async def scene(pool: Pool) -> None:
        late = asyncio.create_task(ask(pool, LONG, timeout_s=1))
        assert await ask(pool, "SELECT 1 AS a", client="other") == [{"a": 1}]
        with pytest.raises(QueryKilledError, match="deadline"):
            await late

    play(atlas, scene)


def test_a_killed_worker_is_replaced_and_others_do_not_notice(atlas: Path) -> None:
    async def scene(pool: Pool) -> None:
        await wait_until(lambda: pool.describe()["idle"] == 3)
        victim = asyncio.create_task(ask(pool, LONG))
        await wait_until(lambda: pool.describe()["running"] == 1)
        other = asyncio.create_task(ask(pool, "SELECT sum(i) AS s FROM range(5000000) t(i)", "b"))
        (running,) = [job.worker for job in pool._running.values() if job.client == "me"]
        os.kill(running.process.pid, signal.SIGKILL)
        with pytest.raises(QueryKilledError, match="ended its worker"):
            await victim
        assert await ask(pool, "SELECT 1 AS a") == [{"a": 1}]
        assert len(await other) == 1
        await wait_until(lambda: pool.describe()["idle"] == 3)

    play(atlas, scene)


def test_a_client_holds_all_workers_but_one(atlas: Path) -> None:
    async def scene(pool: Pool) -> None:
        greedy = [asyncio.create_task(ask(pool, LONG)) for _ in range(5)]
        await wait_until(lambda: pool.describe()["running"] == 2)
        assert await ask(pool, "SELECT 1 AS a", client="other") == [{"a": 1}]
        assert pool.describe()["waiting"] == 3
        await cancel_all(greedy)
        await wait_until(lambda: pool.describe()["running"] == 0)

    play(atlas, scene, workers=3)


def test_a_full_queue_refuses_and_says_when_to_come_again(atlas: Path) -> None:
    async def scene(pool: Pool) -> None:
        tasks = [asyncio.create_task(ask(pool, LONG)) for _ in range(3)]
        await wait_until(lambda: pool.describe()["waiting"] == 2)
        with pytest.raises(BusyError, match="2 of them yours") as refused:
            await ask(pool, "SELECT 1")
        assert refused.value.retry_after_s >= 1
        assert await ask(pool, "SELECT 1 AS a", client="other") == [{"a": 1}]
        await cancel_all(tasks)

    play(atlas, scene, max_waiting_per_client=2)


def test_queries_are_cancelled_by_id_while_they_run_and_while_they_wait(atlas: Path) -> None:
    async def scene(pool: Pool) -> None:
        runs = asyncio.create_task(ask(pool, LONG, id="runs"))
        await wait_until(lambda: pool.describe()["running"] == 1)
        waits = asyncio.create_task(ask(pool, LONG, id="waits"))
        await wait_until(lambda: pool.describe()["waiting"] == 1)
        assert not await pool.cancel("runs", "other")
        for name, task in (("waits", waits), ("runs", runs)):
            assert await pool.cancel(name, "me")
            with pytest.raises(QueryKilledError, match="cancelled"):
                await task
        assert not await pool.cancel("runs", "me")

    play(atlas, scene)


def test_an_id_that_is_taken_is_refused(atlas: Path) -> None:
    async def scene(pool: Pool) -> None:
        task = asyncio.create_task(ask(pool, LONG, id="taken"))
        await wait_until(lambda: pool.describe()["running"] == 1)
        with pytest.raises(QueryError, match="choose another"):
            await ask(pool, "SELECT 1", id="taken")
        await cancel_all([task])

    play(atlas, scene)


def test_a_client_that_goes_away_frees_its_worker(atlas: Path) -> None:
    async def scene(pool: Pool) -> None:
        task = asyncio.create_task(ask(pool, LONG))
        await wait_until(lambda: pool.describe()["running"] == 1)
        await cancel_all([task])
        assert pool.describe()["running"] == 0
        assert await ask(pool, "SELECT 1 AS a") == [{"a": 1}]

    play(atlas, scene)


def test_workers_go_over_to_a_newer_snapshot(tmp_path: Path) -> None:
    root = make_atlas(tmp_path)

    async def scene(pool: Pool) -> None:
        count = "SELECT count(*) AS n FROM tokens"
        first = await pool.run(make_job(count), "me")
        add_shard(root, 2)
        newer = Snapshot.load(str(root))
        await pool.replace(newer)
        await wait_until(lambda: {worker.version for worker in pool._idle} == {newer.version})
        second = await pool.run(make_job(count), "me")
        assert first.version != second.version == newer.version
        assert [json.loads(reply.body)[0]["n"] for reply in (first, second)] == [30, 45]

    play(root, scene)


def test_a_system_that_is_not_linux_answers_and_says_what_lacks(
    atlas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, module in [("COMMAND", "api.worker"), ("PROBE", "api.sandbox")]:
        elsewhere = (
            f"from api import sandbox; sandbox.LINUX = False; import {module}; {module}.main()"
        )
        monkeypatch.setattr(f"api.worker_process.{name}", (sys.executable, "-I", "-c", elsewhere))

    async def scene(pool: Pool) -> None:
        reply = await pool.run(make_job("SELECT count(*) AS n FROM tokens"), "me")
        assert json.loads(reply.body)[0]["n"] == 30
        with pytest.raises(QueryError):
            await pool.run(make_job("COPY (SELECT 1) TO 'x.csv'"), "me")
        layers = {"landlock": False, "network_namespace": False, "limits": True}
        assert pool.describe()["layers"] == layers

    play(atlas, scene)


@pytest.mark.skipif(not LANDLOCK, reason="this kernel has no Landlock")
def test_every_layer_holds_in_every_worker(atlas: Path) -> None:
    async def scene(pool: Pool) -> None:
        await wait_until(lambda: pool.describe()["idle"] == 3)
        for worker in pool._idle:
            assert worker.layers == dict.fromkeys(LAYERS, True)
            for thread in Path(f"/proc/{worker.process.pid}/task").iterdir():
                assert "NoNewPrivs:\t1" in (thread / "status").read_text()

    play(atlas, scene)


def test_workers_that_die_idle_are_replaced_before_anyone_asks(atlas: Path) -> None:
    async def scene(pool: Pool) -> None:
        await wait_until(lambda: pool.describe()["idle"] == 3)
        for worker in pool._idle:
            worker.process.kill()
            worker.process.wait()
        assert pool.describe()["idle"] == 0
        assert await ask(pool, "SELECT 1 AS a") == [{"a": 1}]
        await wait_until(lambda: pool.describe()["idle"] == 3)

    play(atlas, scene)


def test_clients_that_go_while_they_wait_harm_nobody(atlas: Path) -> None:
    async def scene(pool: Pool) -> None:
        await wait_until(lambda: pool.describe()["idle"] == 3)
        first = asyncio.create_task(ask(pool, LONG))
        await wait_until(lambda: pool.describe()["running"] == 1)
        gone = [asyncio.create_task(ask(pool, LONG)) for _ in range(3)]
        await wait_until(lambda: pool.describe()["waiting"] == 3)
        for task in gone:
            task.cancel()
        pool._dispatch()  # before those tasks have run: their turns are cancelled, not removed
        await cancel_all([first, *gone])
        assert await ask(pool, "SELECT 1 AS a") == [{"a": 1}]
        assert pool._tending is not None
        assert not pool._tending.done()
        await wait_until(lambda: pool.describe()["idle"] == 3)

    play(atlas, scene)


def test_an_error_in_a_later_batch_leaves_its_worker_in_use(atlas: Path) -> None:
    async def scene(pool: Pool) -> None:
        await wait_until(lambda: pool.describe()["idle"] == 3)
        before = find_workers()
        late = (
            "SELECT (CASE WHEN i = 900000 THEN 'x' ELSE '1' END)::INT AS a FROM range(1000000) t(i)"
        )
        with pytest.raises(QueryError, match="Could not convert"):
            await ask(pool, late, max_rows=10**7, max_bytes=10**8)
        assert find_workers() == before

    play(atlas, scene)


def test_workers_end_with_their_pool(atlas: Path) -> None:
    async def scene(pool: Pool) -> None:
        await wait_until(lambda: pool.describe()["idle"] == 3)
        assert len(find_workers()) == 3

    play(atlas, scene)
    assert not find_workers()


def find_workers() -> set[int]:
    """Ids of worker processes that this process started and that live."""
    return {
        child.pid
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and "api.worker" in " ".join(child.cmdline())
    }


async def cancel_all(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
