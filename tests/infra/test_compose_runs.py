"""Runs in compose: where they are typed, and what becomes of their service when its node dies."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.infra.offline_checks import COMPOSE, INFRA, load

SERVICES = load(COMPOSE)[0]["services"]
WORKER = SERVICES["prefect-worker"]


def write_commands(folder: Path, **scripts: str) -> dict[str, str]:
    """Commands that stand before the machine's own, and the environment that finds them."""
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "FOLDER": str(folder)}


def start_worker(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """The service's command as compose hands it to the shell, which knows `$$` as `$`."""
    words = [*WORKER["entrypoint"], *WORKER["command"]]
    return subprocess.Popen(
        [word.replace("$$", "$") for word in words], env=environment, start_new_session=True
    )


def test_a_typed_run_has_ray_and_the_server_on_which_runs_queue() -> None:
    text = (INFRA / "README.md").read_text("utf-8")
    (service,) = re.findall(r"exec (?:--\S+ \S+ )*(\S+) \\\n  qkatlas run", text)
    assert {"RAY_ADDRESS", "PREFECT_API_URL"} <= SERVICES[service]["environment"].keys()
    assert {"prefect", "ray"} <= set(SERVICES[service]["networks"])
    assert any("/srv/qkatlas/runs" in each for each in SERVICES[service]["volumes"])


@pytest.mark.parametrize(
    ("prefect", "ended"),
    [
        ("exec tail -f /dev/null", signal.SIGTERM),
        ("trap '' TERM; while :; do /bin/sleep 0.1; done", signal.SIGKILL),
    ],
)
def test_a_worker_whose_node_died_ends_so_that_it_is_started_anew(
    tmp_path: Path, prefect: str, ended: int
) -> None:
    """It lives through seven answers missed, and a good one begins the count anew."""
    answers = 'echo >>"$FOLDER/asked"; test "$(wc -l <"$FOLDER/asked")" -eq 8'
    environment = write_commands(
        tmp_path,
        ray="exit 0",
        python=answers,
        sleep='test "$1" -lt 300 || /bin/sleep 1',
        prefect=prefect,
    )
    process = start_worker(environment)
    try:
        assert process.wait(60) == -ended
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert len((tmp_path / "asked").read_text().splitlines()) == 16
    assert WORKER["restart"] == "unless-stopped"


def test_a_worker_that_cannot_join_ends_at_once(tmp_path: Path) -> None:
    environment = write_commands(tmp_path, ray="exit 3", prefect="exec tail -f /dev/null")
    assert start_worker(environment).wait(60) == 1


@pytest.mark.parametrize("name", ["ray-worker", "ray-gpu-worker"])
def test_a_node_takes_no_more_than_its_share(name: str) -> None:
    limits = SERVICES[name]["deploy"]["resources"]["limits"]
    assert limits.keys() == {"cpus", "memory"}
