"""A viewer's session over HTTP of a real server: many statements at once, ends and hang-ups."""

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx2
import psutil
import pytest

from tests.api.fake_viewer import install_fake
from tests.api.own_server import RunningServer, running_server
from tests.api.small_app import build_mapped_atlas

MOST_REQUESTS = 2
N_STATEMENTS = 20
SLOW = "SELECT count(*) AS n FROM range(300_000_000) t(i) WHERE i % 7 = 3"
LONG = "SELECT count(*) AS n FROM range(1_000_000_000_000) t(i) WHERE i % 7 = 3"
ONE = "SELECT 1 AS n"
PATIENCE_S = 30
"""Shorter than the deadline of a statement."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("viewer")
    install_fake(folder / "cache")
    atlas = build_mapped_atlas(folder / "atlas")
    chosen: dict[str, Any] = {
        "workers": 2,
        "worker_threads": 1,
        "viewer_memory_bytes": 400_000_000,
        "max_requests_per_client": MOST_REQUESTS,
        "timeout_s": 200.0,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        with running_server(atlas, folder, **chosen) as running:
            yield running


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.urls[0], timeout=PATIENCE_S) as made:
        yield made


@pytest.fixture
def session(client: httpx2.Client) -> Iterator[str]:
    reply = client.post("atlas/sessions", data={"map_id": "m0"})
    assert reply.status_code == 303, reply.text
    address = f"atlas/{reply.headers['location']}"
    yield address
    client.post(f"{address}end")


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(N_STATEMENTS + 1) as made:
        yield made


def ask(client: httpx2.Client, session: str, sql: str) -> httpx2.Response:
    return client.post(f"{session}data/query", content=json.dumps({"type": "json", "sql": sql}))


def ask_many(
    threads: ThreadPoolExecutor, client: httpx2.Client, session: str, first: str
) -> "list[Future[httpx2.Response]]":
    """Send a statement that takes its time, and more while it runs."""
    worker = find_worker()
    before = worker.cpu_times().user
    asked = [threads.submit(ask, client, session, first)]
    wait_until_busy(worker, before)
    return asked + [threads.submit(ask, client, session, ONE) for _ in range(N_STATEMENTS)]


def find_worker() -> psutil.Process:
    """The process of the one session that is open."""
    (found,) = (
        child
        for child in psutil.Process(os.getpid()).children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and "api.session_worker" in child.cmdline()
    )
    return found


def wait_until_busy(worker: psutil.Process, before: float) -> None:
    """Wait until a process has computed for a while."""
    deadline = time.monotonic() + PATIENCE_S
    while worker.cpu_times().user < before + 0.1:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_statements_of_a_session_wait_for_each_other_and_none_is_refused(
    client: httpx2.Client, session: str, threads: ThreadPoolExecutor
) -> None:
    asked = ask_many(threads, client, session, SLOW)
    assert [one.result().status_code for one in asked] == [200] * len(asked)


def test_a_session_can_be_ended_while_its_statements_run_and_wait(
    client: httpx2.Client, session: str, threads: ThreadPoolExecutor
) -> None:
    asked = ask_many(threads, client, session, LONG)
    assert client.post(f"{session}end").status_code == 303
    replies = [one.result() for one in asked]
    assert {reply.json()["error"]["kind"] for reply in replies} <= {"session_ended"}
    assert replies[0].status_code == 410


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("data/query", {"type": "arrow", "sql": LONG}),
        ("data/selection", {"predicate": f"id < ({LONG})", "format": "csv"}),
    ],
)
def test_a_client_that_hangs_up_ends_its_statement_and_not_the_session(
    server: RunningServer, client: httpx2.Client, session: str, path: str, body: dict[str, str]
) -> None:
    worker = find_worker()
    before = worker.cpu_times().user
    with pytest.raises(httpx2.ReadTimeout):
        client.post(f"{session}{path}", json=body, timeout=1.0)
    wait_until_busy(worker, before)
    reply = ask(client, session, ONE)
    assert (reply.status_code, reply.json()) == (200, [{"n": 1}])
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
