"""An object store that does not answer at all: said as such, never taken for damage, and healed."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

import store.log_trouble
import store.object_store
from infra.fault_proxy import Fault
from store.check import check
from store.checkpoint import checkpoint
from store.compaction import compact
from store.errors import AtlasFormatError, CommitError, ObjectStoreError
from store.export import export_points
from store.files import filesystem
from store.lake import SHARDS, Lake
from store.map_points import open_map, read_rows
from store.matrix import read_matrix
from store.nearest import _best
from store.opened import OpenAtlas
from store.scan import read_files, read_sequences
from store.snapshot import Snapshot
from store.state import read_state, write_state
from store.vacuum import vacuum
from tests.faults.broken_store import BUCKET, Site, check_each_once, commit_shard, run_site
from tests.faults.small_shards import make_unit
from tests.store.small_shards import add_part, contents, make_lake

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
    monkeypatch.setitem(store.object_store._DELTA, "max_retries", "1")  # else half a minute each
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


@pytest.fixture(scope="module")
def mapped(site: Site) -> str:
    """An atlas of three shards and a map in two parts, small files all."""
    site.proxy.set()
    uri = f"s3://{BUCKET}/mapped/atlas"
    with TemporaryDirectory() as folder:
        root = Path(folder) / "atlas"
        make_lake(root, 3)
        add_part(root, "aa", 0)
        add_part(root, "aa", 1)
        where, place = filesystem(uri)
        for path in root.rglob("*"):
            if path.is_file():
                with where.open_output_stream(f"{place}/{path.relative_to(root)}") as stream:
                    stream.write(path.read_bytes())
    return uri


NO_PARQUET = Fault("error", status=503, methods=("GET",), path=r"\.parquet")


@pytest.mark.usefixtures("impatient")
def test_no_reader_takes_a_silent_store_for_damage(site: Site, mapped: str, tmp_path: Path) -> None:
    atlas = OpenAtlas(mapped)
    opened = open_map(atlas, "aa")
    model, queries = opened.model, atlas.snapshot.files("queries", layer=0, head=0)
    atlas.facts(model, 0, 0)
    readers: dict[str, Callable[[], object]] = {
        "points": lambda: read_rows(opened, ["x"]),
        "matrix": lambda: read_matrix(atlas, model, opened.method, opened.dims),
        "nearest": lambda: _best("queries", queries, np.ones(4), atlas.facts(model, 0, 0), 2),
        "export": lambda: export_points(atlas, ["aa"], tmp_path / "out.parquet", "parquet"),
        "compact": lambda: compact(mapped),
        "check": lambda: check(mapped),
    }
    for name, read in readers.items():
        site.proxy.set(NO_PARQUET)
        with pytest.raises(ObjectStoreError, match=SILENT) as caught:
            read()
            pytest.fail(name)
        assert is_one_line(str(caught.value)), name
    site.proxy.set()
    assert check(mapped).problems == []


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "outage",
    [
        Fault("error", status=503, methods=("PUT",), path=r"/_delta_log/"),
        Fault("error", status=503, methods=("GET",), path=r"list-type"),
        Fault("error", status=503),
    ],
    ids=["log", "list", "all"],
)
def test_maintenance_of_a_silent_store_ends_in_one_line(
    site: Site, mapped: str, outage: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.clock.now", lambda: datetime.now(UTC) + timedelta(days=2))
    works: list[Callable[[str], object]] = [compact, checkpoint]  # what writes to the logs
    if outage.methods != ("PUT",):
        works += [vacuum, check]
    for work in works:
        site.proxy.set(outage)
        with pytest.raises(ObjectStoreError, match=SILENT) as caught:
            work(mapped)
            pytest.fail(str(work))
        assert is_one_line(str(caught.value))


@pytest.mark.usefixtures("impatient")
def test_maintenance_beside_broken_requests_loses_nothing(
    site: Site, mapped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of all requests fails: maintenance ends, or says that the store is silent."""
    monkeypatch.setattr(store.object_store, "ATTEMPTS", 3)
    before = contents(mapped)
    errors, cuts = Fault("error", turn=(1, 7)), Fault("cut_reply", turn=(1, 9))
    for work, fault in ((compact, cuts), (vacuum, errors), (checkpoint, cuts), (check, errors)):
        site.proxy.set(fault)
        with suppress(ObjectStoreError):
            work(mapped)
    assert sum(site.proxy.counts().values()) > 0
    site.proxy.set()
    assert contents(mapped) == before
    assert check(mapped).problems == []


def is_one_line(text: str) -> bool:
    """One line, without colours of a terminal."""
    return "\n" not in text and "\x1b" not in text


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


def test_an_empty_log_entry_on_a_store_is_refused(site: Site) -> None:
    site.proxy.set()
    lake = Lake(f"s3://{BUCKET}/empty/atlas")
    lake.create()
    for ordinal in range(2):
        commit_shard(lake, ordinal)
    where, root = filesystem(lake.uri)
    path = f"keys/_delta_log/{1:020}.json"
    with where.open_output_stream(f"{root}/{path}") as stream:
        stream.write(b"")
    store.log_trouble._seen.clear()  # as a process that begins
    with pytest.raises(AtlasFormatError, match=rf"Delta log of .*{path} is empty"):
        Snapshot.load(lake.uri)
    with pytest.raises(AtlasFormatError, match=rf"{path} is empty"):
        lake.commit(SHARDS, [make_unit(lake.uri, 2)])
