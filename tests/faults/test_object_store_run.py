"""A whole run, as a user starts it, into an atlas on a store that fails a fifth of all requests."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.config import load_config
from infra.fault_proxy import Fault, spread_errors
from store.scan import read_files
from store.snapshot import Snapshot
from tests.faults.broken_store import BUCKET, ROOT, run_site
from tests.flows.tiny_run import make_lines, run_here, save_model, write_config, write_lines

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(900)]

N_RUNS = 3
"""How often the command may be given: it goes on where it stopped."""

FREE = {"shard_id", "worker", "seconds", "attempt", "generation"}


def run(config: Path) -> subprocess.CompletedProcess[str]:
    """`qkatlas run` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "qkatlas", "run", str(config)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )


def captured(uri: str) -> dict[str, list[dict[str, Any]]]:
    """All that was captured, but for how it came about."""
    snapshot = Snapshot.load(uri)
    found = {}
    for table in ("queries", "keys", "tokens", "sequences"):
        found[table] = read_files(table, snapshot.files(table)).to_pylist()
    found["shards"] = [
        {name: value for name, value in row.items() if name not in FREE | {"bytes", "n_files"}}
        for row in snapshot.newest_shards().to_pylist()
    ]
    found["maps"] = snapshot.newest_maps().select(["layer", "head", "part", "status"]).to_pylist()
    return {table: sorted(rows, key=repr) for table, rows in found.items()}


def test_a_run_completes_while_a_fifth_of_all_requests_fail(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model")
    write_lines(tmp_path / "corpus.txt", make_lines(40))
    changes: dict[str, Any] = {"capture": {"max_length": 32, "shard_rows": 10}, "measures": False}
    run_here(load_config(write_config(tmp_path, model, **changes)))
    undisturbed = captured(str(tmp_path / "atlas"))
    uri = f"s3://{BUCKET}/run/atlas"
    config = write_config(tmp_path, model, **changes, atlas=uri)
    with run_site(tmp_path / "site") as site:
        site.proxy.set(*spread_errors(0.2, 0), Fault("silence", 0.01, times=3))
        for _ in range(N_RUNS):
            done = run(config)
            if done.returncode == 0:
                break
        said = done.stdout + done.stderr
        counts = site.proxy.counts()
        site.proxy.set()
        assert done.returncode == 0, said
        assert "Traceback" not in said
        assert captured(uri) == undisturbed
    assert min(counts[f"error {status}"] for status in (500, 503, 429)) > 5
