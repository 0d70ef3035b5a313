import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import qkatlas
from tests.flows.test_observability_page import ROWS
from tests.flows.tiny_run import make_run, save_model

EVERY_LINE = {"time", "level", "event", "run", "host", "pid"}

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Calls `qkatlas` with arguments; gives exit code and stderr."""

    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["qkatlas", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            qkatlas.main()
        assert isinstance(end.value.code, int)
        return end.value.code, capfd.readouterr().err

    return run


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A folder with a configuration of four shards that was never run."""
    model = save_model(tmp_path / "model")
    capture = {"max_length": 32, "shard_rows": 10}
    make_run(tmp_path, model, capture=capture, maps=[], measures=False)
    return tmp_path


def by_event(lines: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == event]


@pytest.mark.slow
def test_a_run_and_its_workers_write_one_log(
    run: Run, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fresh)
    monkeypatch.setenv("QKATLAS_LOG", "run.jsonl")
    monkeypatch.setenv("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", str(fresh))  # the atlas's address holds it
    assert run("run", "tiny.yaml")[0] == 0
    text = (fresh / "run.jsonl").read_text("utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert len({line["run"] for line in lines}) == 1
    assert str(fresh) not in text and "[hidden]" in text
    counts = Counter(line["event"] for line in lines)
    assert (lines[0]["event"], lines[-1]["event"]) == ("run_started", "run_done")
    assert counts["shard_started"] == counts["shard_done"] == 4
    assert counts["stage_started"] == counts["stage_done"] == 5
    started, done = (by_event(lines, f"shard_{word}") for word in ("started", "done"))
    assert {line["shard"]: line["worker"] for line in started} == {
        line["shard"]: line["worker"] for line in done
    }
    assert os.getpid() not in {line["pid"] for line in started}
    assert {line["pid"] for line in done} == {os.getpid()}
    for line in lines:
        documented = set(re.findall(r"`(\w+)`", ROWS[line["event"]]["fields"]))
        assert set(line) - EVERY_LINE <= documented, line
        assert line["level"] == ROWS[line["event"]]["level"]


def test_a_log_that_cannot_be_written_ends_a_run_before_it_starts(
    run: Run, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QKATLAS_LOG", str(fresh / "none" / "run.jsonl"))
    code, err = run("run", fresh / "tiny.yaml")
    assert code == 2 and not (fresh / "atlas").exists()
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert re.search(r"error: QKATLAS_LOG: .*run\.jsonl cannot be written \(No such file", line)
