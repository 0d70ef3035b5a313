from dataclasses import replace
from json import loads
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows import head_tasks
from flows.config import RunConfig
from flows.head_tasks import HeadTask, describe_failed_maps, map_head
from flows.samples import Growth
from flows.work import find_work
from pipeline.maps import make_maps
from pipeline.settings import MapSpec, MeasureSpec
from store.errors import ObjectStoreError, StoreAccessError
from store.lake import MAPS, Lake, Unit
from store.schema import TABLES
from store.snapshot import Snapshot
from store.state import read_state
from tests.flows.tiny_run import make_run, run_here, save_model
from tests.store.full_disk import no_room

SPECS = (MapSpec("pca", 2, max_tokens=100), MapSpec("pca", 3, max_tokens=100))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """An atlas without maps and measures; only read."""
    folder = tmp_path_factory.mktemp("run")
    config = make_run(folder, save_model(folder / "model"), maps=[], measures=False)
    run_here(config)
    return replace(config, maps=SPECS, measures=MeasureSpec())


@pytest.fixture
def task(config: RunConfig) -> HeadTask:
    version = Snapshot.load(config.atlas).version
    return HeadTask(config.atlas, version, find_work(config).maps[5])


def test_a_head_gets_its_maps_with_points_in_drawing_order(
    config: RunConfig, task: HeadTask
) -> None:
    two, three = map_head(task)
    n_tokens = task.job.sample.n_tokens
    assert (two.row["status"], two.row["n_queries"], two.row["n_keys"]) == (
        "ok",
        n_tokens,
        n_tokens,
    )
    record = loads(two.row["parameters"])
    assert record["settings"]["method"] == "pca"
    assert (record["max_tokens"], record["displaced"]) == (100, 0)
    sample = task.job.sample
    assert (record["sample"], record["capture"]) == (sample.digest, sample.capture)
    assert read_state(config.atlas, two.row["map_id"], record["state"])
    assert set(two.row) <= set(TABLES["maps"].schema.names)
    for made, dims in ((two, 2), (three, 3)):
        (file,) = made.files
        points = pq.read_table(f"{config.atlas}/points/{file.path}")
        assert file.n_rows == len(points) == 2 * n_tokens
        assert file.size == Path(f"{config.atlas}/points/{file.path}").stat().st_size
        assert points["rank"].to_pylist() == list(range(2 * n_tokens))
        assert points["z"].null_count == (2 * n_tokens if dims == 2 else 0)
        assert set(points["kind"].to_pylist()) == {"query", "key"}
        assert set(points["sequence_id"].to_pylist()) == set(task.job.sample.sequence_ids.tolist())


def test_a_map_that_fails_says_why_and_the_others_are_made(
    task: HeadTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = make_maps

    def fail_second(*arguments: object) -> object:
        first, *_ = make(*arguments)  # type: ignore[arg-type]
        return [first, ValueError("no room " * 1000)]

    monkeypatch.setattr(head_tasks, "make_maps", fail_second)
    good, bad = map_head(task)
    assert (good.row["status"], bad.row["status"], bad.files) == ("ok", "failed", [])
    assert bad.row["reason"].startswith("ValueError: no room no room")
    assert len(bad.row["reason"]) == 2000
    assert loads(bad.row["parameters"])["settings"]["dims"] == 3


def test_a_head_that_cannot_be_read_has_all_its_maps_failed(tmp_path: Path, task: HeadTask) -> None:
    rows = describe_failed_maps(task, "NotInAtlasError: gone")
    assert [row["map_id"] for row in rows] == list(task.job.map_ids)
    assert {row["status"] for row in rows} == {"failed"}
    lake = Lake(str(tmp_path / "atlas"))
    lake.create()
    lake.commit_rows(MAPS, rows)  # the rows fit the table
    snapshot = Snapshot.load(lake.uri)
    assert set(snapshot.newest_maps()["reason"].to_pylist()) == {"NotInAtlasError: gone"}
    assert task.place == "tiny, layer 1, head 1"


def test_map_files_are_committed_as_they_are(config: RunConfig, task: HeadTask) -> None:
    made = map_head(task)
    written = Lake(config.atlas).commit(MAPS, [Unit(each.row, each.files) for each in made])
    assert len(written) == len(SPECS)
    assert Snapshot.load(config.atlas).files("points").num_rows == len(SPECS)


def test_points_that_find_no_room_are_named_and_leave_nothing(
    config: RunConfig, task: HeadTask
) -> None:
    folder = Path(config.atlas) / "points"
    before = sorted(folder.rglob("*.parquet"))
    with pytest.raises(OSError, match=r"File too large: '.*points/.*/m-\w+-0-\w+\.parquet'"):
        fill_disk(task)
    assert sorted(folder.rglob("*.parquet")) == before


def fill_disk(task: HeadTask) -> None:
    """Write points where the disk has room for a little of them."""
    rows = pa.Table.from_pylist(
        [{"map_id": f"{n}", "part": 0} for n in range(5_000)],
        schema=TABLES["points"].file_schema.remove_metadata(),
    )
    with no_room(4_096):
        head_tasks._write_points(task, "ab", rows)


@pytest.mark.parametrize("error", [ObjectStoreError, StoreAccessError])
def test_an_object_store_in_trouble_is_no_maps_fault(
    config: RunConfig, task: HeadTask, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def silent(*_: object) -> None:
        raise error("s3://lab: not now")

    fit = {"map_id": "ab", "parameters": '{"state": "s"}'}
    growth = Growth(fit=fit, part=1, sample="", displaced=0)
    grown = replace(task, job=replace(task.job, growths=(growth,) * len(task.job.specs)))
    monkeypatch.setattr(head_tasks, "read_state", silent)
    with pytest.raises(error, match="not now"):
        map_head(grown)
