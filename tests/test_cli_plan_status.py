import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import qkatlas
from tests.flows.tiny_run import make_run, run_here, save_model

ROOT = Path(__file__).parents[1]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Calls `qkatlas` with arguments; gives exit code, stdout and stderr."""
    monkeypatch.delenv("QKATLAS_ATLAS", raising=False)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["qkatlas", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            qkatlas.main()
        assert isinstance(end.value.code, int)
        return end.value.code, *capfd.readouterr()

    return run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """The folder of a finished run; only read."""
    folder = tmp_path_factory.mktemp("done")
    run_here(make_run(folder, model, maps=[], measures=False))
    return folder


def test_status_can_be_watched_until_nothing_waits(run: Run, done: Path) -> None:
    code, out, err = run("status", "--atlas", done / "atlas", "--watch", "--until-done")
    assert (code, err) == (0, "")
    (line,) = out.splitlines()
    assert re.search(r"^\d\d:\d\d:\d\d [\d,]+ of [\d,]+ tokens; nothing waits; 0 shards w", line)


def test_ctrl_c_ends_a_watch_with_exit_code_0(done: Path) -> None:
    command = [sys.executable, "-m", "qkatlas", "status", "--watch", "--every", "0.1"]
    environment = os.environ | {"QKATLAS_ATLAS": str(done / "atlas"), "PYTHONUNBUFFERED": "1"}
    watching = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert watching.stdout is not None
    lines = [watching.stdout.readline() for _ in range(2)]
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=30)
    assert (watching.returncode, err) == (0, b"")
    assert all(b"tokens; nothing waits" in line for line in lines)


def test_status_names_the_pages_that_are_known(
    run: Run, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:8265")
    for more in ([], ["--watch", "--until-done"]):
        _, out, _ = run("status", "--atlas", done / "atlas", *more)
        assert "Prefect: http://127.0.0.1:4200\nRay: http://127.0.0.1:8265\n" in out


def test_a_watch_of_nothing_is_one_line(run: Run, tmp_path: Path) -> None:
    code, out, err = run("status", "--atlas", tmp_path / "none", "--watch")
    assert (code, out) == (2, "")
    assert re.match(r"error: no atlas at .*: build one with `qkatlas run`, or name another\n", err)


def test_plan_for_a_cluster_after_a_probe(run: Run, tmp_path: Path, model: Path) -> None:
    make_run(tmp_path, model)
    options = ("--workers", 3, "--probe", "--probe-seconds", 0.2, "--price", 0.5)
    code, out, _ = run("plan", tmp_path / "tiny.yaml", *options)
    assert code == 0
    for part in ("mean file", "Probe: cpu", "worker-hours", "on 3 workers", "at 0.5 a GB"):
        assert part in out
    assert not (tmp_path / "atlas").exists()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("plan", "x.yaml", "--workers", 0), "greater than or equal to 1"),
        (("plan", "x.yaml", "--price", -1), "greater than or equal to 0"),
        (("plan", "x.yaml", "--probe-seconds", 0), "greater than or equal to 0.1"),
        (("status", "--every", 0), "greater than or equal to 0.1"),
        (("status", "--until-done"), "give --watch, too"),
    ],
)
def test_amounts_out_of_range_are_one_line(
    run: Run, command: tuple[object, ...], said: str
) -> None:
    code, out, err = run(*command)
    assert (code, out) == (2, "") and said in err and len(err.splitlines()) == 1
