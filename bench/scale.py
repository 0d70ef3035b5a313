"""All figures of a corpus at scale, in one run: capture on a cluster, and the store below it.

`python -m bench.scale TEXT` runs `bench.scale_capture` and `bench.scale_store` one after the other,
each in a process of its own, so that neither's memory counts for the other, and sets their ratios
beside what is aimed at. The last line is JSON.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Aim:
    """A figure and what it should be."""

    name: str
    meaning: str
    least: float | None = None
    most: float | None = None

    def is_met(self, value: float) -> bool:
        """Whether a value is as good as it should be."""
        return not (
            (self.least is not None and value < self.least)
            or (self.most is not None and value > self.most)
        )

    @property
    def words(self) -> str:
        """What is aimed at, such as `≥ 1.7`."""
        return f"≤ {self.most:g}" if self.most is not None else f"≥ {self.least:g}"


AIMS = (
    Aim("two_workers_over_one", "tokens/s of two workers ÷ one", least=1.7),
    Aim("driver_share", "driver's share of all CPU time, 1,000 shards", most=0.05),
    Aim("driver_memory", "driver's peak memory, 100 shards ÷ 1", most=1.2),
    Aim("worker_memory", "worker's peak memory, 100 shards ÷ 1", most=1.2),
    Aim("unchanged_s", "run over 1,000 files without news, s", most=10),
    Aim("open_s", "opening 100,000 files and 10,000 commits, s", most=2),
    Aim("compact_ratio_to_copy", "speed of compaction ÷ copy, 10,000 files", least=0.5),
)


Text = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, help="Plain text, a paragraph a line.")
]


def measure(text: Text) -> None:
    """Run both parts, show the figures beside their aims, end with a line of JSON."""
    found = _run("bench.scale_capture", "measure", str(text)) | _run("bench.scale_store")
    table = Table("figure", "measured", "aim", "")
    for aim in AIMS:
        value = float(found[aim.name])
        table.add_row(aim.meaning, f"{value:.3g}", aim.words, "" if aim.is_met(value) else "missed")
    Console().print(table)
    figures = {aim.name: found[aim.name] for aim in AIMS}
    print(json.dumps({"bench": "scale", "cores": found["cores"], **figures}))


def _run(module: str, *arguments: str) -> dict[str, Any]:
    """What a bench says in its last line; the others are passed on."""
    command = [sys.executable, "-m", module, *arguments]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    print(told, end="", flush=True)
    found: dict[str, Any] = json.loads(told.splitlines()[-1])
    return found


if __name__ == "__main__":
    typer.run(measure)
