"""Deployment files name what there is: commands, options, variables, ports, secrets, selectors.

Their schemas cannot know these; a schema is content with any text.
"""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import typer.main
from ray.scripts.scripts import start as ray_start

import qkatlas
from api.gateway import PROBES
from api.settings import ServeSettings
from infra import image_locks
from tests.api.small_app import running_app
from tests.infra.offline_checks import (
    BUILT_IN,
    COMPOSE,
    KUBERAY,
    ROOT,
    Document,
    containers,
    load,
    pod_templates,
)
from tests.infra.test_images import PROJECT
from tests.store.lake_fixture import build_atlas

SERVICES: dict[str, Document] = load(COMPOSE)[0]["services"]
DOCUMENTS = [document for path in (*BUILT_IN, *KUBERAY) for document in load(path)]
CLUSTER, JOB = (load(path)[0] for path in KUBERAY)
GROUPS = [CLUSTER["spec"]["headGroupSpec"], *CLUSTER["spec"]["workerGroupSpecs"]]
IMAGES = {f"qkatlas-{kind}:{PROJECT['version']}" for kind in image_locks.REQUIREMENTS}
COMMANDS = typer.main.get_command(qkatlas.app).commands  # type: ignore[attr-defined]
ALL_CONTAINERS = [each for document in DOCUMENTS for each in containers(document)]
OURS = re.compile(r"(exec )?(ray|prefect|qkatlas) ")
SHELL = re.compile(r"&&|\|\||[;&]")
SECRET = re.compile(r"PASSWORD|TOKEN|SECRET|ACCESS_KEY|CONNECTION_URL")


def of_kind(kind: str, name: str = "qkatlas-api") -> Document:
    return next(
        each for each in DOCUMENTS if (each["kind"], each["metadata"].get("name")) == (kind, name)
    )


def container(deployment: str) -> Document:
    first: Document = of_kind("Deployment", deployment)["spec"]["template"]["spec"]["containers"][0]
    return first


def bytes_of(quantity: str) -> int:
    """Kubernetes' way to write an amount of bytes."""
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()  # type: ignore[union-attr]
    return int(number) << {"Mi": 20, "Gi": 30}[unit]


def serve_arguments() -> list[list[str]]:
    return [container("qkatlas-api")["args"], SERVICES["api"]["command"]]


def serve_settings(arguments: list[str]) -> dict[str, Any]:
    """What `qkatlas serve` makes of its arguments."""
    assert arguments[0] == "serve"
    environment = ["--atlas", "s3://bucket/atlas"]
    return dict(COMMANDS["serve"].make_context("serve", [*arguments[1:], *environment]).params)


def test_the_run_and_the_lasting_cluster_are_the_same() -> None:
    assert JOB["spec"]["rayClusterSpec"] == CLUSTER["spec"]


def test_each_creation_is_one_run_that_is_not_repeated_and_keeps_its_log() -> None:
    """A run with quarantined shards fails; its submitter has no part in it and may be replaced."""
    assert "name" not in JOB["metadata"] and JOB["metadata"]["generateName"] == "qkatlas-run-"
    assert JOB["spec"]["backoffLimit"] == 0
    assert JOB["spec"]["submitterConfig"]["backoffLimit"] >= 2
    text = (ROOT / "infra" / "README.md").read_text("utf-8")
    assert f"`{JOB['metadata']['generateName']}`" in text


def test_files_name_the_images_of_this_version() -> None:
    named = [each["image"] for each in (*ALL_CONTAINERS, *SERVICES.values())]
    assert {image for image in named if not image.startswith("postgres:")} == IMAGES
    pins = image_locks.read_pins(image_locks.LOCKS / "constraints-cpu.txt")
    assert CLUSTER["spec"]["rayVersion"] == pins["ray"]


def test_only_the_image_with_cuda_asks_for_a_gpu() -> None:
    for each in ALL_CONTAINERS:
        wants = "nvidia.com/gpu" in each["resources"]["limits"]
        assert wants == each["image"].startswith("qkatlas-gpu:")


@pytest.mark.parametrize("arguments", serve_arguments(), ids=["kubernetes", "compose"])
def test_the_service_starts_with_what_is_written(arguments: list[str]) -> None:
    given = serve_settings(arguments)
    settings = ServeSettings(
        given["atlas"], given["host"], given["port"], "a" * 20, workers=given["workers"]
    )
    assert not settings.is_loopback
    # A pod's RuntimeDefault and docker's own profile forbid namespaces: see infra/README.md.
    assert given["allow_weak_sandbox"]


def test_the_services_port_is_one_and_the_same() -> None:
    ports = {serve_settings(arguments)["port"] for arguments in serve_arguments()}
    ports |= {each["containerPort"] for each in container("qkatlas-api")["ports"]}
    policy = of_kind("NetworkPolicy")["spec"]["ingress"][0]
    ports |= {each["port"] for each in policy["ports"]}
    ports |= {int(each.rpartition(":")[2]) for each in SERVICES["api"]["ports"]}
    dockerfile = (ROOT / "infra" / "docker" / "Dockerfile.cpu").read_text("utf-8")
    ports |= {
        int(each) for each in re.findall(r"EXPOSE (\d+)|127\.0\.0\.1:(\d+)", dockerfile)[0] if each
    }
    assert ports == {ServeSettings("").port}
    (service,) = of_kind("Service")["spec"]["ports"]
    assert service["targetPort"] in {each["name"] for each in container("qkatlas-api")["ports"]}


def test_the_services_memory_and_disk_hold_what_its_settings_allow() -> None:
    pod = of_kind("Deployment")["spec"]["template"]["spec"]
    limits = container("qkatlas-api")["resources"]["limits"]
    given = serve_settings(serve_arguments()[0])
    defaults = ServeSettings("")
    most = given["workers"] * given["worker_memory"]
    most += defaults.max_viewer_sessions * defaults.viewer_memory_bytes + 4_000_000_000
    assert most < bytes_of(limits["memory"])
    volumes = {each["name"]: bytes_of(each["emptyDir"]["sizeLimit"]) for each in pod["volumes"]}
    assert defaults.file_cache_bytes * 1.2 < volumes["tmp"]
    assert sum(volumes.values()) < bytes_of(limits["ephemeral-storage"])
    assert defaults.shutdown_s < pod["terminationGracePeriodSeconds"]


def probes(each: Document) -> Iterator[Document]:
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        if kind in each:
            yield each[kind]["httpGet"]


def test_the_service_answers_its_probes_which_know_its_address_alone(tmp_path: Path) -> None:
    settings = {"host": "0.0.0.0", "token": "a" * 20, "allow_weak_sandbox": True}
    with running_app(build_atlas(tmp_path), **settings) as client:
        asked = [probe["path"] for probe in probes(container("qkatlas-api"))]
        assert set(asked) == set(PROBES)
        for path in asked:
            assert client.get(path, headers={"Host": "10.1.2.3:8765"}).status_code == 200


def test_ray_and_prefect_have_what_their_probes_ask() -> None:
    folder = Path(ray.__file__).parent
    agent = folder / "dashboard" / "modules" / "reporter" / "healthz_agent.py"
    constants = (folder / "_private" / "ray_constants.py").read_text("utf-8")
    asked = [probe for each in ALL_CONTAINERS for probe in probes(each)]
    ours = [probe for probe in asked if probe["path"] not in PROBES]
    assert {(probe["path"], probe["port"]) for probe in ours} == {
        ("/api/local_raylet_healthz", 52365),
        ("/health", "health"),
    }
    assert '"/api/local_raylet_healthz"' in agent.read_text("utf-8")
    assert "DEFAULT_DASHBOARD_AGENT_LISTEN_PORT = 52365" in constants
    import prefect

    server = Path(prefect.__file__).parent / "workers" / "server.py"
    assert '"/health"' in server.read_text("utf-8")


def environments() -> Iterator[dict[str, Any]]:
    """Every set of variables: values, or where a value comes from."""
    for each in ALL_CONTAINERS:
        yield {
            given["name"]: given.get("value", given.get("valueFrom"))
            for given in each.get("env", ())
        }
    yield of_kind("ConfigMap", "qkatlas-environment")["data"]
    for service in SERVICES.values():
        yield service.get("environment", {})


def test_every_variable_is_read_by_somebody() -> None:
    from prefect.settings import Settings
    from prefect.settings.legacy import _get_settings_fields

    sources = [
        path
        for folder in ("store", "flows", "api", "pipeline")
        for path in (ROOT / folder).glob("*.py")
    ]
    ours = set(re.findall(r"\b[A-Z]+_[A-Z0-9_]+\b", "".join(p.read_text("utf-8") for p in sources)))
    rays = {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ADDRESS"}
    postgres = {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD"}
    known = ours | rays | postgres | set(_get_settings_fields(Settings))
    named = {name for each in environments() for name in each}
    assert {"AWS_ENDPOINT_URL_S3", "QKATLAS_TOKEN", "PREFECT_API_URL"} <= named
    assert named - known == set()


def test_no_file_holds_a_secret() -> None:
    for environment in environments():
        for name, value in environment.items():
            if SECRET.search(name):
                needed_or_empty = r"\$\{[A-Z0-9_]+:(\?[^}]+|-)\}"
                assert isinstance(value, dict) or re.search(needed_or_empty, value), name
                assert not isinstance(value, dict) or "secretKeyRef" in value, name
    assert "Secret" not in {each["kind"] for each in DOCUMENTS}


def test_the_example_names_every_variable_of_compose_and_no_secret() -> None:
    wanted = set(re.findall(r"\$\{([A-Z0-9_]+)", COMPOSE.read_text("utf-8")))
    lines = (COMPOSE.parent / "compose.env.example").read_text("utf-8").splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert set(given) == wanted
    assert [name for name in given if SECRET.search(name) and given[name]] == []


def test_selectors_find_the_pods_of_the_service() -> None:
    labels = of_kind("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert of_kind("Deployment")["spec"]["selector"]["matchLabels"] == labels
    assert of_kind("Service")["spec"]["selector"] == labels
    assert of_kind("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    assert of_kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert (
        of_kind("PodDisruptionBudget")["spec"]["minAvailable"]
        < of_kind("Deployment")["spec"]["replicas"]
    )


def test_the_service_is_asked_by_the_ingress_and_reaches_names_and_s3_alone() -> None:
    policy = of_kind("NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    (entry,) = policy["ingress"]
    assert all("namespaceSelector" in each for each in entry["from"])
    names, store = policy["egress"]
    assert {(each["protocol"], each["port"]) for each in names["ports"]} == {
        ("UDP", 53),
        ("TCP", 53),
    }
    assert [(each["protocol"], each["port"]) for each in store["ports"]] == [("TCP", 443)]
    assert "169.254.0.0/16" in store["to"][0]["ipBlock"]["except"]


@pytest.mark.parametrize(
    "place", [(n, m) for n, d in enumerate(DOCUMENTS) for m, _ in enumerate(pod_templates(d))]
)
def test_a_pod_has_no_right_that_it_does_not_need(place: tuple[int, int]) -> None:
    pod = list(pod_templates(DOCUMENTS[place[0]]))[place[1]][1]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    accounts = {each["metadata"]["name"] for each in DOCUMENTS if each["kind"] == "ServiceAccount"}
    assert pod["serviceAccountName"] in accounts
    is_head = pod["serviceAccountName"] == "qkatlas-ray-head"
    assert is_head != (pod.get("automountServiceAccountToken") is False)
    volumes = {each["name"] for each in pod["volumes"]}
    for each in (*pod.get("initContainers", ()), *pod["containers"]):
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= each["resources"]["limits"].keys()
        known = {"cpu", "memory", "ephemeral-storage", "nvidia.com/gpu"}
        assert {*each["resources"]["limits"], *each["resources"]["requests"]} <= known
        mounts = {mount["name"]: mount["mountPath"] for mount in each.get("volumeMounts", ())}
        assert mounts.keys() <= volumes
        if each in pod["containers"]:
            assert "/tmp" in mounts.values()


def test_a_ray_cluster_grows_and_its_head_captures_nothing() -> None:
    assert CLUSTER["spec"]["enableInTreeAutoscaling"]
    assert CLUSTER["spec"]["authOptions"]["mode"] == "token"
    assert GROUPS[0]["rayStartParams"]["num-cpus"] == "0"
    for group in GROUPS[1:]:
        assert group["minReplicas"] <= group["replicas"] < group["maxReplicas"]
    assert {group["groupName"] for group in GROUPS[1:]} == {"cpu", "gpu"}


def test_a_ray_node_keeps_its_objects_in_shared_memory_that_it_has() -> None:
    options = {name.removeprefix("--") for each in ray_start.params for name in each.opts}
    for group in GROUPS:
        assert group["rayStartParams"].keys() <= options
        volumes = {
            each["name"]: each.get("emptyDir") for each in group["template"]["spec"]["volumes"]
        }
        assert volumes["shm"]["medium"] == "Memory"
        memory = int(group["rayStartParams"]["object-store-memory"])
        assert memory < bytes_of(volumes["shm"]["sizeLimit"])


def command_lines() -> Iterator[str]:
    """Every command line that starts Ray, Prefect or ours."""
    for service in SERVICES.values():
        words = [*service.get("entrypoint", ["qkatlas"]), *service.get("command", [])]
        yield words[2] if words[0] == "sh" else shlex.join(words)
    yield from container("qkatlas-prefect-worker")["args"]
    yield JOB["spec"]["entrypoint"]


def test_commands_and_their_options_exist() -> None:
    from prefect.cli._app import _app as prefect_cli

    lines = [part.strip() for line in command_lines() for part in SHELL.split(line)]
    known = {name for each in ray_start.params for name in each.opts}
    seen = set()
    for words in (shlex.split(line) for line in lines if OURS.match(line)):
        words = words[1:] if words[0] == "exec" else words
        seen.add(tuple(words[:2]))
        if words[:2] == ["ray", "start"]:
            assert {word.partition("=")[0] for word in words[2:]} <= known
        elif words[0] == "prefect":
            prefect_cli.parse_args(words[1:], exit_on_error=False, print_error=False)
        elif words[0] == "qkatlas" and len(words) > 1:
            COMMANDS[words[1]].make_context(words[1], words[2:], resilient_parsing=True)
    assert seen >= {
        ("ray", "start"),
        ("prefect", "worker"),
        ("prefect", "server"),
        ("qkatlas", "run"),
    }


def test_workers_find_the_head_and_poll_the_pool_of_the_deployments() -> None:
    (line,) = container("qkatlas-prefect-worker")["args"]
    assert f"--address={CLUSTER['metadata']['name']}-head-svc:6379 " in line
    assert "ray-head" in SERVICES
    (in_compose,) = SERVICES["prefect-worker"]["command"]
    joins, polls = line.replace("qkatlas-head-svc", "ray-head").split(" && ")
    assert in_compose.startswith(f"{joins} ||") and in_compose.endswith(f"& {polls}")
    (deployed,) = load(ROOT / "infra" / "prefect.yaml")
    pools = {each["work_pool"]["name"] for each in deployed["deployments"]}
    assert re.findall(r"--pool (\S+)", line) == list(pools)


@pytest.mark.parametrize(("holds", "code"), [(True, 0), (False, 1)])
def test_without_landlock_nothing_is_served(tmp_path: Path, holds: bool, code: int) -> None:
    pod = of_kind("Deployment")["spec"]["template"]["spec"]
    (guard,) = pod["initContainers"]
    assert guard["command"] == [
        *SERVICES["needs-landlock"]["entrypoint"],
        *SERVICES["needs-landlock"]["command"],
    ]
    said = json.dumps({"landlock": holds, "network_namespace": False, "limits": True})
    (tmp_path / "python").write_text(f"#!/bin/sh\necho '{said}'\n", "utf-8")
    (tmp_path / "python").chmod(0o755)
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    ended = subprocess.run(guard["command"], env=environment, capture_output=True)
    assert ended.returncode == code


def test_compose_keeps_to_this_machine_and_watches_what_it_starts() -> None:
    whole = load(COMPOSE)[0]
    for name, service in SERVICES.items():
        assert all(each.startswith("127.0.0.1:") for each in service.get("ports", ())), name
        assert service["healthcheck"], name
        assert service["restart"] == ("no" if name == "needs-landlock" else "unless-stopped"), name
        assert set(service.get("networks", ())) <= whole["networks"].keys(), name
        assert set(service.get("depends_on", ())) <= SERVICES.keys(), name
        named = {
            each.partition(":")[0] for each in service.get("volumes", ()) if each[0] not in "$./"
        }
        assert named <= whole["volumes"].keys(), name
        if name != "postgres":
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name
