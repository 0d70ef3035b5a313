"""What a cluster would say of a deployment file, asked without one.

Built-in kinds are held against Kubernetes' own schemas, KubeRay's kinds against its definitions, a
compose file against the specification of compose; all of them closed, so that a field nobody
knows is an error. Dockerfiles go through hadolint.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from check_jsonschema.builtin_schemas import (  # type: ignore[import-untyped]
    get_builtin_schema,
)
from referencing import Registry, Resource

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
DEFINITIONS = ROOT.parent / "shared" / "data" / "kuberay"
"""KubeRay's custom resource definitions; no part of the project, so tests skip without them."""

KUBERNETES = "1.34"
SCHEMAS = (
    Path(kubernetes_validate.__file__).parent
    / "kubernetes-json-schema"
    / f"v{KUBERNETES}.0-local-strict"
)
COMPOSE = INFRA / "compose.yaml"
BUILT_IN = sorted((INFRA / "kubernetes").glob("*.yaml"))
KUBERAY = sorted((INFRA / "kuberay").glob("*.yaml"))
DOCKERFILES = sorted((INFRA / "docker").glob("Dockerfile.*"))

Document = dict[str, Any]
Place = tuple[str | int, ...]


class _Loader(yaml.CSafeLoader):
    """YAML in which a key may come once: a second one is a line that stands too far out."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        given = [key.value for key, _ in node.value]
        if len(given) != len({str(each) for each in given}):
            raise yaml.YAMLError(f"a key comes twice: {node.start_mark}")
        return super().construct_mapping(node, deep)


def parse(text: str) -> list[Document]:
    """The documents of a YAML text, aliases and merges resolved.

    Raises:
        YAMLError: it is none.
    """
    try:
        # By way of JSON, so that changing one place leaves its aliases alone.
        return [json.loads(json.dumps(each)) for each in yaml.load_all(text, _Loader)]
    except ValueError as error:
        raise yaml.YAMLError(f"an alias within itself: {error}") from error


def load(path: Path) -> list[Document]:
    """The documents of a file."""
    return parse(path.read_text("utf-8"))


def find_fault(document: object) -> str | None:
    """What the schema of a document's kind says against it; None where nothing does."""
    if not isinstance(document, dict):
        return "no document"
    if run_together := _find_run_together(document):
        return run_together
    if "services" in document:
        return _first(compose_schema(), document)
    if str(document.get("apiVersion", "")).startswith("ray.io/"):
        return _find_kuberay_fault(document)
    return _find_built_in_fault(document)


def find_hadolint_faults(*paths: Path) -> dict[Path, list[str]]:
    """What hadolint says of Dockerfiles, the codes of its rules for each."""
    hadolint = Path(sys.executable).parent / "hadolint"
    said = subprocess.run(
        [hadolint, "--format", "json", "--no-fail", *paths], capture_output=True, check=True
    )
    faults: dict[Path, list[str]] = {path: [] for path in paths}
    for each in json.loads(said.stdout):
        faults[Path(each["file"])].append(each["code"])
    return faults


def pod_templates(document: Any, place: Place = ()) -> Iterator[tuple[Place, Document]]:
    """The pods that a document asks for, with their places: mappings with `spec.containers`."""
    below = document.items() if isinstance(document, dict) else enumerate(document)
    if isinstance(document, dict) and "containers" in (document.get("spec") or {}):
        yield place, document
        return
    for key, value in below:
        if isinstance(value, dict | list):
            yield from pod_templates(value, (*place, key))


def containers(document: Document) -> Iterator[Document]:
    """The containers of all pods of a document, those that start first included."""
    for _, pod in pod_templates(document):
        yield from pod["spec"].get("initContainers", ())
        yield from pod["spec"]["containers"]


def _find_run_together(value: object) -> str | None:
    """A list's text that swallowed the next line, as it does where that stands too far in."""
    if isinstance(value, list):
        texts = [each for each in value if isinstance(each, str)]
        wrong = next((text for text in texts if " - " in text or "\n" in text), None)
        if wrong is not None:
            return f"two lines in one: {wrong!r}"
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((fault for fault in map(_find_run_together, below) if fault), None)


@cache
def compose_schema() -> Any:
    """The specification of compose as a validator."""
    return jsonschema.Draft202012Validator(get_builtin_schema("vendor.compose-spec"))


@cache
def kuberay_schemas() -> dict[tuple[str, str], Any]:
    """Validators by (apiVersion, kind), of the definitions; closed.

    Skips the test where they are not at hand.
    """
    paths = sorted(DEFINITIONS.glob("*.yaml"))
    if not paths:
        pytest.skip("needs KubeRay's definitions in ../shared")
    found = {}
    for path in paths:
        spec = yaml.load(path.read_text("utf-8"), yaml.CSafeLoader)["spec"]
        for version in spec["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            key = f"{spec['group']}/{version['name']}", spec["names"]["kind"]
            found[key] = jsonschema.Draft202012Validator(_close(schema))
    return found


def _close(schema: Any) -> Any:
    """The schema, with every mapping that lists its fields refusing others."""
    if isinstance(schema, list):
        return [_close(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _close(value) for key, value in schema.items()}
    is_schema = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if is_schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    return closed


def _find_kuberay_fault(document: Document) -> str | None:
    schema = kuberay_schemas().get((document["apiVersion"], str(document.get("kind"))))
    if schema is None:
        return f"no kind {document.get('kind')} in {document['apiVersion']}"
    return _first(schema, document) or find_pod_fault(document)


def find_pod_fault(document: Document) -> str | None:
    """What Kubernetes says against the names and pods of a document of another's kind.

    The definitions of such kinds leave `metadata` open.
    """
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": document.get("metadata")}
    pods = [pod for _, pod in pod_templates(document)]
    parts = [config_map, *({**pod, "apiVersion": "v1", "kind": "Pod"} for pod in pods)]
    faults = map(_find_built_in_fault, parts)
    return next((fault for fault in faults if fault), None)


def _find_built_in_fault(document: Document) -> str | None:
    kind, version = str(document.get("kind")), str(document.get("apiVersion"))
    group, _, name = version.rpartition("/")
    prefix = f"{group.partition('.')[0]}-" if group else ""
    schema = _built_in_schema(f"{kind.lower()}-{prefix}{name}.json")
    return f"no kind {kind} in {version}" if schema is None else _first(schema, document)


@cache
def _built_in_schema(name: str) -> Any:
    """A validator over a schema of kubernetes-validate, which itself reads it anew every time."""
    path = SCHEMAS / name
    if not path.is_file():
        return None
    return jsonschema.Draft202012Validator(json.loads(path.read_bytes()), registry=_definitions())


@cache
def _definitions() -> Any:
    name = "_definitions.json"
    resource = Resource.from_contents(json.loads((SCHEMAS / name).read_bytes()))
    return (resource @ Registry()).crawl()


def _first(schema: Any, document: Document) -> str | None:
    error = next(schema.iter_errors(document), None)
    return None if error is None else f"{list(error.absolute_path)}: {error.message}"
