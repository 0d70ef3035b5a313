"""A client of a viewer's sessions over a small atlas, and the processes that these have."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from starlette.testclient import TestClient

from tests.api.fake_viewer import install_fake
from tests.api.small_app import build_mapped_atlas, running_app

COLOUR = """
    ALTER TABLE dataset ADD COLUMN IF NOT EXISTS "__ev_kind_id" INTEGER DEFAULT 0;
    UPDATE dataset SET "__ev_kind_id" =
      CASE "kind"::TEXT WHEN 'query' THEN 1 WHEN 'key' THEN 2
      ELSE (CASE WHEN "kind" IS NULL THEN 4 ELSE 3 END) END
"""
COUNT = 'SELECT "__ev_kind_id" AS index, count(*)::INT AS count FROM dataset GROUP BY 1 ORDER BY 1'


@contextmanager
def viewer_client(folder: Path) -> Iterator[TestClient]:
    """The app over an atlas in `folder/served`, beside a secret, with a viewer installed."""
    (folder / "served").mkdir()
    (folder / "served" / "secret.csv").write_text("canary")
    install_fake(folder / "cache")
    atlas = build_mapped_atlas(folder / "served" / "atlas")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        with small_sessions(atlas, timeout_s=5.0) as client:
            yield client


@contextmanager
def small_sessions(atlas: Path, **settings: Any) -> Iterator[TestClient]:
    """The app over an atlas, with sessions that take little."""
    chosen = {"worker_threads": 1, "viewer_memory_bytes": 400_000_000, **settings}
    with running_app(atlas, **chosen) as client:
        yield client


def open_session(client: TestClient, map_id: str = "m0", points: int = 20_000) -> str:
    """Open a session as the page's form does; gives its address."""
    form = {"map_id": map_id, "points": str(points)}
    reply = client.post("/atlas/sessions", data=form, follow_redirects=False)
    assert reply.status_code == 303, reply.text
    return f"/atlas/{reply.headers['location']}"


def ask(client: TestClient, session: str, sql: str, type: str = "json") -> httpx2.Response:
    body = json.dumps({"type": type, "sql": sql})  # in ASCII: half a character can be asked too
    return client.post(f"{session}data/query", content=body)


def rows_of(client: TestClient, session: str, sql: str) -> list[dict[str, Any]]:
    reply = ask(client, session, sql)
    assert reply.status_code == 200, reply.text
    rows: list[dict[str, Any]] = reply.json()
    return rows


def session_processes() -> dict[int, psutil.Process]:
    """The processes of sessions that run, by number."""
    found = psutil.Process().children()
    return {
        child.pid: child
        for child in found
        if child.status() != psutil.STATUS_ZOMBIE and "api.session_worker" in child.cmdline()
    }


def new_processes(others: dict[int, psutil.Process]) -> list[psutil.Process]:
    return [process for pid, process in session_processes().items() if pid not in others]


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
