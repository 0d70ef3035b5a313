"""Deployment files are valid, and a typo anywhere in them is found without a cluster."""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from tests.infra.offline_checks import (
    BUILT_IN,
    COMPOSE,
    DOCKERFILES,
    KUBERAY,
    KUBERNETES,
    Document,
    Place,
    find_fault,
    find_hadolint_faults,
    find_pod_fault,
    load,
    parse,
)

FILES = [COMPOSE, *BUILT_IN, *KUBERAY]

OF_THE_USER = {
    "annotations",
    "args",
    "data",
    "depends_on",
    "environment",
    "labels",
    "limits",
    "matchLabels",
    "networks",
    "rayStartParams",
    "requests",
    "selector",
    "services",
    "volumes",
}
"""Mappings whose keys are names of the user's or of another program's; no schema knows them."""

Change = Callable[[dict[str, Any], str], None]


def misspell(mapping: dict[str, Any], key: str) -> None:
    """Leave out a key's last letter; the order stays."""
    items = list(mapping.items())
    mapping.clear()
    mapping |= {name[:-1] if name == key else name: value for name, value in items}


def nest(mapping: dict[str, Any], key: str) -> None:
    """Give a key a value of a wrong type."""
    mapping[key] = "text" if isinstance(mapping[key], dict) else {"one": {"two": 1}}


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Where the keys of a document are."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, below in pairs:
        if isinstance(value, dict):
            yield (*place, key)
        if isinstance(below, dict | list):
            yield from places(below, (*place, key))


def changed(document: Document, place: Place, change: Change) -> Document:
    """A copy of a document with one change."""
    copy: Any = json.loads(json.dumps(document))
    at = copy
    for step in place[:-1]:
        at = at[step]
    change(at, str(place[-1]))
    return dict(copy)


def split(document: Document) -> list[Document]:
    """A document; a compose file as one for each service, as the whole takes long to check."""
    if "services" not in document:
        return [document]
    shared = {key: value for key, value in document.items() if key[:2] != "x-"}
    services = [{"services": {name: each}} for name, each in document["services"].items()]
    return [shared | services[0], *services[1:]]


def is_typed(place: Place, change: Change) -> bool:
    """Whether a schema knows this key, or the type of its value."""
    if change is nest and place[-1] == "build":
        return False  # compose takes the name of a folder, too
    return change is nest or len(place) < 2 or place[-2] not in OF_THE_USER


@cache
def seeds(path: Path, every: bool) -> list[tuple[Document, Place]]:
    """Documents and places to change; not every one, but each field below each parent once."""
    found: dict[object, tuple[Document, Place]] = {}
    parts = [part for document in load(path) for part in split(document)]
    for number, document in enumerate(parts):
        for place in places(document):
            names = tuple(step for step in place if isinstance(step, str))
            found.setdefault((number, names if every else names[-2:]), (document, place))
    return list(found.values())


def find_missed(path: Path, change: Change, every: bool) -> list[Place]:
    """Places of a file where a change is not refused."""
    tried = [(document, place) for document, place in seeds(path, every) if is_typed(place, change)]
    assert len(tried) > 10
    return [place for document, place in tried if not find_fault(changed(document, place, change))]


def name(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_is_valid(path: Path) -> None:
    documents = load(path)
    assert documents
    assert [fault for document in documents if (fault := find_fault(document))] == []


@pytest.mark.parametrize("path", BUILT_IN, ids=name)
def test_kubernetes_validate_itself_agrees(path: Path) -> None:
    for document in load(path):
        assert kubernetes_validate.validate(document, KUBERNETES, strict=True) == KUBERNETES


@pytest.mark.parametrize("change", [misspell, nest])
@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_typo_in_any_field_is_refused(path: Path, change: Change) -> None:
    assert find_missed(path, change, every=False) == []


@pytest.mark.chaos
@pytest.mark.parametrize("change", [misspell, nest])
@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_typo_in_any_place_is_refused(path: Path, change: Change) -> None:
    assert find_missed(path, change, every=True) == []


POD = ("spec", "workerGroupSpecs", 1, "template", "spec")
CONTAINER = (*POD, "containers", 0)


@pytest.mark.parametrize(
    "place",
    [
        ("spec", "enableInTreeAutoscaling"),
        ("spec", "workerGroupSpecs", 1, "maxReplicas"),
        ("spec", "workerGroupSpecs", 1, "template", "metadata", "labels"),
        (*POD, "tolerations", 0, "operator"),
        (*POD, "volumes", 0, "emptyDir", "sizeLimit"),
        (*CONTAINER, "image"),
        (*CONTAINER, "env", 0, "valueFrom", "secretKeyRef"),
        (*CONTAINER, "resources", "limits"),
        (*CONTAINER, "securityContext", "capabilities", "drop"),
        (*CONTAINER, "livenessProbe", "httpGet", "path"),
    ],
    ids=lambda place: ".".join(map(str, place)),
)
def test_a_typo_in_the_pods_of_a_ray_cluster_is_refused(place: Place) -> None:
    cluster, job = (load(path)[0] for path in KUBERAY)
    assert find_fault(changed(cluster, place, misspell))
    assert find_fault(changed(job, ("spec", "rayClusterSpec", *place[1:]), misspell))


def test_pods_of_kuberays_kinds_are_checked_without_its_definitions() -> None:
    for document in (load(path)[0] for path in KUBERAY):
        assert find_pod_fault(document) is None
    wrong = changed(load(KUBERAY[0])[0], (*CONTAINER, "securityContext"), misspell)
    assert "securityContex" in str(find_pod_fault(wrong))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_line_that_stands_too_far_in_or_out_is_refused(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines(keepends=True)
    good = load(path)
    numbers = [n for n, line in enumerate(lines) if line.strip() and line.strip()[0] not in "#-"]
    moves = [
        (n, new) for n in numbers[::3] for new in ("  " + lines[n], lines[n].removeprefix("  "))
    ]
    missed = []
    for number, new in moves:
        try:
            documents = parse("".join([*lines[:number], new, *lines[number + 1 :]]))
        except yaml.YAMLError:
            continue
        if documents != good and not any(map(find_fault, documents)):
            missed.append((number + 1, new))
    assert missed == []


def test_list_items_that_run_together_are_refused() -> None:
    text = COMPOSE.read_text("utf-8")
    moved = text.replace("      - --port=8765\n", "        - --port=8765\n")
    assert moved != text
    assert "two lines in one" in str(find_fault(parse(moved)[0]))


@pytest.mark.parametrize("version", ["v2", "apps/v1beta3", "ray.io/v2", "ray.io/v1/v1", ""])
@pytest.mark.parametrize("path", [*BUILT_IN, *KUBERAY], ids=name)
def test_a_version_that_there_is_not_is_refused(path: Path, version: str) -> None:
    for document in load(path):
        assert find_fault(document | {"apiVersion": version})
        assert find_fault(document | {"kind": document["kind"] + "s"})


def test_a_key_that_comes_twice_is_refused() -> None:
    with pytest.raises(yaml.YAMLError, match="a key comes twice"):
        parse("spec:\n  replicas: 1\n  replicas: 2\n")


TYPOS = {
    "FRUM python:3.11": "DL1000",
    "FROM python AS last": "DL3006",
    "FROM python:latest": "DL3007",
    "RUN apt-get update && apt-get install -y curl": "DL3008",
    "RUN pip install ray": "DL3013",
    "RUN cd /opt && ls": "DL3003",
    "USER root": "DL3002",
    "MAINTAINER nobody": "DL4000",
    "WORKDIR relative": "DL3000",
    "COPPY a b": "DL1000",
    "ENTRYPOINT qkatlas": "DL3025",
    "EXPOSE 87650": "DL3011",
}
"""Lines to add at the end of a Dockerfile, and the rule of hadolint that refuses each."""


def test_hadolint_has_nothing_to_say_of_the_dockerfiles() -> None:
    assert find_hadolint_faults(*DOCKERFILES) == {path: [] for path in DOCKERFILES}


def test_typos_in_dockerfiles_are_refused(tmp_path: Path) -> None:
    wanted = {}
    for path in DOCKERFILES:
        for number, (line, rule) in enumerate(TYPOS.items()):
            copy = tmp_path / f"{path.name}-{number}"
            copy.write_text(path.read_text("utf-8") + line + "\n", "utf-8")
            wanted[copy] = rule
    found = find_hadolint_faults(*wanted)
    assert {path.name: rule for path, rule in wanted.items() if rule not in found[path]} == {}
