"""`qkatlas maintain` does what it says, says what it did, and ends with 1 where data is damaged."""

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

import qkatlas
from flows.maintain_commands import parse_age
from store.errors import ConfigError
from store.snapshot import Snapshot
from tests.store.small_shards import contents, make_lake, write_shard

RUNNER = CliRunner()


def maintain(*arguments: str) -> str:
    """What a command prints on stdout; it must end well."""
    found = RUNNER.invoke(qkatlas.app, ["maintain", *arguments])
    assert found.exit_code == 0, found.output
    return found.stdout


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(make_lake(tmp_path_factory.mktemp("lake"), 4).uri)


def test_commands_do_their_work_and_say_it(atlas: Path) -> None:
    uri, before = str(atlas), contents(str(atlas))
    assert "queries: 8 files became 2 (" in maintain("compact", "--atlas", uri)
    assert maintain("compact", "--atlas", uri) == "nothing to merge\n"
    said = maintain("vacuum", "--atlas", uri, "--dry-run")
    assert said.splitlines()[-1].startswith("0 files would be deleted (0.0 MB), 0 hidden files")
    assert maintain("vacuum", "--atlas", uri, "--retention", "7d").startswith("0 files deleted")
    said = maintain("checkpoint", "--atlas", uri)
    assert f"shards: checkpoint of version {Snapshot.load(uri).versions['shards']}; 0 " in said
    assert maintain("check", "--atlas", uri, "--threads", "1").startswith("no problem in ")
    assert contents(uri) == before


def test_damage_is_named_and_ends_with_1(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, 2)
    path = Path(Snapshot.load(lake.uri).files("keys")["path"][0].as_py())
    path.unlink()
    name = str(path.relative_to(tmp_path))
    found = RUNNER.invoke(qkatlas.app, ["maintain", "check", "--atlas", lake.uri])
    assert found.exit_code == 1
    assert f"{name}: missing: the log lists it and it is not there" in found.stdout
    assert "1 problems in " in found.stdout
    found = RUNNER.invoke(qkatlas.app, ["maintain", "check", "--atlas", lake.uri, "--json"])
    assert found.exit_code == 1
    assert json.loads(found.stdout)["problems"][0]["where"] == name
    found = RUNNER.invoke(qkatlas.app, ["maintain", "compact", "--atlas", lake.uri])
    assert found.exit_code == 1
    assert "left as it is: keys: a file of the table keys cannot be read" in found.stdout


def test_dry_run_lists_files(tmp_path: Path) -> None:
    import os

    lake = make_lake(tmp_path, 1)
    for file in write_shard(tmp_path, "killed", [(3, 0, 1)]).files:
        os.utime(tmp_path / file.table / file.path, (1, 1))
    said = maintain("vacuum", "--atlas", lake.uri, "--dry-run")
    assert said.count("s-killed-1-") == 7
    assert "7 files would be deleted" in said
    assert "7 files deleted" in maintain("vacuum", "--atlas", lake.uri)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compact"], "which atlas"),
        (["vacuum", "--atlas", "x", "--retention", "a day"], "expected hours or days"),
        (["vacuum", "--atlas", "x", "--retention", "23h"], "23 hours, expected at least 24"),
        (["compact", "--atlas", "x", "--target-size", "many"], "--target-size: expected bytes"),
        (["check", "--atlas", "nowhere-at-all"], "no atlas at"),
        (["checkpoint", "--atlas", "nowhere-at-all"], "no atlas at"),
    ],
)
def test_wrong_arguments_are_explained(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("QKATLAS_ATLAS", raising=False)
    found = RUNNER.invoke(qkatlas.app, ["maintain", *arguments])
    assert message in str(found.exception)


def test_ages() -> None:
    assert parse_age("36h") == timedelta(hours=36)
    assert parse_age(" 7 d") == timedelta(days=7)
    for text in ("", "h", "-24h", "24", "1w"):
        with pytest.raises(ConfigError, match="--retention: expected hours or days such as 24h"):
            parse_age(text)


def test_commands_load_neither_torch_nor_ray(atlas: Path) -> None:
    code = (
        "import sys, qkatlas; sys.argv = ['qkatlas', 'maintain', 'check', '--atlas', sys.argv[1]]\n"
        "try:\n    qkatlas.main()\n"
        "finally:\n    print({'torch', 'ray', 'prefect', 'transformers'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", code, str(atlas)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "set()"
