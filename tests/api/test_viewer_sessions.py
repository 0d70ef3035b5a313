"""Sessions of a viewer against strangers, and their life: limits, idleness, faults and ends."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from starlette.testclient import TestClient

from api import viewer_sessions
from api.settings import ServeSettings
from api.viewer_sessions import MAX_WAITING, ViewerSession, ViewerSessions
from store.atlas import Atlas
from store.errors import BusyError, QueryError, SessionEndedError
from tests.api.fake_viewer import PAGE
from tests.api.hostile import HOSTILE
from tests.api.small_app import POINTS, TOKEN, error_of
from tests.api.small_pool import hash_files
from tests.api.viewer_client import (
    COLOUR,
    COUNT,
    ask,
    has_ended,
    new_processes,
    open_session,
    rows_of,
    session_processes,
    small_sessions,
    viewer_client,
    wait_for,
)

LONG = "SELECT count(*) FROM range(1_000_000_000_000) t(i) WHERE i % 7 = 3"

WITHOUT_GATE = """
import api.worker, api.sealed_database, api.session_database
api.sealed_database.check_query = api.session_database.check_query = lambda *_: None
api.worker.run(api.session_database.SessionDatabase)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("viewer")


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[TestClient]:
    with viewer_client(folder) as made:
        yield made


@pytest.fixture(scope="module")
def atlas(folder: Path, client: TestClient) -> Path:
    return folder / "served" / "atlas"


@pytest.fixture(scope="module")
def session(client: TestClient) -> str:
    return open_session(client)


@dataclass(frozen=True)
class OwnSession:
    address: str
    process: psutil.Process


@pytest.fixture
def own(client: TestClient, session: str) -> Iterator[OwnSession]:
    """One for a test that ends or kills it."""
    others = session_processes()
    address = open_session(client)
    (process,) = new_processes(others)
    yield OwnSession(address, process)
    client.post(f"{address}end")


# Strangers


def test_another_sessions_table_cannot_be_read(client: TestClient, session: str) -> None:
    other = open_session(client, "m1", points=5)
    assert rows_of(client, other, "SELECT count(*) AS n FROM dataset") == [{"n": 5}]
    assert rows_of(client, session, "SELECT count(*) AS n FROM dataset") == [{"n": POINTS}]
    added = "ALTER TABLE dataset ADD COLUMN IF NOT EXISTS __ev_other INTEGER"
    assert ask(client, other, added, "exec").status_code == 200
    assert error_of(ask(client, session, "SELECT __ev_other FROM dataset"))[0] == 400
    for name in (
        "dataset_1",
        "main.other",
        "temp.dataset",
        "system.dataset",
        "models",
        "points",
        "duckdb_tables()",
        "information_schema.tables",
        "broker.dataset",
    ):
        assert error_of(ask(client, session, f"FROM {name}"))[:2] == (400, "bad_query")
    for text in (
        "ATTACH ':memory:' AS a",
        "USE system",
        "CREATE TABLE a AS FROM dataset",
        "DELETE FROM dataset",
        "INSERT INTO dataset FROM dataset",
        "DROP TABLE dataset",
        "CREATE SCHEMA IF NOT EXISTS mosaic;\nCREATE TABLE mosaic.a AS FROM dataset",
    ):
        assert error_of(ask(client, session, text, "exec"))[:2] == (400, "bad_query")
    client.post(f"{other}end")


def test_no_hostile_statement_gets_out_of_its_session(
    client: TestClient, session: str, atlas: Path
) -> None:
    before = hash_files(atlas.parent)
    workers = set(session_processes())
    rows = rows_of(client, session, "FROM dataset")
    for name, text in HOSTILE.items():
        for type in ("json", "exec"):
            reply = ask(client, session, text, type)
            assert reply.status_code == 400, name
            assert b"canary" not in reply.content
    for predicate in ("true) UNION ALL (FROM read_text('/etc/passwd')", "1) TO 'x' --", "(", "'"):
        asked = {"predicate": predicate, "format": "json"}
        assert client.post(f"{session}data/selection", json=asked).status_code == 400
    assert rows_of(client, session, "FROM dataset") == rows
    assert set(session_processes()) == workers
    assert hash_files(atlas.parent) == before


def test_the_walls_behind_the_gate_keep_a_session_in_too(
    atlas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the gate statements may run, but they read, write and reach nothing outside."""
    monkeypatch.setattr(
        viewer_sessions, "SESSION_COMMAND", (sys.executable, "-I", "-c", WITHOUT_GATE)
    )
    secret = atlas.parent / "secret.csv"
    before = hash_files(atlas.parent)
    reads = [f"SELECT * FROM {call}('{secret}')" for call in ("read_csv", "read_text", "glob")]
    writes = [f"COPY (SELECT 1) TO '{path}'" for path in (secret, f"{secret}.new", "broker://x")]
    attaches = [f"ATTACH '{secret}.db'", f"ATTACH '{secret}'", "INSTALL httpfs", "LOAD httpfs"]
    with small_sessions(atlas, timeout_s=1.0) as client:
        session = open_session(client)
        for text in reads + writes + attaches:
            assert ask(client, session, text).status_code in (400, 422), text
        for text in list(HOSTILE.values())[::8]:  # all of them run against `worker` in this way
            reply = ask(client, session, text)
            assert b"canary" not in reply.content
            assert b"root:" not in reply.content
    assert hash_files(atlas.parent) == before


def test_a_session_process_knows_no_secrets(own: OwnSession) -> None:
    assert "XDG_CACHE_HOME" not in own.process.environ()
    assert [file.path for file in own.process.open_files() if "served" in file.path] == []


# The life of a session


def test_a_statement_that_eats_memory_ends_the_process_and_not_the_session(
    client: TestClient, own: OwnSession
) -> None:
    ask(client, own.address, COLOUR, "exec")
    reply = ask(client, own.address, "SELECT repeat('x', 3000000000) AS x FROM dataset")
    assert error_of(reply)[:2] == (422, "query_killed")
    wait_for(lambda: has_ended(own.process))
    assert rows_of(client, own.address, "SELECT count(*) AS n FROM dataset") == [{"n": POINTS}]
    assert error_of(ask(client, own.address, COUNT))[0] == 400  # the colours went with it
    ask(client, own.address, COLOUR, "exec")
    assert len(rows_of(client, own.address, COUNT)) == 2


def test_a_process_that_was_killed_is_started_again(client: TestClient, own: OwnSession) -> None:
    own.process.kill()
    own.process.wait(20)
    assert rows_of(client, own.address, "SELECT count(*) AS n FROM dataset") == [{"n": POINTS}]


def test_a_session_that_was_ended_is_gone(client: TestClient, own: OwnSession) -> None:
    reply = client.post(f"{own.address}end", follow_redirects=False)
    assert (reply.status_code, reply.headers["location"]) == (303, "../../")
    assert has_ended(own.process)
    for path in ("", "data/metadata.json", "assets/index.js", "data/dataset.parquet"):
        reply = client.get(f"{own.address}{path}", headers={"Accept": "application/json"})
        assert error_of(reply)[:2] == (410, "session_ended")
    assert error_of(ask(client, own.address, "SELECT 1"))[0] == 410
    page = client.get(own.address, headers={"Accept": "text/html"})
    assert page.status_code == 410
    assert 'href="../../"' in page.text
    assert client.post(f"{own.address}end").status_code == 410


def test_idle_sessions_end_and_their_processes_too(atlas: Path) -> None:
    others = session_processes()
    with small_sessions(atlas, viewer_idle_s=2.0) as client:
        left = open_session(client)
        (process,) = new_processes(others)
        kept = open_session(client)

        def is_left_over() -> bool:
            assert client.get(f"{kept}data/metadata.json").status_code == 200
            return has_ended(process)

        wait_for(is_left_over)
        assert client.get(f"{left}data/metadata.json").status_code == 410
        assert len(new_processes(others)) == 1
    assert not new_processes(others)


def test_a_client_over_its_share_is_told_so_and_let_in_when_one_ends(atlas: Path) -> None:
    others = session_processes()
    with small_sessions(atlas, max_viewer_sessions=2, token=TOKEN) as client:
        base = f"/t/{TOKEN}/atlas/"
        first = client.post(f"{base}sessions", data={"map_id": "m0"}, follow_redirects=False)
        session = base + first.headers["location"]
        assert client.get(session).content == PAGE
        page = client.post(f"{base}sessions", data={"map_id": "m1"})
        assert (page.status_code, page.headers["retry-after"]) == (429, "60")
        assert "1 viewer sessions are open, 1 of them yours, of at most 2" in page.text
        assert client.get(session.removeprefix(f"/t/{TOKEN}")).status_code == 401
        client.post(f"{session}end", follow_redirects=False)
        again = client.post(f"{base}sessions", data={"map_id": "m1"}, follow_redirects=False)
        assert again.status_code == 303
    assert not new_processes(others)  # all end with the service


def test_no_client_takes_more_than_half_of_all_sessions() -> None:
    sessions = ViewerSessions(ServeSettings("unused", max_viewer_sessions=4))
    with ExitStack() as held:
        for client in ("a", "a", "b"):
            held.enter_context(sessions._place(client))
        with pytest.raises(BusyError, match="2 a client"), sessions._place("a"):
            pass
        held.enter_context(sessions._place("c"))
        with pytest.raises(BusyError, match="of at most 4"), sessions._place("d"):
            pass
    with sessions._place("a"):
        pass


def in_session(atlas: Path, scene: Callable[[ViewerSession], Awaitable[Any]]) -> Any:
    """What a scene with a session of its own gives."""

    async def play() -> Any:
        sessions = ViewerSessions(ServeSettings(str(atlas), viewer_memory_bytes=400_000_000))
        opened = Atlas(str(atlas))
        session = await sessions.open(opened, opened.snapshot.version, "m0", 10, "me")
        try:
            return await scene(session)
        finally:
            await sessions.stop()

    return asyncio.run(play())


def test_only_so_many_statements_wait_in_a_session(atlas: Path) -> None:
    async def scene(session: ViewerSession) -> list[Any]:
        asked = (session.run("SELECT 1 AS one", "json") for _ in range(MAX_WAITING + 1))
        return list(await asyncio.gather(*asked, return_exceptions=True))

    *answers, last = in_session(atlas, scene)
    assert [one.n_rows for one in answers] == [1] * MAX_WAITING
    assert isinstance(last, BusyError)


@pytest.mark.parametrize(
    ("left_s", "text", "is_kept"),
    [(60.0, "SELECT sum(i) FROM range(100_000_000) t(i)", True), (0.0, LONG, False)],
)
def test_only_a_long_statement_that_nobody_waits_for_costs_the_colours(
    atlas: Path, monkeypatch: pytest.MonkeyPatch, left_s: float, text: str, is_kept: bool
) -> None:
    monkeypatch.setattr(viewer_sessions, "LEFT_S", left_s)

    async def scene(session: ViewerSession) -> bool:
        await session.run(COLOUR, "arrow")
        left = asyncio.create_task(session.run(text, "json"))
        await asyncio.sleep(0.01)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        count = await session.run("SELECT count(*) AS n FROM dataset", "json")
        assert json.loads(count.body) == [{"n": 10}]
        try:
            return (await session.run(COUNT, "json")).n_rows > 0
        except QueryError:
            return False

    assert in_session(atlas, scene) is is_kept


@pytest.mark.parametrize("has_process", [True, False])
def test_a_statement_whose_session_ends_is_told_so(atlas: Path, has_process: bool) -> None:
    async def scene(session: ViewerSession) -> None:
        if not has_process:
            await session._end_worker()
        asked = asyncio.create_task(session.run(LONG, "json"))
        await asyncio.sleep(0.05)
        await session.end()
        with pytest.raises(SessionEndedError, match="open the map again"):
            await asked

    in_session(atlas, scene)


@pytest.mark.parametrize("points", ["0", "50001", "-1", "many", "9" * 30])
def test_a_number_of_points_out_of_range_is_refused(client: TestClient, points: str) -> None:
    form = {"map_id": "m0", "points": points}
    reply = client.post("/atlas/sessions", data=form, headers={"Accept": "application/json"})
    assert error_of(reply)[:2] == (400, "bad_query")
    assert "expected 1 to 50,000" in reply.text
