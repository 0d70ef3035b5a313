"""An object store that does not answer at all: said as such, never taken for damage, and healed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import store.object_store
from infra.fault_proxy import Fault
from store.errors import AtlasFormatError, CommitError, ObjectStoreError
from store.files import filesystem
from store.lake import SHARDS, Lake
from store.scan import read_files, read_sequences
from store.snapshot import Snapshot
from store.state import read_state, write_state
from tests.faults.broken_store import BUCKET, Site, check_each_once, commit_shard, run_site
from tests.faults.small_shards import make_unit

SILENT = r"s3://lake/.*http://127\.0\.0\.1:\d+ does not answer: check AWS_ENDPOINT_URL"
OUTAGES = [
    Fault("error", status=500),
    Fault("error", status=503),
    Fault("error", status=429),
    Fault("cut_before"),
    Fault("silence"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with run_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module")
def lake(site: Site) -> Lake:
    """An atlas of one shard."""
    lake = Lake(f"s3://{BUCKET}/outages/atlas")
    lake.create()
    commit_shard(lake, 0)
    return lake


@pytest.fixture
def impatient(site: Site, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each request is made once or twice, and nothing waits; in the end the store answers."""
    monkeypatch.setattr(store.object_store, "ATTEMPTS", 1)
    monkeypatch.setattr(store.object_store, "_AGAIN_PAUSES_S", ())
    monkeypatch.setattr("store.lake._ATTEMPTS", 2)
    monkeypatch.setattr("store.lake.time.sleep", lambda _: None)
    store.object_store._bucket.cache_clear()
    site.proxy.set()
    yield
    site.proxy.set()
    store.object_store._bucket.cache_clear()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("outage", OUTAGES, ids=lambda outage: outage.name.replace(" ", "-"))
def test_a_store_that_does_not_answer_is_said_to_be_silent(
    site: Site, lake: Lake, outage: Fault
) -> None:
    snapshot = Snapshot.load(lake.uri)
    files = snapshot.files("queries")
    state = write_state(lake.uri, "9f", {})
    unit = make_unit(lake.uri, 0, attempt=2)
    site.proxy.set(outage)
    with pytest.raises(ObjectStoreError, match=SILENT) as caught:
        Snapshot.load(lake.uri)
    assert caught.value.exit_code == 1
    with pytest.raises(ObjectStoreError, match=SILENT):
        read_files("queries", files)
    with pytest.raises(ObjectStoreError, match=SILENT):
        read_sequences("queries", files, ["position"])
    with pytest.raises(ObjectStoreError, match=SILENT):
        read_state(lake.uri, "9f", state)
    with pytest.raises(CommitError, match=r"does not answer.*what was captured is not lost"):
        lake.commit(SHARDS, [unit])
    assert site.proxy.counts()[outage.name] >= 5


@pytest.mark.usefixtures("impatient")
def test_after_an_outage_the_same_commit_goes_through(
    site: Site, lake: Lake, tmp_path: Path
) -> None:
    unit = make_unit(lake.uri, 1)
    for path in ("/keys/_delta_log", "/shards/_delta_log"):  # files of the first tables are in
        site.proxy.set(Fault("error", methods=("PUT",), path=path))
        with pytest.raises(CommitError, match="run the same command again"):
            lake.commit(SHARDS, [unit])
    site.proxy.set()
    assert lake.commit(SHARDS, [unit]) == [unit]
    check_each_once(lake.uri, 2, tmp_path)


def test_damage_on_a_store_is_still_damage(site: Site) -> None:
    site.proxy.set()
    lake = Lake(f"s3://{BUCKET}/damage/atlas")
    lake.create()
    commit_shard(lake, 0)
    where, root = filesystem(lake.uri)
    files = Snapshot.load(lake.uri).files("queries")
    path = files["path"][0].as_py().removeprefix("s3://")
    whole = where.open_input_file(path).read()
    with where.open_output_stream(path) as stream:
        stream.write(b"\0" * len(whole))
    with pytest.raises(AtlasFormatError, match=r"table queries cannot be read .*a000-1"):
        read_files("queries", files)
    with where.open_output_stream(f"{root}/shards/_delta_log/{1:020}.json") as stream:
        stream.write(b'{"add": {"pa')
    with pytest.raises(AtlasFormatError, match=r"Delta log of s3://.*/shards is damaged"):
        Snapshot.load(lake.uri)
