"""The runbook quotes files, commands, targets and secrets that there are."""

import re

from tests.infra.offline_checks import BUILT_IN, COMPOSE, INFRA, KUBERAY, ROOT, containers, load
from tests.test_quoted_commands import find_problem, quoted_lines

TEXT = (INFRA / "README.md").read_text("utf-8")


def secrets() -> set[tuple[str, str]]:
    """Names and keys of the Secrets that manifests refer to."""
    found = set()
    for path in (*BUILT_IN, *KUBERAY):
        for each in (part for document in load(path) for part in containers(document)):
            for given in each.get("env", ()):
                reference = given.get("valueFrom", {}).get("secretKeyRef")
                if reference:
                    found.add((reference["name"], reference["key"]))
    token = load(KUBERAY[0])[0]["spec"]["authOptions"]["secretName"]
    return {*found, (token, "auth_token")}


def test_quoted_command_lines_exist() -> None:
    lines = list(quoted_lines(TEXT))
    assert lines
    assert [problem for line in lines if (problem := find_problem(line))] == []


def test_quoted_files_exist() -> None:
    rows = re.findall(r"^\| (`[^|]+`) \|", TEXT.partition("## How large")[0], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([\w./*-]+)`", row)}
    named = {f"kuberay/{name}" if name == "rayjob.yaml" else name for name in named}
    named = {
        f"kubernetes/{name}" if name in ("api.yaml", "prefect-worker.yaml") else name
        for name in named
    }
    assert len(named) > 8
    assert [name for name in named if not list(INFRA.glob(name))] == []
    options = re.findall(r"--file(?:name)? (infra/\S+?)[\s,;`]", TEXT)
    assert len(options) > 6
    assert [name for name in options if not (ROOT / name).is_file()] == []


def test_quoted_targets_of_make_exist() -> None:
    rules = (ROOT / "Makefile").read_text("utf-8")
    targets = re.findall(r"`make ([\w-]+)`", TEXT)
    assert "constraints-images" in targets
    assert [name for name in targets if f"\n{name}:" not in rules] == []


def test_every_secret_is_explained() -> None:
    for name, key in secrets():
        assert f"`{name}`" in TEXT
        assert f"`{key}`" in TEXT
    for name in re.findall(r"\$\{([A-Z_]+):\?set it", COMPOSE.read_text("utf-8")):
        assert f"`{name}`" in TEXT
