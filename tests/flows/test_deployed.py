"""The deployed flows as functions, the files that deploy them, and the queue of an atlas."""

import inspect
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.cli.deploy._models import (
    ConcurrencyLimitSpec,
    DeploymentConfig,
    PrefectYamlModel,
    RawScheduleConfig,
    WorkPoolConfig,
)
from prefect.client.schemas.objects import ConcurrencyLimitStrategy
from prefect.events.schemas.automations import AutomationCore, EventTrigger
from prefect.flows import load_flow_from_entrypoint
from prefect.server.events.schemas.automations import AutomationCreate
from prefect.server.utilities.user_templates import render_user_template_sync
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate

import flows.deployed
from flows.atlas_turn import atlas_turn, queue_name
from flows.config import RunConfig, load_config
from flows.deployed import (
    MOST_ATTEMPTS,
    STEPS,
    maintain,
    nightly_build,
    read_config,
    refresh_maps,
    refuse_given_up,
    run_step,
)
from flows.stages import StageResult
from flows.work import find_work, load_snapshot
from flows.worker import CaptureWorker
from store.errors import CommitError, ConfigError, StageError
from store.lake import SHARDS, Lake
from tests.flows.tiny_run import (
    make_lines,
    make_run,
    plan_here,
    run_here,
    save_model,
    write_lines,
)

INFRA = Path(__file__).parents[2] / "infra"
DEPLOYMENTS = (INFRA / "prefect.yaml").read_text("utf-8")
AUTOMATIONS = (INFRA / "prefect-automation.yaml").read_text("utf-8")


def find_problems(text: str) -> list[str]:
    """What is wrong with a file of deployments; Prefect overlooks fields that it does not know."""
    content = yaml.safe_load(text)
    content.pop("definitions")
    found = unknown(content, PrefectYamlModel, "file")
    try:
        PrefectYamlModel.model_validate(content)
    except ValueError as error:
        return [*found, str(error)]
    for each in content["deployments"]:
        found += _deployment_problems(each)
    return found


def _deployment_problems(content: dict[str, Any]) -> list[str]:
    name = content.get("name")
    found = unknown(content, DeploymentConfig, name)
    found += unknown(content.get("work_pool", {}), WorkPoolConfig, name)
    limit = content.get("concurrency_limit", {})
    found += unknown(limit, ConcurrencyLimitSpec, name)
    for schedule in content.get("schedules", []):
        found += unknown(schedule, RawScheduleConfig, name)
    try:
        ConcurrencyLimitStrategy(limit.get("collision_strategy"))
        flow = load_flow_from_entrypoint(content["entrypoint"], use_placeholder_flow=False)
        found += [
            f"{name}: no parameter {each}"
            for each in content["parameters"]
            if each not in inspect.signature(flow.fn).parameters
        ]
        flow.validate_parameters(content["parameters"])
    except Exception as error:
        found.append(f"{name}: {error}")
    return found


def unknown(content: Mapping[str, Any], model: Any, where: object) -> list[str]:
    """Fields that a model of Prefect's does not have."""
    known = {field.alias or name for name, field in model.model_fields.items()}
    return [f"{where}: no field {name}" for name in content if name not in known]


def test_the_shipped_deployments_are_what_prefect_and_the_flows_expect() -> None:
    assert find_problems(DEPLOYMENTS) == []
    deployed = {each["name"]: each for each in yaml.safe_load(DEPLOYMENTS)["deployments"]}
    assert list(deployed) == ["nightly-build", "refresh-maps", "maintain"]
    for each in deployed.values():
        assert each["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
        assert each["work_pool"]["name"] == "qkatlas"
        assert each["tags"] == ["qkatlas"]
        assert [set(schedule) for schedule in each["schedules"]] == [{"cron", "timezone", "slug"}]


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("flows.deployed.nightly_build", "flows.deployed.nightly_bild", "nightly_bild"),
        ("flows.deployed.maintain", "flows.deploy.maintain", "flows.deploy"),
        ('config: "{{', 'confg: "{{', "confg"),
        ("    concurrency_limit:", "    concurrency_limits:", "no field concurrency_limits"),
        ("collision_strategy: ENQUEUE", "collision_strategy: ENQUEU", "ENQUEU"),
        ("job_variables:", "job_variabels:", "no field job_variabels"),
        ('cron: "0 2', 'crn: "0 2', "crn"),
        ("work_pool:", "work_pol:", "no field work_pol"),
    ],
)
def test_a_typo_in_a_deployment_is_found(right: str, wrong: str, said: str) -> None:
    assert right in DEPLOYMENTS
    problems = find_problems(DEPLOYMENTS.replace(right, wrong))
    assert said in "\n".join(problems)


def find_automation_problems(text: str) -> list[str]:
    """What is wrong with a file of automations, by the models of client and server."""
    found = []
    for each in yaml.safe_load(text)["automations"]:
        name = each.get("name")
        found += unknown(each, AutomationCore, name)
        found += unknown(each["trigger"], EventTrigger, name)
        try:
            AutomationCreate.model_validate(AutomationCore.model_validate(each).model_dump())
        except ValueError as error:
            found.append(f"{name}: {error}")
    return found


def test_the_shipped_automations_are_what_prefect_expects() -> None:
    assert find_automation_problems(AUTOMATIONS) == []
    silent, again = yaml.safe_load(AUTOMATIONS)["automations"]
    beat = yaml.safe_load(DEPLOYMENTS)["definitions"]["pool"]["job_variables"]["env"]
    assert silent["trigger"]["within"] == 3 * int(beat["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
    assert set(silent["trigger"]["expect"]) > {"prefect.flow-run.heartbeat"}
    assert again["trigger"]["expect"] == ["prefect.flow-run.Crashed"]


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("match_related:", "match_realted:", "no field match_realted"),
        ("posture: Proactive", "posture: Proactiv", "posture"),
        ("type: run-deployment", "type: run-deploymnt", "run-deploymnt"),
        ("source: inferred", "source: infered", "source"),
        ("state: CRASHED", "state: CRASHD", "state"),
        ("| tojson }}", "| tojson }", "Invalid jinja"),
    ],
)
def test_a_typo_in_an_automation_is_found(right: str, wrong: str, said: str) -> None:
    assert right in AUTOMATIONS
    problems = find_automation_problems(AUTOMATIONS.replace(right, wrong))
    assert said in "\n".join(problems)


@pytest.mark.parametrize(("before", "after"), [({}, 2), ({"attempt": 2}, 3)])
def test_a_run_in_place_of_a_crashed_one_has_its_parameters(
    before: dict[str, Any], after: int
) -> None:
    _, again = yaml.safe_load(AUTOMATIONS)["automations"]
    template = again["actions"][0]["parameters"]["value"]["template"]
    given = {"config": "/a <b>.yaml", "overrides": ['maps=[{method: "pca"}]'], "atlas": None}
    context = {"flow_run": {"parameters": given | before}}
    said = yaml.safe_load(render_user_template_sync(template, context))
    assert said == given | {"attempt": after}


@pytest.mark.parametrize("name", ["nightly_build", "refresh_maps", "maintain"])
def test_the_schema_ends_a_row_of_crashes(name: str) -> None:
    schema = parameter_schema(getattr(flows.deployed, name))
    assert schema.properties["attempt"]["maximum"] == MOST_ATTEMPTS
    assert schema.required == ["config"]


@pytest.mark.parametrize(
    "same",
    [
        ("atlas", "./atlas", "x/../atlas", "{here}/atlas/", "file://{here}/atlas", "link"),
        ("s3://bucket/a/b", "s3://bucket/a//b/", "s3a://bucket/a/b", "S3://bucket/a/b"),
        ("gs://bucket/a", "gs://bucket/a/"),
    ],
)
def test_one_atlas_has_one_queue_however_it_is_spelt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "atlas").mkdir()
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to("atlas")
    assert len({queue_name(uri.format(here=tmp_path)) for uri in same}) == 1


def test_other_atlases_have_other_queues_and_no_name_tells_where_one_lies() -> None:
    uris = ["/a/b", "/a/c", "s3://a/b", "gs://a/b", "s3://a/c", "s3://a/b/c", "s3://A/b"]
    names = [queue_name(uri) for uri in uris]
    assert len(set(names)) == len(uris)
    assert all(name.startswith("qkatlas-") and name[8:].isalnum() for name in names)
    assert queue_name("s3://key:secret@a/b") == queue_name("s3://a/b")


def test_without_a_server_nobody_waits(tmp_path: Path) -> None:
    said: list[str] = []
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        atlas_turn(str(tmp_path), said.append),
        atlas_turn(str(tmp_path), said.append),
    ):
        assert said == []


def test_parameters_that_hold_credentials_are_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="atlas: holds credentials") as refused:
        read_config(str(tmp_path / "a.yaml"), atlas="s3://key:hush@bucket/atlas")
    assert "hush" not in str(refused.value)
    with pytest.raises(ConfigError, match="overrides: holds credentials"):
        read_config(str(tmp_path / "a.yaml"), ["corpus.source=https://me:hush@host/x"])
    with pytest.raises(ConfigError, match=r"expected an absolute path, got 'a\.yaml'"):
        read_config("a.yaml")


@pytest.mark.parametrize("name", ["nightly_build", "refresh_maps", "maintain"])
def test_prefect_refuses_credentials_before_it_stores_them(name: str) -> None:
    schema = parameter_schema(getattr(flows.deployed, name)).model_dump_for_openapi()
    for good in (
        {"atlas": "s3://bucket/a@b", "overrides": ["corpus.source=s3://bucket/x@y"]},
        {"atlas": "abfss://container@account.dfs.core.windows.net/a"},
        {"atlas": "s3://bucket/x:y@z", "overrides": ["corpus.source=http://host:9000/a@b"]},
        {"atlas": None, "overrides": None},
    ):
        assert validate({"config": "/run.yaml", **good}, schema) == []
    for bad in (
        {"atlas": "s3://key:hush@bucket/a"},
        {"atlas": "s3://key:hu/sh@bucket/a"},
        {"atlas": "\ns3://bucket/a?access_key=hush"},
        {"overrides": ["corpus.source=https://host/x?X-Amz-Signature=hush"]},
        {"overrides": ["model.dtype=float32", "corpus.source=https://me:hush@host/x"]},
    ):
        assert len(validate({"config": "/run.yaml", **bad}, schema, raise_on_error=False)) == 1


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (StageResult("extract", failed=["shard x: broken", "shard y"]), "2 unit.* x: broken"),
        (StageResult("publish", counts={"n_quarantined": 3}), r"3 shard\(s\) are quarantined"),
    ],
)
def test_a_run_that_left_rows_out_fails(result: StageResult, said: str) -> None:
    with pytest.raises(StageError, match=said):
        refuse_given_up([StageResult("plan", done=1), result])
    refuse_given_up([StageResult("plan", done=1)])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was done, over 40 lines, with one kind of map."""
    folder = tmp_path_factory.mktemp("done")
    run_here(make_run(folder, save_model(folder / "model"), measures=False))
    return folder


@pytest.fixture
def config(done: Path, tmp_path: Path) -> str:
    """A copy of it."""
    return str(shutil.copytree(done, tmp_path / "run") / "tiny.yaml")


def test_a_nightly_run_with_nothing_new_does_nothing(done: Path) -> None:
    assert nightly_build.fn(str(done / "tiny.yaml")) == {}
    assert refresh_maps.fn(str(done / "tiny.yaml")) == {}


def test_a_nightly_run_fails_as_long_as_shards_are_quarantined(config: str) -> None:
    lost = load_config(config, ["atlas=lost"])
    plan_here(lost, CaptureWorker(lost, find_work(lost).modality, 1, False))
    (row,) = find_work(lost).planned
    Lake(lost.atlas).commit_rows(SHARDS, [row | {"status": "quarantined", "reason": "x"}])
    with pytest.raises(StageError, match=r"1 shard\(s\)"):
        nightly_build.fn(config, ["atlas=lost"])


def test_a_refresh_fits_grown_maps_anew(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = str(done / "tiny.yaml")
    write_lines(done / "corpus.txt", [*make_lines(40), *make_lines(80, seed=1)])
    run_here(load_config(config))
    assert parts(config) == {0, 1}

    def build(checked: RunConfig) -> dict[str, int]:
        run_here(checked)
        return {"map": 1}

    monkeypatch.setattr(flows.deployed, "build", build)
    assert refresh_maps.fn(config, only_due=False) == {"map": 1}
    assert parts(config) == {0}


def parts(config: str) -> set[int]:
    """Parts of the newest map of each head."""
    snapshot = load_snapshot(load_config(config).atlas)
    assert snapshot is not None
    rows = sorted(snapshot.newest_maps().to_pylist(), key=lambda row: row["generation"])
    maps = {(row["layer"], row["head"]): row["map_id"] for row in rows}
    return {row["part"] for row in rows if row["map_id"] in maps.values()}


def test_every_step_of_maintenance_says_what_it_did(config: str) -> None:
    uri = load_config(config).atlas
    for step in STEPS:
        assert run_step(step, uri)
    assert list(maintain.fn(config)) == list(STEPS)


def test_a_step_of_maintenance_that_fails_does_not_keep_the_others_from_running(
    config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def step(name: str, uri: str) -> str:
        if name == "compact":
            raise CommitError("somebody else was faster")
        done.append(name)
        return name

    monkeypatch.setattr(flows.deployed, "run_step", step)
    with pytest.raises(StageError, match="maintain compact: somebody else was faster"):
        maintain.fn(config)
    assert done == [name for name in STEPS if name != "compact"]


def test_maintenance_that_finds_damage_goes_on_and_fails(config: str) -> None:
    file = min(Path(load_config(config).atlas).glob("tokens/**/*.parquet"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    steps = ["check", "checkpoint"]
    with pytest.raises(StageError, match=f"maintain check: .*{file.name}"):
        maintain.fn(config, steps=steps)
    logs = file.relative_to(load_config(config).atlas).parts[0]
    assert list(
        (Path(load_config(config).atlas) / logs / "_delta_log").glob("*.checkpoint.parquet")
    )
