"""What remains to do is found from files and ledger alone, and changed files stop the run."""

import gzip
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from flows.config import RunConfig
from flows.work import (
    describe_reading,
    find_coverage,
    find_vanished,
    find_work,
    load_snapshot,
    newest_files,
)
from pipeline.corpus import list_sources
from pipeline.settings import MapSpec, MeasureSpec, SampleSpec, SplitSpec
from store.errors import (
    AtlasFormatError,
    CaptureConflictError,
    SourceChangedError,
    SourceNotFoundError,
)
from store.lake import SHARDS, Lake
from store.snapshot import Snapshot
from tests.flows.small_runs import (
    captured,
    drop,
    extract,
    make_config,
    plan,
    run,
    with_capture,
    write_source,
)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    write_source(tmp_path / "a.txt", ["one two", "three"])
    write_source(tmp_path / "b.txt", ["four"])
    return make_config(tmp_path, "*.txt")


def test_finding_work_loads_no_heavy_library() -> None:
    code = "import sys, flows.run; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "transformers", "ray", "prefect", "umap", "numba", "sklearn"}


def test_an_atlas_that_is_not_there_has_everything_to_do(config: RunConfig) -> None:
    work = find_work(config)
    assert not work.is_done
    assert load_snapshot(config.atlas) is None
    assert [(row.ordinal, row.first_row) for row in work.new_rows[0].rows] == [(None, 0)] * 2
    assert (work.known, work.planned, work.vanished) == ([], [], [])


@pytest.mark.parametrize(
    "split", [SplitSpec("sentence"), SplitSpec("window", 4), SplitSpec("paragraph")]
)
def test_a_corpus_that_would_be_cut_otherwise_is_refused(
    config: RunConfig, split: SplitSpec
) -> None:
    run(config)
    other = replace(config, corpus=replace(config.corpus, split=split))
    with pytest.raises(CaptureConflictError, match=r"set corpus\.name to another name"):
        find_work(other)
    same = replace(config, corpus=replace(config.corpus, split=SplitSpec("line")))
    assert find_work(same).is_done  # a line of a text file is its record


def test_planned_shards_wait_until_they_are_captured(config: RunConfig) -> None:
    work = plan(config)
    assert [row["status"] for row in work.planned] == ["planned"]
    assert not work.is_done
    extract(config)
    assert find_work(config).is_done


def test_maps_and_measures_remain_after_capture(config: RunConfig) -> None:
    run(config)
    more = replace(config, maps=(MapSpec("pca"), MapSpec("pca", 3)), measures=MeasureSpec())
    work = find_work(more)
    assert [len(job.specs) for job in work.maps] == [2]
    assert len(work.measures) == 1
    assert not work.is_done


def test_a_quarantined_shard_is_left_alone(config: RunConfig) -> None:
    row = plan(config).planned[0]
    lake = Lake(config.atlas)
    lake.commit_rows(SHARDS, [row | {"status": "quarantined", "reason": "it broke"}])
    assert find_work(config).is_done
    lake.commit_rows(SHARDS, [row])
    assert [row["status"] for row in find_work(config).planned] == ["planned"]


# files that change


def test_a_changed_file_stops_the_run(config: RunConfig, tmp_path: Path) -> None:
    run(config)
    write_source(tmp_path / "a.txt", ["ONE two", "three"])
    with pytest.raises(SourceChangedError, match=r"a\.txt changed .*14 bytes then, 14 now"):
        find_work(config)


@pytest.mark.parametrize("content", ["one two", "", "one two\nthree four\n", "x\none two\nthree\n"])
def test_shorter_and_rewritten_files_are_changed_files(
    config: RunConfig, tmp_path: Path, content: str
) -> None:
    run(config)
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(SourceChangedError, match=r"corpus\.name"):
        find_work(config)


def test_text_appended_within_a_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo")
    config = make_config(tmp_path, "a.txt")
    run(config)
    with (tmp_path / "a.txt").open("a") as file:
        file.write(" and more\n")
    with pytest.raises(SourceChangedError, match="appended must begin a new record"):
        find_work(config)


def test_a_packed_file_that_was_packed_anew_is_changed(tmp_path: Path) -> None:
    write_source(tmp_path / "a.txt.gz", ["one"])
    config = make_config(tmp_path, "a.txt.gz")
    run(config)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one\ntwo\nthree\n", 1))
    with pytest.raises(SourceChangedError, match="changed since it was captured"):
        find_work(config)


def test_a_changed_file_may_be_captured_under_another_corpus(
    config: RunConfig, tmp_path: Path
) -> None:
    run(config)
    write_source(tmp_path / "a.txt", ["other"])
    other = replace(config, corpus=replace(config.corpus, name="again"))
    run(other)
    assert [text for _, corpus, *_, text in captured(config.atlas) if corpus == "again"] == [
        "other",
        "four",
    ]


def test_vanished_files_are_listed_and_stay(config: RunConfig, tmp_path: Path) -> None:
    run(config)
    (tmp_path / "b.txt").unlink()
    work = find_work(config)
    assert work.vanished == [str(tmp_path / "b.txt")]
    assert work.is_done
    assert len(captured(config.atlas)) == 3
    assert find_vanished(config, list_sources(config.corpus), None) == []
    write_source(tmp_path / "b.txt", ["four"])
    assert find_work(config).vanished == []


def test_a_corpus_without_files_is_said(config: RunConfig, tmp_path: Path) -> None:
    run(config)
    (tmp_path / "a.txt").unlink()
    (tmp_path / "b.txt").unlink()
    with pytest.raises(SourceNotFoundError, match="matches no file"):
        find_work(config)


def test_a_damaged_atlas_is_not_taken_for_a_new_one(config: RunConfig) -> None:
    run(config)
    (Path(config.atlas) / "shards" / "_delta_log" / f"{0:020}.json").write_text("{")
    with pytest.raises(AtlasFormatError, match="damaged"):
        find_work(config)


# rows and coverage


def test_the_row_of_a_file_that_knows_most_counts(tmp_path: Path) -> None:
    write_source(tmp_path / "a.txt", [f"line {n}" for n in range(5)])
    config = make_config(tmp_path, "a.txt", sample=SampleSpec(limit=2))
    source = str(tmp_path / "a.txt")
    plan(config)
    assert newest_files(Snapshot.load(config.atlas), "texts")[source]["n_rows"] is None
    plan(with_capture(config, sample=SampleSpec()))
    assert newest_files(Snapshot.load(config.atlas), "texts")[source]["n_rows"] == 5
    write_source(tmp_path / "a.txt", ["more"], "a")
    plan(with_capture(config, sample=SampleSpec()))
    newest = newest_files(Snapshot.load(config.atlas), "texts")[source]
    assert (newest["n_rows"], newest["ordinal"]) == (6, 0)
    assert newest_files(Snapshot.load(config.atlas), "other") == {}
    assert newest_files(None, "texts") == {}


def test_coverage_counts_live_shards_of_a_model_and_a_corpus(config: RunConfig) -> None:
    run(config)
    shards = Snapshot.load(config.atlas).newest_shards()
    assert find_coverage(shards, "tiny", "texts") == ({0: 2, 1: 1}, 3)
    assert find_coverage(shards, "tiny", "other") == ({}, 0)
    assert find_coverage(shards, "other", "texts") == ({}, 0)
    drop(config, corpus="texts")
    assert find_coverage(Snapshot.load(config.atlas).newest_shards(), "tiny", "texts") == ({}, 0)


def test_an_empty_file_is_read_once(config: RunConfig, tmp_path: Path) -> None:
    write_source(tmp_path / "c.txt", ["", ""])
    run(config)
    assert find_work(config).is_done
    assert len(Snapshot.load(config.atlas).rows("files")) == 3


def test_windows_of_another_tokenizer_are_another_reading(config: RunConfig) -> None:
    corpus = replace(config.corpus, split=SplitSpec("window", 4, 2))
    (file, _) = list_sources(config.corpus)
    assert describe_reading(corpus, file, "aaa") != describe_reading(corpus, file, "bbb")
    assert describe_reading(config.corpus, file, "aaa") == describe_reading(
        config.corpus, file, "bbb"
    )
