import json
import logging
import os
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.log import (
    LEVELS,
    bind,
    configure_logs,
    current_run,
    log_environment,
    log_event,
    log_run,
)
from store.errors import ConfigError

ROOT = Path(__file__).parents[2]

WRITER = """
import sys
from flows.log import bind, log_event
bind(worker=sys.argv[1])
for number in range(int(sys.argv[2])):
    log_event("shard_done", number=number, reasons=["x" * 3000] * 10)
"""


@pytest.fixture(autouse=True)
def unbound(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is bound before a test, nor after it."""
    for name in ("QKATLAS_LOG", "QKATLAS_RUN"):
        monkeypatch.delenv(name, raising=False)
    with bind(run=None, worker=None):
        yield


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the lines of this test go."""
    path = tmp_path / "run.jsonl"
    monkeypatch.setenv("QKATLAS_LOG", str(path))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_line_says_when_how_grave_what_and_whose(log: Path) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    with bind(run="r1", worker="node:7:cpu"):
        log_event("shard_done", shard="ab", n_tokens=12, reason=None)
    (line,) = read(log)
    assert before <= datetime.fromisoformat(line.pop("time")) <= datetime.now(UTC)
    assert line == {
        "level": "info",
        "event": "shard_done",
        "run": "r1",
        "worker": "node:7:cpu",
        "shard": "ab",
        "n_tokens": 12,
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }


def test_nothing_is_written_where_logs_are_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    configure_logs()
    log_event("shard_done", shard="ab")
    assert (list(tmp_path.iterdir()), *capfd.readouterr()) == ([], "", "")


@pytest.mark.parametrize(("event", "level"), sorted(LEVELS.items()))
def test_trouble_has_a_level_of_its_own(log: Path, event: str, level: int) -> None:
    log_event(event)
    assert read(log)[0]["level"] == logging.getLevelName(level).lower() != "info"


def test_fields_of_ours_are_not_replaced(log: Path) -> None:
    log_event("commit", time="never", level="fatal")
    (line,) = read(log)
    assert line["level"] == "info" and line["time"] != "never"


def test_what_is_bound_holds_in_every_thread_until_it_is_taken_away(log: Path) -> None:
    with bind(run="r1"), bind(stage="extract"), ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda n: log_event("commit", n=n), range(4)))
    log_event("commit")
    *within, after = read(log)
    assert Counter((line["run"], line["stage"]) for line in within) == {("r1", "extract"): 4}
    assert "run" not in after and "stage" not in after


def test_lines_of_processes_and_threads_never_mix(log: Path) -> None:
    commands = [[sys.executable, "-c", WRITER, f"w{n}", "40"] for n in range(3)]
    running = [subprocess.Popen(command, cwd=ROOT) for command in commands]
    with ThreadPoolExecutor(8) as pool:
        long = ["y" * 3000] * 10  # 30 kB a line, which a buffered stream would cut
        list(pool.map(lambda _: log_event("shard_done", worker="here", reasons=long), range(200)))
    assert [process.wait() for process in running] == [0, 0, 0]
    lines = read(log)
    assert Counter(line["worker"] for line in lines) == {"w0": 40, "w1": 40, "w2": 40, "here": 200}
    assert {"".join(line["reasons"]) for line in lines} == {"x" * 30_000, "y" * 30_000}


def test_a_forked_process_writes_its_own_lines(log: Path) -> None:
    log_event("before")
    code = "import os; from flows.log import log_event; log_event('a'); os.fork(); log_event('b')"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True)
    lines = read(log)
    assert Counter(line["event"] for line in lines) == {"before": 1, "a": 1, "b": 2}
    assert len({line["pid"] for line in lines}) == 3


def test_a_file_that_was_moved_away_is_followed_by_a_new_one(log: Path) -> None:
    log_event("first")
    log.rename(log.with_suffix(".1"))
    log_event("second")
    assert [line["event"] for line in read(log)] == ["second"]


def test_a_dash_means_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QKATLAS_LOG", "-")
    log_event("commit", table="shards")
    out, err = capsys.readouterr()
    assert out == "" and json.loads(err)["table"] == "shards"


def test_secrets_of_the_environment_stay_out(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "short")
    log_event("shard_failed", reason="denied: wJalrXUtnFEMI/K7MDENG", token="short")
    text = log.read_text()
    assert "wJalr" not in text and "short" not in text
    assert read(log)[0]["reason"] == "denied: [hidden]"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: folder / "none" / "run.jsonl", "No such file or directory"),
        (lambda folder: folder, "Is a directory"),
        (lambda folder: Path("/proc/none.jsonl"), "No such file or directory"),
    ],
)
def test_a_log_that_cannot_be_written_stops_before_the_start(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], Path],
    reason: str,
) -> None:
    where = spoil(tmp_path)
    monkeypatch.setenv("QKATLAS_LOG", str(where))
    expected = rf"QKATLAS_LOG: {re.escape(str(where))} cannot be written \({reason}\); name a file"
    with pytest.raises(ConfigError, match=expected):
        configure_logs()
    with pytest.raises(ConfigError, match=expected), log_run():
        raise AssertionError("it must not start")


def test_an_object_store_is_no_place_for_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QKATLAS_LOG", "s3://bucket/run.jsonl")
    with pytest.raises(ConfigError, match="is no file of this machine; name a path, or - for"):
        configure_logs()


def test_a_log_that_breaks_later_is_told_once_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    monkeypatch.setenv("QKATLAS_LOG", str(folder / "run.jsonl"))
    configure_logs()
    log_event("first")
    (folder / "run.jsonl").unlink()
    folder.rmdir()
    log_event("second")
    log_event("third")
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(r"run\.jsonl is not written any more: .*No such file", line)


def test_a_run_has_an_id_of_its_own_and_says_how_it_ended(log: Path) -> None:
    with log_run(atlas="here"):
        log_event("commit")
        first = current_run()
    with pytest.raises(ValueError, match="spoilt"), log_run(atlas="there"):
        raise ValueError("spoilt")
    assert current_run() is None
    *good, start, end = read(log)
    assert [line["event"] for line in good] == ["run_started", "commit", "run_done"]
    assert {line["run"] for line in good} == {first}
    assert good[0]["atlas"] == "here" and good[-1]["seconds"] >= 0
    assert (end["event"], end["level"], end["reason"]) == (
        "run_failed",
        "error",
        "ValueError: spoilt",
    )
    assert start["run"] == end["run"] != first


def test_a_process_keeps_the_run_that_its_driver_gave_it(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QKATLAS_RUN", "of-the-driver")
    configure_logs()
    log_event("worker_started")
    assert read(log)[0]["run"] == "of-the-driver"


def test_every_machine_may_have_a_file_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QKATLAS_LOG", str(tmp_path / "run-{host}.jsonl"))
    log_event("commit")
    assert [path.name for path in tmp_path.iterdir()] == [f"run-{socket.gethostname()}.jsonl"]


def test_workers_get_no_log_where_it_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert log_environment() == {}
    monkeypatch.setenv("QKATLAS_LOG", "-")
    assert log_environment() == {"QKATLAS_LOG": "-"}
