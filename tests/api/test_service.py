import asyncio
import gc
import weakref
from pathlib import Path
from unittest.mock import patch

import pytest

from api import service as service_module
from api.service import Service
from api.settings import ServeSettings
from store.errors import AtlasFormatError, AtlasNotFoundError, StaleVersionError
from store.snapshot import Snapshot
from tests.api.small_app import get_rows, running_app
from tests.store.lake_fixture import add_model, add_shard, build_atlas


@pytest.fixture
def atlas(tmp_path: Path) -> Path:
    return build_atlas(tmp_path / "atlas")


def open_service(atlas: Path, keep_versions_s: float = 600) -> Service:
    return Service(ServeSettings(str(atlas), refresh_s=0.01, keep_versions_s=keep_versions_s))


def test_a_commit_is_seen_by_the_next_look(atlas: Path) -> None:
    service = open_service(atlas)
    before = service.current[0]
    assert not service.refresh()
    add_shard(atlas, 2)
    assert service.refresh()
    version, newest = service.current
    assert version == newest.snapshot.version != before
    assert newest.ask("SELECT count(*) AS n FROM shards")["n"].to_pylist() == [3]


def test_looking_at_an_unchanged_atlas_opens_no_table(atlas: Path) -> None:
    service = open_service(atlas)
    with patch.object(service_module, "Atlas", side_effect=AssertionError("opened")):
        assert not service.refresh()


def test_an_atlas_that_cannot_be_looked_at_cheaply_is_opened(atlas: Path) -> None:
    with patch.object(service_module, "_newest_commits", return_value=()):
        service = open_service(atlas)
        assert not service.refresh()
        add_shard(atlas, 2)
        assert service.refresh()


def test_a_version_with_a_cursor_outlives_its_successor(atlas: Path) -> None:
    service = open_service(atlas)
    version, first = service.current
    assert service.at(version) is first
    service.keep(version, first)
    add_shard(atlas, 2)
    service.refresh()
    assert service.at(version) is first
    with pytest.raises(StaleVersionError, match="begin again without a cursor"):
        service.at("unknown")


def test_a_cursor_given_out_late_keeps_its_version(atlas: Path) -> None:
    service = open_service(atlas)
    version, first = service.current
    add_shard(atlas, 2)
    service.refresh()
    service.keep(version, first)
    assert service.at(version) is first


def test_versions_are_let_go_after_their_time(atlas: Path) -> None:
    service = open_service(atlas, keep_versions_s=0)
    version, first = service.current
    service.keep(version, first)
    service.refresh()
    assert service.at(version) is first  # the newest is never too old
    add_shard(atlas, 2)
    service.refresh()
    service.refresh()
    with pytest.raises(StaleVersionError):
        service.at(version)
    gone = weakref.ref(first)
    del first
    gc.collect()
    assert gone() is None


def test_trouble_leaves_the_open_version_and_is_looked_at_again(
    atlas: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = open_service(atlas)
    add_model(atlas, "second")
    told: list[str] = []

    async def tell(snapshot: Snapshot) -> None:
        told.append(snapshot.version)

    async def follow() -> None:
        task = asyncio.create_task(service.follow(tell))
        with patch.object(service_module, "Atlas", side_effect=AtlasFormatError("half written")):
            while "half written" not in caplog.text:
                await asyncio.sleep(0.01)
        assert not told
        while not told:
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(asyncio.wait_for(follow(), 60))
    assert told == [service.current[0]]


def test_no_atlas_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(AtlasNotFoundError, match="no atlas at"):
        open_service(tmp_path / "nothing")


def test_the_server_follows_the_atlas_without_a_restart(atlas: Path) -> None:
    with running_app(atlas, refresh_s=0.05) as client:
        first = client.get("/v1/models").headers["etag"]
        add_shard(atlas, 2)
        add_model(atlas, "second")
        while client.get("/v1/models").headers["etag"] == first:
            pass
        newest = client.get("/v1/models").headers["etag"]
        while (version := client.get("/readyz").json()["version"]) != newest[3:-1]:
            newest = client.get("/v1/models").headers["etag"]
        app = client.app
        while app.state.pool.versions[-1] != version:  # type: ignore[attr-defined]
            client.get("/healthz")
        assert client.get("/v1/models", headers={"If-None-Match": first}).status_code == 200
        assert client.get("/v1/models", headers={"If-None-Match": newest}).status_code == 304


def test_a_page_goes_on_in_its_own_version(atlas: Path) -> None:
    with running_app(atlas) as client:
        url = "/v1/models/tiny/sequences?limit=4"
        first = client.get(url)
        add_shard(atlas, 2)
        assert client.app.state.service.refresh()  # type: ignore[attr-defined]
        cursor = first.headers["x-next-cursor"]
        second = client.get(f"{url}&cursor={cursor}")
        assert second.headers["x-atlas-version"] == first.headers["x-atlas-version"]
        assert (len(second.json()["rows"]), second.json()["next"]) == (2, None)
        assert len(get_rows(client, "/v1/models/tiny/sequences")) == 9
        client.app.state.service._kept.clear()  # type: ignore[attr-defined]
        late = client.get(f"{url}&cursor={cursor}")
        assert late.status_code == 410
        assert late.json()["error"]["kind"] == "stale_version"
