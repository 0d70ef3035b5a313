"""The versions that go into the images: `make constraints-images` writes them anew.

Apart from `constraints.txt`, which is for this machine and its tests: a Ray node of either image
also needs Ray's dashboard and job server, and cuML holds numba, llvmlite and pandas back. All else
must be equal, as both images are nodes of one Ray cluster.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
BASE = ROOT / "constraints.txt"
LOCKS = ROOT / "infra" / "docker"

REQUIREMENTS: Mapping[str, Sequence[str]] = {
    "cpu": (".[s3]", "ray[default]"),
    "gpu": (".[gpu,s3]", "ray[default]"),
}
"""What an image installs; its Dockerfile says the same of the built wheel."""

HELD_BACK = frozenset({"numba", "llvmlite", "pandas"})
"""Packages of which cuML takes older versions than `constraints.txt` names."""

CUDA_PARTS = frozenset({"nvidia-cudnn-cu13", "nvidia-nccl-cu13", "libcuml-cu13"})
"""Packages without which torch or cuML would be a build for the CPU."""


OF_CUDA = ("nvidia-", "cuda-", "triton")
"""Beginnings of the names that torch asks for where an index gives its build with CUDA."""


def read_pins(path: Path) -> dict[str, str]:
    """Package names, in their canonical form, and the one version of each."""
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
    pairs = (line.partition("==") for line in lines if line.strip())
    return {canonicalize_name(name): version.strip() for name, _, version in pairs}


def find_problems(image: str, pins: Mapping[str, str], base: Mapping[str, str]) -> list[str]:
    """What makes a lock unfit for its image, a line each; empty where nothing does.

    Args:
        image: a key of `REQUIREMENTS`.
        pins: versions that were resolved for it.
        base: versions of `constraints.txt`.
    """
    free = HELD_BACK if image == "gpu" else frozenset()
    problems = [
        f"{name}: {version} here, {base[name]} in constraints.txt; a Ray cluster needs one version"
        for name, version in sorted(pins.items())
        if name in base and base[name] != version and name not in free
    ]
    if image == "gpu":
        problems += [
            f"{name} is missing: this index gave torch or cuML without CUDA; take another"
            for name in sorted(CUDA_PARTS - pins.keys())
        ]
    return problems


def resolve(image: str) -> dict[str, str]:
    """What pip would install into an image, without installing it.

    Raises:
        CalledProcessError: the versions cannot be had together; pip says which.
    """
    free = HELD_BACK if image == "gpu" else frozenset()
    held = [f"{name}=={version}" for name, version in read_pins(BASE).items() if name not in free]
    with tempfile.TemporaryDirectory() as folder:
        constraint, report = Path(folder, "held.txt"), Path(folder, "report.json")
        constraint.write_text("\n".join(held), "utf-8")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        options = [
            "--dry-run",
            "--ignore-installed",
            "--report",
            str(report),
            "-c",
            str(constraint),
        ]
        subprocess.run([*pip, *options, *REQUIREMENTS[image]], cwd=ROOT, check=True)
        pins = _pins_of(json.loads(report.read_text("utf-8")))
    return {name: pins[name] for name in pins if image == "gpu" or not name.startswith(OF_CUDA)}


def _pins_of(report: dict[str, Any]) -> dict[str, str]:
    """Names and versions of pip's report, without our own package and torch's mark of a build."""
    found = (each["metadata"] for each in report["install"])
    pins = {canonicalize_name(each["name"]): each["version"].partition("+")[0] for each in found}
    return {name: pins[name] for name in sorted(pins) if name != "qkatlas"}


def main() -> None:
    """Write the locks of both images; on trouble say what it is and leave the old ones."""
    base = read_pins(BASE)
    locks = {image: resolve(image) for image in REQUIREMENTS}
    problems = [each for image, pins in locks.items() for each in find_problems(image, pins, base)]
    if problems:
        sys.exit("\n".join(problems))
    for image, pins in locks.items():
        text = "".join(f"{name}=={version}\n" for name, version in pins.items())
        (LOCKS / f"constraints-{image}.txt").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
