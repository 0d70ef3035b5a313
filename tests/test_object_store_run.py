"""The command line over an atlas and a corpus on an object store, from first run to drop."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import qkatlas
from flows.config import load_config
from flows.work import find_work
from infra.object_store import KEY, SECRET, ObjectStore, run_object_store
from pipeline.corpus import list_sources
from pipeline.settings import CorpusSpec
from store import object_store
from store.atlas import Atlas
from store.errors import SourceChangedError, SourceNotFoundError, StoreAccessError
from tests.flows.tiny_run import make_lines, run_here, save_model, write_config

ROOT = Path(__file__).parents[1]
ATLAS = "s3://lab/made/atlas"
CORPUS = "s3://lab/corpus/*.jsonl"


def as_jsonl(lines: list[str]) -> bytes:
    return "".join(json.dumps({"text": line}) + "\n" for line in lines).encode()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with run_object_store(tmp_path_factory.mktemp("store")) as running:
        running.make_bucket("lab")
        yield running


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def environment(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's names and keys, and a corpus of two files as it was at first."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "QKATLAS_"))]:
        monkeypatch.delenv(name)
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(object_store, "_reached", set())
    for number in range(2):
        put(store, f"corpus/{number}.jsonl", as_jsonl(make_lines(10, number)))


def put(store: ObjectStore, key: str, content: bytes) -> None:
    store.client().put_object(Bucket="lab", Key=key, Body=content)


def configure(folder: Path, model: Path, **changes: Any) -> Path:
    corpus = {"name": "tiny", "source": CORPUS}
    return write_config(folder, model, **{"atlas": ATLAS, "corpus": corpus} | changes)


def run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: object
) -> tuple[object, str, str]:
    """Exit code, standard output and standard error of `qkatlas`."""
    monkeypatch.setattr(sys, "argv", ["qkatlas", *map(str, arguments)])
    capfd.readouterr()
    with pytest.raises(SystemExit) as end:
        qkatlas.main()
    return end.value.code, *capfd.readouterr()


def test_an_atlas_on_a_store_is_made_asked_and_dropped(
    tmp_path: Path,
    model: Path,
    store: ObjectStore,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = configure(tmp_path, model, maps=[], measures=False)

    def ask(*arguments: object) -> str:
        code, out, err = run(monkeypatch, capfd, *arguments)
        assert code == 0, err
        return out

    assert "tiny" in ask("plan", path)
    run_here(load_config(path))
    count = ("sql", "SELECT count(*) AS n FROM sequences", "--atlas", ATLAS, "--format", "json")
    assert json.loads(ask(*count)) == [{"n": 20}]
    assert "tiny" in ask("status", "--atlas", ATLAS)
    assert "largest difference" in ask("verify", path)
    assert find_work(load_config(path)).new_rows == []

    put(store, "corpus/1.jsonl", as_jsonl([*make_lines(10, 1), "the old bird sings"]))
    (grown,) = find_work(load_config(path)).new_rows
    assert [(new.file.source, new.first_row) for new in grown.rows] == [
        ("s3://lab/corpus/1.jsonl", 10)
    ]
    run_here(load_config(path))
    assert json.loads(ask(*count)) == [{"n": 21}]
    put(store, "corpus/1.jsonl", as_jsonl([*make_lines(10, 7), "the old bird sings", "a", "b"]))
    with pytest.raises(SourceChangedError, match=r"corpus/1\.jsonl changed since it was captured"):
        find_work(load_config(path))

    ask("drop", "--model", "tiny", "--yes", "--atlas", ATLAS)
    assert json.loads(ask(*count)) == [{"n": 0}]
    listed = store.client().list_objects_v2(Bucket="lab", Prefix="made/")["Contents"]
    contents = [
        store.client().get_object(Bucket="lab", Key=one["Key"])["Body"].read() for one in listed
    ]
    assert not any(secret.encode() in text for text in contents for secret in (KEY, SECRET))
    assert all(one["Size"] for one in listed), "an empty object in place of a folder"


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE"}, 2, "does not know the access key"),
        ({"AWS_REGION": "us-west-1"}, 2, "set AWS_REGION"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, 1, "does not answer: check AWS_ENDPOINT_URL"),
    ],
)
def test_trouble_ends_in_one_line(
    changes: dict[str, str],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    ended, out, err = run(monkeypatch, capfd, "status", "--atlas", ATLAS)
    assert (ended, out, len(err.splitlines())) == (code, "", 1)
    assert said in err and "AKIA" not in err and SECRET not in err


def test_a_corpus_that_cannot_be_read_is_said() -> None:
    with pytest.raises(StoreAccessError, match="s3://no-lab: there is no such bucket"):
        list_sources(CorpusSpec("c", ("s3://no-lab/*.jsonl",)))
    with pytest.raises(SourceNotFoundError, match="matches nothing; check bucket, path"):
        list_sources(CorpusSpec("c", ("s3://lab/nothing/*.jsonl",)))


@pytest.mark.slow
def test_a_run_with_workers_of_ray(tmp_path: Path, model: Path) -> None:
    atlas = "s3://lab/by-ray/atlas"
    path = configure(tmp_path, model, atlas=atlas, workers={"actors": 2})
    for said in ("map", "nothing to do"):
        ended = subprocess.run(
            [sys.executable, "-m", "qkatlas", "run", str(path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert said in ended.stdout
        assert not any(secret in ended.stdout + ended.stderr for secret in (KEY, SECRET))
    with Atlas(atlas) as opened:
        assert opened.sql("SELECT count(*) AS n FROM sequences").to_pylist() == [{"n": 20}]
        assert opened.sql("SELECT count(DISTINCT head) AS n FROM points").to_pylist() == [{"n": 4}]
    target = tmp_path / "points.parquet"
    command = [sys.executable, "-m", "qkatlas", "export", str(target), "--atlas", atlas]
    subprocess.run([*command, "--method", "pca"], cwd=ROOT, check=True)
    assert pq.read_table(target).num_rows > 0
