"""Dockerfiles and the versions that they install agree with the tree and with each other."""

import fnmatch
import re
import tomllib
from pathlib import Path

import pytest

from infra import image_locks
from tests.infra.offline_checks import DOCKERFILES, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
IMAGES = sorted(image_locks.REQUIREMENTS)
BASE = image_locks.read_pins(image_locks.BASE)


def instructions(path: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile and what follows each, lines joined, comments left out."""
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = (line.partition(" ") for line in joined.splitlines() if line.strip())
    return [(word, rest.strip()) for word, _, rest in pairs]


def values(path: Path, word: str) -> list[str]:
    return [rest for given, rest in instructions(path) if given == word]


def is_sent(name: str) -> bool:
    """Whether .dockerignore lets a path of the tree into a build."""
    sent = True
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!").removeprefix("**/")
        above = [name, *map(str, Path(name).parents)]
        names = [Path(each).name for each in above] if "**/" in line else above
        if any(fnmatch.fnmatchcase(each, pattern) for each in names):
            sent = line.startswith("!")
    return sent


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_what_a_dockerfile_copies_is_there_and_sent(path: Path) -> None:
    copied = [rest.split()[:-1] for rest in values(path, "COPY") if not rest.startswith("--from")]
    sources = [source for each in copied for source in each]
    assert {"api", "flows", "pipeline", "store", "qkatlas.py", "pyproject.toml"} <= set(sources)
    assert [name for name in sources if not (ROOT / name).exists() or not is_sent(name)] == []


def test_a_build_is_sent_no_data_and_no_secret() -> None:
    for name in (".git/config", "infra/.env", "build/demo-atlas/queries", "tests/test_words.py"):
        assert not is_sent(name)
    assert not is_sent("api/viewer/node_modules/preact/index.js")
    assert not is_sent("api/viewer/dist/index.html")
    assert is_sent("api/viewer/src/main.tsx")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_installs_extras_that_there_are_at_versions_of_its_lock(path: Path) -> None:
    kind = path.suffix[1:]
    (install,) = (rest for rest in values(path, "RUN") if "qkatlas[" in rest)
    found = re.search(r'"qkatlas\[([\w,]+)\] @ [^"]+" "ray\[default\]"', install)
    assert found
    assert set(found[1].split(",")) <= set(PROJECT["optional-dependencies"])
    assert image_locks.REQUIREMENTS[kind] == (f".[{found[1]}]", "ray[default]")
    assert f"infra/docker/constraints-{kind}.txt /locks/constraints.txt" in values(path, "COPY")
    assert "--constraint /locks/constraints.txt" in install


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_runs_as_nobody_and_holds_no_tool_of_the_build(path: Path) -> None:
    assert values(path, "USER") == ["10001:10001"]
    assert any("useradd --uid 10001 " in rest for rest in values(path, "RUN"))
    assert values(path, "ENTRYPOINT") == ['["qkatlas"]']
    assert "qkatlas" in PROJECT["scripts"]
    assert any("pip uninstall --yes pip setuptools wheel" in rest for rest in values(path, "RUN"))
    assert any("venv --without-pip /opt/qkatlas" in rest for rest in values(path, "RUN"))
    assert f"--tag qkatlas-{path.suffix[1:]}:{PROJECT['version']} ." in path.read_text("utf-8")


def test_both_images_have_the_same_python_which_ray_asks_for() -> None:
    bases = {path.suffix[1:]: values(path, "FROM") for path in DOCKERFILES}
    cpu, gpu = ({each.split()[0] for each in bases[kind]} for kind in ("cpu", "gpu"))
    (python,) = cpu
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", python)
    assert python in gpu
    assert any(re.match(r"nvidia/cuda:13\.\d\.\d-base-", each) for each in gpu)


@pytest.mark.parametrize("image", IMAGES)
def test_a_lock_fits_its_image_and_the_tests(image: str) -> None:
    pins = image_locks.read_pins(image_locks.LOCKS / f"constraints-{image}.txt")
    assert image_locks.find_problems(image, pins, BASE) == []
    wanted = {"torch", "ray", "grpcio", "aiohttp-cors", "prefect", "asyncpg", "s3fs", "deltalake"}
    assert wanted <= pins.keys()
    assert not {"pytest", "moto", "ruff"} & pins.keys()


def test_torch_and_cuml_share_one_cuda() -> None:
    pins = image_locks.read_pins(image_locks.LOCKS / "constraints-gpu.txt")
    assert pins["torch"] == BASE["torch"]
    assert pins["cuml-cu13"].split(".")[:2] == pins["libcuml-cu13"].split(".")[:2]
    assert {pins["cuda-toolkit"].split(".")[0], pins["nvidia-cuda-runtime"].split(".")[0]} == {"13"}
    assert not [name for name in pins if name.endswith(("-cu11", "-cu12"))]


def test_a_lock_with_another_ray_or_without_cuda_is_refused() -> None:
    pins = image_locks.read_pins(image_locks.LOCKS / "constraints-gpu.txt")
    (said,) = image_locks.find_problems("gpu", pins | {"ray": "2.1.0"}, BASE)
    assert re.match(r"ray: 2\.1\.0 here, .* in constraints\.txt; a Ray cluster needs one", said)
    del pins["nvidia-cudnn-cu13"]
    assert image_locks.find_problems("gpu", pins, BASE) == [
        "nvidia-cudnn-cu13 is missing: this index gave torch or cuML without CUDA; take another"
    ]
    assert image_locks.find_problems("cpu", {"numba": "0.64.0"}, BASE) != []
    assert image_locks.find_problems("gpu", pins | {"numba": "0.1"}, BASE)[1:] == []


def test_a_lock_holds_plain_versions_under_canonical_names() -> None:
    report = [("Torch", "2.13.0+cpu"), ("ruamel.yaml", "0.19.1"), ("qkatlas", "0.1.0")]
    install = [{"metadata": {"name": name, "version": version}} for name, version in report]
    assert image_locks._pins_of({"install": install}) == {
        "ruamel-yaml": "0.19.1",
        "torch": "2.13.0",
    }
