"""The command line in this process: help, bad input, and what each command prints."""

import errno
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer.main
from deltalake import DeltaTable, write_deltalake
from PIL import Image

import qkatlas
from flows import run as flows_run
from flows.config import load_config
from store.atlas import Atlas
from store.schema import FORMAT, FORMAT_PROPERTY
from tests.flows.tiny_run import make_lines, make_run, run_here, save_model, write_lines

ROOT = Path(__file__).parents[1]
COMMANDS = typer.main.get_command(qkatlas.app).commands  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Ran:
    """A finished command."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Calls `qkatlas` with arguments."""
    monkeypatch.delenv("QKATLAS_ATLAS", raising=False)
    monkeypatch.delenv("QKATLAS_DEBUG", raising=False)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["qkatlas", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            qkatlas.main()
        out, err = capfd.readouterr()
        assert isinstance(end.value.code, int)
        return Ran(end.value.code, out, err)

    return run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """The folder of a finished run; only read."""
    folder = tmp_path_factory.mktemp("done")
    run_here(make_run(folder, model))
    return folder


@pytest.fixture
def fresh(tmp_path: Path, model: Path) -> Path:
    """A folder with a configuration that was never run."""
    make_run(tmp_path, model)
    return tmp_path


@pytest.fixture
def captured(tmp_path: Path, model: Path) -> Path:
    """The folder of a finished run without maps, to be spoilt."""
    run_here(make_run(tmp_path, model, maps=[], measures=False))
    return tmp_path


def assert_one_line(ran: Ran, code: int, *parts: str) -> None:
    """One line on stderr that says all parts, no traceback."""
    assert ran.code == code, ran
    (line,) = ran.err.splitlines()
    assert line.startswith("error: ")
    for part in parts:
        assert part in line


# Help


def test_version_is_printed(run: Run) -> None:
    assert run("--version") == Ran(0, f"{version('qkatlas')}\n", "")


def test_every_command_of_the_issue_is_there() -> None:
    wanted = {"run", "plan", "status", "sql", "verify", "drop", "demo"}
    assert wanted <= set(COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_help_shows_its_example(run: Run, command: str) -> None:
    ran = run(command, "--help")
    assert ran.code == 0 and "Example" in ran.out


# Reading


def test_second_run_has_nothing_to_do(run: Run, done: Path) -> None:
    ran = run("run", done / "tiny.yaml")
    assert ran == Ran(0, "nothing to do: the atlas is up to date\n", "")


def test_status_shows_what_is_there(run: Run, done: Path) -> None:
    ran = run("status", "--atlas", done / "atlas")
    assert (ran.code, ran.err) == (0, "")
    for part in ("Models", "tiny", "BertModel", "Captured", "40", "Maps", "pca"):
        assert part in ran.out


@pytest.mark.parametrize("format", ["table", "json", "csv", "arrow", "parquet"])
def test_sql_answers_in_each_format(
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
    done: Path,
    format: str,
) -> None:
    arguments = ["sql", "SELECT model, n_heads FROM models", "--format", format]
    monkeypatch.setattr(sys, "argv", ["qkatlas", *arguments, "--atlas", str(done / "atlas")])
    with pytest.raises(SystemExit) as end:
        qkatlas.main()
    out = capfdbinary.readouterr().out
    rows = [{"model": "tiny", "n_heads": 4}]
    assert end.value.code == 0
    if format == "json":
        assert json.loads(out) == rows
    elif format == "arrow":
        assert pa.ipc.open_stream(out).read_all().to_pylist() == rows
    elif format == "parquet":
        assert pq.read_table(io.BytesIO(out)).to_pylist() == rows
    elif format == "csv":
        assert out.decode().replace('"', "").split() == ["model,n_heads", "tiny,4"]
    else:
        assert "tiny" in out.decode() and "n_heads" in out.decode()


def test_the_atlas_may_come_from_the_environment(
    run: Run, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QKATLAS_ATLAS", str(done / "atlas"))
    assert json.loads(run("sql", "SELECT 1 AS one", "--format", "json").out) == [{"one": 1}]


def test_plan_and_verify_print_a_row_a_model(run: Run, done: Path, fresh: Path) -> None:
    ran = run("plan", fresh / "tiny.yaml")
    assert ran.code == 0
    for part in ("tiny", "40", "18", "kB", "mean file"):
        assert part in ran.out
    assert not (fresh / "atlas").exists()
    ran = run("verify", done / "tiny.yaml", "--sequences", 3)
    assert ran.code == 0
    assert re.match(r"tiny: largest difference \S+ over 8 heads, [34] sequences", ran.out)


def test_drop_asks_before_it_hides(
    run: Run, captured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atlas = captured / "atlas"
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    ran = run("drop", "--atlas", atlas, "--model", "tiny")
    assert (ran.code, ran.err) == (1, "not done\n")
    ran = run("drop", "--atlas", atlas, "--model", "tiny", "--yes")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("dropped tiny: 1 shard(s)")


# Bad input: one line, code 2 or 1


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("sql", "SELECT 1"), ("which atlas?", "--atlas URI")),
        (("sql", "SELECT 1", "--format", "xml"), ("--format", "'xml'", "parquet")),
        (("drop", "--atlas", "x"), ("exactly one of --model, --corpus and --map",)),
        (("drop", "--atlas", "x", "--model", "a", "--map", "b"), ("exactly one",)),
        (("demo", "--model", "bert"), ("minilm", "smollm2", "'bert'")),
        (("run",), ("CONFIG.yaml",)),
        (("rum", "x"), ("rum",)),
        (("run", "x.yaml", "--nope"), ("--nope",)),
        (("status", "--atlas", "no-such-folder"), ("no atlas at no-such-folder", "qkatlas run")),
        (("run", "no-such-file.yaml"), ("no-such-file.yaml",)),
    ],
)
def test_wrong_arguments_are_one_line(
    run: Run, arguments: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    assert_one_line(run(*arguments), 2, *parts)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ("corpus.source=corpse.txt", ("corpse.txt", "does not exist", "did you mean")),
        ("corpus.source=[a.txt, b.txt]", ("a.txt", "does not exist")),
        ("atlass=x", ("atlass", "atlas")),
        ("corpus.text_colum=x", ("corpus.text_colum", "text_column")),
        ("capture.sample.limits=3", ("capture.sample.limits", "limit")),
        ("capture.layers=first", ("capture.layers", "first")),
        ("capture.sample.sequences=2", ("capture.sample.sequences", "1")),
        ("maps=[{method: som}]", ("maps.0.method", "umap")),
        ("measures.sequences=many", ("measures.sequences", "many")),
        ("workers.num_cpus=0", ("workers.num_cpus",)),
        ("budget_bytes=lots", ("budget_bytes", "lots")),
        ("model.name=./no-such-folder", ("no-such-folder", "does not exist")),
        ("model.name=no-such/model", ("no-such/model", "hub cannot be reached")),
        ("model.device=gpu", ("model.device", "gpu")),
    ],
)
def test_wrong_fields_are_one_line(
    run: Run, fresh: Path, change: str, parts: tuple[str, ...]
) -> None:
    for command in ("run", "plan"):
        assert_one_line(run(command, fresh / "tiny.yaml", "--set", change), 2, *parts)
    assert not (fresh / "atlas").exists()


def test_other_weights_or_settings_under_a_key_are_refused(run: Run, captured: Path) -> None:
    ran = run("run", captured / "tiny.yaml", "--set", "capture.max_length=16")
    assert_one_line(ran, 2, "max_length 32", "16", "set model.key to another name")
    save_model(captured / "other", seed=1)
    ran = run("run", captured / "tiny.yaml", "--set", "model.name=./other")
    assert_one_line(ran, 2, "weights_sha256", "qkatlas drop --model tiny")


def test_a_file_that_changed_is_refused(run: Run, captured: Path) -> None:
    write_lines(captured / "corpus.txt", make_lines(41, seed=5))
    assert_one_line(run("run", captured / "tiny.yaml"), 2, "changed since it was captured")


def test_a_folder_of_images_and_texts_is_refused(run: Run, fresh: Path) -> None:
    (fresh / "mixed").mkdir()
    write_lines(fresh / "mixed/a.txt", make_lines(2))
    Image.new("RGB", (8, 8)).save(fresh / "mixed/b.png")
    ran = run("run", fresh / "tiny.yaml", "--set", "corpus.source=mixed")
    assert_one_line(ran, 2, "either texts or images")


def test_a_damaged_log_is_named(run: Run, captured: Path) -> None:
    for log in (captured / "atlas/queries/_delta_log").glob("*.json"):
        log.write_text("{broken")
    for command in (("run", captured / "tiny.yaml"), ("status", "--atlas", captured / "atlas")):
        assert_one_line(run(*command), 1, "queries", "damaged", "restore it")


def test_a_foreign_table_is_named(run: Run, fresh: Path) -> None:
    write_deltalake(str(fresh / "atlas/shards"), pa.table({"a": [1]}))
    assert_one_line(run("run", fresh / "tiny.yaml"), 1, "shards is no table of an atlas")


def test_a_newer_format_is_refused(run: Run, captured: Path) -> None:
    for name in ("shards", "maps"):
        table = DeltaTable(str(captured / "atlas" / name))
        table.alter.set_table_properties(
            {FORMAT_PROPERTY: str(FORMAT + 1)}, raise_if_not_exists=False
        )
    ran = run("sql", "--atlas", captured / "atlas", "FROM models")
    assert_one_line(ran, 1, f"format {FORMAT + 1}", "upgrade")


def test_a_wrong_query_is_one_line(run: Run, done: Path) -> None:
    ran = run("sql", "--atlas", done / "atlas", "SELECT * FROM modells")
    assert ran.code == 2 and ran.err.startswith("error: ") and "Traceback" not in ran.err
    ran = run("sql", "--atlas", done / "atlas", "DROP TABLE models")
    assert ran.code == 2 and ran.err.startswith("error: ")


def test_given_up_work_ends_with_a_count(
    run: Run, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.stages import StageResult

    results = [
        StageResult("plan", 3),
        StageResult("extract", 1, ["shard a1: ShapeError: wide", "shard b2: x"], 0.5, {"bytes": 9}),
    ]
    monkeypatch.setattr(flows_run, "run", lambda *_: results)
    ran = run("run", fresh / "tiny.yaml")
    assert ran.code == 1
    assert ran.err == (
        "failed: 2 unit(s) of work were given up, the rest is visible; "
        "the first: shard a1: ShapeError: wide\n"
    )


def test_what_the_owner_should_decide_is_printed(
    run: Run, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.stages import StageResult

    results = [StageResult("map", 8, counts={"n_parts": 8}, notes=["pca [2-D]: a new fit is due"])]
    monkeypatch.setattr(flows_run, "run", lambda *_: results)
    ran = run("run", fresh / "tiny.yaml")
    assert ran.code == 0
    assert "8 parts" in ran.out and "pca [2-D]: a new fit is due" in ran.out


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "stopped; run the same command again to go on from here"),
        (RuntimeError("odd\nthing"), 1, "error: RuntimeError: odd (unexpected; QKATLAS_DEBUG=1 "),
        (OSError(errno.ENOSPC, "No space left", "/x"), 1, "error: /x: No space left; what is com"),
        (PermissionError(errno.EACCES, "denied", "/x"), 1, "error: /x: denied; choose a folder"),
        (ConnectionError("no answer"), 1, "error: ConnectionError: no answer (unexpected"),
        (ValueError("[red]odd[/]"), 1, "error: ValueError: [red]odd[/] (unexpected"),
    ],
)
def test_unexpected_trouble_is_one_line_too(
    run: Run,
    done: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    said: str,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(flows_run, "run", fail)
    ran = run("run", done / "tiny.yaml")
    assert ran.code == code
    assert ran.err.strip().startswith(said) and "Traceback" not in ran.err
    assert len(ran.err.strip().splitlines()) == 1
    if code == 1:
        monkeypatch.setenv("QKATLAS_DEBUG", "1")
        assert "Traceback (most recent call last)" in run("run", done / "tiny.yaml").err


def test_an_atlas_where_nothing_can_be_written_is_one_line(run: Run, fresh: Path) -> None:
    (fresh / "taken").write_text("a file")
    ran = run("run", fresh / "tiny.yaml", "--atlas", fresh / "taken" / "atlas")
    assert_one_line(ran, 2, "atlas: ", "taken is a file; choose a folder")


def test_a_full_disk_leaves_nothing_half_visible(tmp_path: Path, model: Path) -> None:
    config = make_run(tmp_path, model, 200, maps=[], measures=False)
    size = 12_000
    script = f"""
import resource, sys
from flows.config import load_config
from tests.flows.tiny_run import CaptureWorker, capture_here, find_work, plan_here
config = load_config({str(tmp_path / "tiny.yaml")!r})
worker = CaptureWorker(config, "text", 1, False)
plan_here(config, worker)
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, resource.RLIM_INFINITY))
try:
    capture_here(config, worker, find_work(config))
except OSError as error:
    from flows.cluster import is_full_disk
    assert is_full_disk(error), error
    sys.exit(7)
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 7, ended.stderr
    with Atlas(config.atlas) as atlas:
        assert atlas.sql("SELECT count(*) AS n FROM sequences").to_pylist() == [{"n": 0}]
    assert list(Path(config.atlas, "queries").rglob("s-*.parquet")) == []
    run_here(load_config(tmp_path / "tiny.yaml"))
    with Atlas(config.atlas) as atlas:
        assert atlas.sql("SELECT count(*) AS n FROM sequences").to_pylist() == [{"n": 200}]
