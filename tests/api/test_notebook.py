"""The example notebook: stored without outputs, and its cells run as a newcomer would run them.

The cells are run by Python itself, not by nbclient: that would bring a kernel, ZeroMQ and a
dozen packages more, for cells that use nothing of a notebook but their order.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.api.running_service import ROOT, running_service
from tests.flows.tiny_run import make_run, run_here, save_model

NOTEBOOK = ROOT / "examples" / "notebook.ipynb"

RUN = """
import json, sys
from pathlib import Path
names = {"__name__": "__main__"}
for cell in json.loads(Path(sys.argv[1]).read_text("utf-8"))["cells"]:
    if cell["cell_type"] == "code":
        exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
print(len(names["points"]), len(names["figure"].axes), names["attention"].weights.shape)
"""


@pytest.fixture(scope="module")
def notebook() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(NOTEBOOK.read_text("utf-8"))
    return content


def test_the_notebook_is_stored_without_outputs(notebook: dict[str, Any]) -> None:
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["outputs"] for cell in code] == [[]] * len(code)
    assert {cell["execution_count"] for cell in code} == {None}
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])


def test_the_notebook_runs_from_both_kinds_of_open_to_a_plot(tmp_path: Path) -> None:
    config = make_run(tmp_path, save_model(tmp_path / "model"))
    run_here(config)
    with running_service(config.atlas) as url:
        settings = {"QKATLAS_ATLAS": str(config.atlas), "QKATLAS_URL": url, "MPLBACKEND": "Agg"}
        ran = subprocess.run(
            [sys.executable, "-c", RUN, str(NOTEBOOK)],
            cwd=ROOT,
            env=os.environ | settings,
            capture_output=True,
            text=True,
        )
    assert ran.returncode == 0, ran.stderr
    n_points, n_axes, *shape = ran.stdout.split(maxsplit=2)
    assert int(n_points) > 100 and n_axes == "2" and shape
