"""A whole service over an atlas on an object store: typed routes, SQL in a worker, new commits."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil
import pytest

from infra.object_store import KEY, SECRET, ObjectStore, run_object_store
from store import object_store
from store.atlas import Atlas
from store.lake import MAPS, Lake
from tests.api.running_service import running_service
from tests.api.small_app import build_mapped_atlas

ATLAS = "s3://lab/served/atlas"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with run_object_store(tmp_path_factory.mktemp("store")) as running:
        running.make_bucket("lab")
        yield running


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_mapped_atlas(tmp_path_factory.mktemp("local"))


@pytest.fixture(autouse=True)
def environment(store: ObjectStore, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's names and keys; and on it a copy of the local atlas."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(object_store, "_reached", set())
    client = store.client()
    for path in local.rglob("*"):
        if path.is_file():
            key = f"served/atlas/{path.relative_to(local)}"
            client.put_object(Bucket="lab", Key=key, Body=path.read_bytes())


def ask(client: httpx.Client, sql: str) -> list[dict[str, Any]]:
    reply = client.post("v1/sql", json={"sql": sql}, headers={"Accept": "application/json"})
    assert reply.status_code == 200, reply.text
    return list(reply.json())


def _first_map(atlas: Path) -> str:
    with Atlas(str(atlas)) as opened:
        return str(opened.sql("SELECT min(map_id) AS id FROM maps").to_pylist()[0]["id"])


def test_a_service_answers_from_a_store_as_from_a_disk(local: Path) -> None:
    questions = [
        "SELECT count(*) AS n, sum(position) AS s FROM tokens",
        "SELECT layer, head, count(*) AS n FROM queries GROUP BY ALL ORDER BY ALL",
        "SELECT map_id, count(*) AS n FROM points GROUP BY ALL ORDER BY ALL",
    ]
    points = f"v1/maps/{_first_map(local)}/points?limit=50"
    paths = ("v1/models", "v1/heads", "v1/maps", "v1/models/tiny/sequences", points)

    def answers(url: str) -> list[Any]:
        with httpx.Client(base_url=url, timeout=60) as client:
            typed = [client.get(path, headers={"Accept": "application/json"}) for path in paths]
            assert all(reply.status_code == 200 for reply in typed), [each.text for each in typed]
            return [ask(client, sql) for sql in questions] + [_rows(each) for each in typed]

    with running_service(str(local)) as url:
        expected = answers(url)
    with running_service(ATLAS) as url:
        found = answers(url)
        workers = [each for each in psutil.Process().children(recursive=True) if _is_worker(each)]
        assert workers and not any("AWS_" in name for each in workers for name in each.environ())
    assert found == expected
    assert SECRET not in repr(found) and KEY not in repr(found)


def _is_worker(process: psutil.Process) -> bool:
    return "api.worker" in process.cmdline()


def _rows(reply: httpx.Response) -> Any:
    """A reply without its version, which the place of an atlas does not change either."""
    said = reply.json()
    return {key: said[key] for key in said if key != "version"} if isinstance(said, dict) else said


def test_a_service_follows_new_commits_on_a_store() -> None:
    with running_service(ATLAS) as url, httpx.Client(base_url=url, timeout=60) as client:
        before = client.get("v1/models").headers["etag"]
        with Atlas(ATLAS) as atlas:
            row = atlas.snapshot.newest_maps().to_pylist()[0]
        Lake(ATLAS).commit_rows(MAPS, [row | {"status": "dropped"}])
        while client.get("v1/models").headers["etag"] == before:
            pass
        counted = "SELECT count(*) AS n FROM current_maps"
        while ask(client, counted) != [{"n": 3}]:
            pass
