"""`qkatlas sql --url` and `qkatlas export`."""

import json
import sys
from pathlib import Path

import duckdb
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

import qkatlas
from api.remote import RemoteAtlas
from store.atlas import Atlas
from tests.api.running_service import free_port, running_service
from tests.flows.tiny_run import make_run, run_here, save_model

TOKEN = "a-token-of-23-letters--"


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("run")
    config = make_run(folder, save_model(folder / "model"))
    run_here(config)
    return str(config.atlas)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QKATLAS_ATLAS", "QKATLAS_TOKEN", "QKATLAS_DEBUG"):
        monkeypatch.delenv(name, raising=False)


def run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: object
) -> tuple[object, str, str]:
    """Exit code, standard output and standard error of `qkatlas`."""
    monkeypatch.setattr(sys, "argv", ["qkatlas", *map(str, arguments)])
    capfd.readouterr()
    with pytest.raises(SystemExit) as end:
        qkatlas.main()
    return end.value.code, *capfd.readouterr()


# sql --url


def test_sql_asks_a_service(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], atlas: str
) -> None:
    question = ("sql", "SELECT model, n_heads FROM models", "--format", "json")
    with running_service(atlas, token=TOKEN) as url:
        code, out, err = run(monkeypatch, capfd, *question, "--url", f"{url}t/{TOKEN}/")
        assert (code, json.loads(out), err) == (0, [{"model": "tiny", "n_heads": 4}], "")
        monkeypatch.setenv("QKATLAS_TOKEN", TOKEN)
        monkeypatch.setenv("QKATLAS_ATLAS", "no-such-folder")  # --url is nearer
        assert run(monkeypatch, capfd, *question, "--url", url) == (0, out, "")
        with qkatlas.open(url) as opened:
            assert isinstance(opened, RemoteAtlas)
            assert opened.models().num_rows == 1
        code, _, err = run(monkeypatch, capfd, "sql", "FROM nothing", "--url", url)
        assert code == 2 and err.startswith("error: ") and "nothing" in err
        monkeypatch.delenv("QKATLAS_TOKEN")
        code, _, err = run(monkeypatch, capfd, *question, "--url", url)
        assert code == 2 and "wants a token" in err and TOKEN not in err


def test_no_service_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    code, _, err = run(monkeypatch, capfd, "sql", "SELECT 1", "--url", url)
    assert code == 2 and len(err.splitlines()) == 1
    assert err.startswith(f"error: no service at {url}/") and "`qkatlas serve" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--atlas", "x", "--url", "http://127.0.0.1:1"), "either --atlas URI or --url URL"),
        (("--url", "build/demo-atlas"), "expected the address of a service"),
    ],
)
def test_sql_takes_one_place(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    code, _, err = run(monkeypatch, capfd, "sql", "SELECT 1", *arguments)
    assert code == 2 and said in err


# export


def test_export_writes_files_that_their_readers_open(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], atlas: str, tmp_path: Path
) -> None:
    """Parquet by pyarrow, DuckDB's file by DuckDB, CSV by pyarrow: the same rows of one head."""
    with Atlas(atlas) as opened:
        (wanted,) = opened.sql("SELECT count(*) AS n FROM points WHERE layer = 1 AND head = 2")["n"]
    for name in ("points.parquet", "points.duckdb", "points.csv"):
        arguments = ("--atlas", atlas, "--model", "tiny", "--layer", 1, "--head", 2)
        code, out, err = run(monkeypatch, capfd, "export", tmp_path / name, *arguments)
        assert (code, err) == (0, "")
        assert out.startswith(f"{wanted.as_py():,} points of 1 map(s) are in ")
    rows = pq.read_table(tmp_path / "points.parquet")
    assert len(rows) == wanted.as_py() and {"token", "x", "map_id"} <= set(rows.column_names)
    assert pyarrow.csv.read_csv(tmp_path / "points.csv").num_rows == len(rows)
    with duckdb.connect(str(tmp_path / "points.duckdb"), read_only=True) as database:
        assert database.execute("SELECT count(*) FROM points").fetchall() == [(len(rows),)]


def test_export_takes_maps_by_their_ids(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], atlas: str, tmp_path: Path
) -> None:
    with Atlas(atlas) as opened:
        ids = opened.ask("SELECT map_id FROM current_maps ORDER BY ALL LIMIT 2")["map_id"]
    chosen = [word for each in ids.to_pylist() for word in ("--map", each)]
    target = tmp_path / "two"
    arguments = ("export", target, "--atlas", atlas, *chosen, "--format", "parquet")
    assert run(monkeypatch, capfd, *arguments)[0] == 0
    assert set(pq.read_table(target)["map_id"].to_pylist()) == set(ids.to_pylist())
    code, _, err = run(monkeypatch, capfd, *arguments)
    assert code == 2 and "two" in err  # never over a file that is there


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("points.xlsx",), "which format? write OUT.parquet"),
        (("points.csv", "--format", "xml"), "xml: which format?"),
        (("points.csv", "--map", "a", "--layer", "0"), "not both"),
        (("points.csv", "--method", "umap"), "no current map"),
        (("points.csv", "--map", "nope"), "nope"),
    ],
)
def test_export_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    atlas: str,
    tmp_path: Path,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    name, *rest = arguments
    code, _, err = run(monkeypatch, capfd, "export", tmp_path / name, "--atlas", atlas, *rest)
    assert code == 2 and said in err and len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
