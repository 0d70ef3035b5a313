"""One model key holds one capture: other weights or settings are refused, with the field named."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.config import RunConfig
from flows.identity import check_identity, identify, known_models
from flows.work import find_work
from pipeline.settings import SampleSpec
from store.errors import CaptureConflictError, ModelLoadError
from store.snapshot import Snapshot
from tests.flows.small_runs import WordPlanner, make_config, plan, run, with_capture, write_source


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    write_source(tmp_path / "a.txt", ["one two", "three"])
    config = make_config(tmp_path, "a.txt", shard_rows=1)
    run(config)
    return config


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("precision", {"precision": "bfloat16"}),
        ("max_length", {"max_length": 99}),
        ("layers", {"layers": (0,)}),
        ("heads", {"heads": (1, 2)}),
        ("special_tokens", {"special_tokens": False}),
        ("part_of_speech", {"part_of_speech": "en_core_web_sm"}),
        ("sample_seed", {"sample": SampleSpec(seed=5)}),
        ("sample_fraction", {"sample": SampleSpec(fraction=0.5)}),
    ],
)
def test_other_capture_settings_are_refused(
    config: RunConfig, field: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(CaptureConflictError, match=rf"tiny with {field} .*set model\.key"):
        find_work(with_capture(config, **changes))


def test_another_dtype_is_refused(config: RunConfig) -> None:
    other = replace(config, model=replace(config.model, dtype="float16"))
    with pytest.raises(CaptureConflictError, match="dtype float32, this run has float16"):
        find_work(other)


@pytest.mark.parametrize(
    ("field", "file"),
    [("weights_sha256", "model.safetensors"), ("tokenizer_sha256", "tokenizer.json")],
)
def test_other_weights_or_tokenizer_are_refused(config: RunConfig, field: str, file: str) -> None:
    (Path(config.model.name) / file).write_bytes(b"other")
    with pytest.raises(CaptureConflictError, match=f"with {field} .*qkatlas drop --model tiny"):
        find_work(config)


def test_the_same_weights_from_elsewhere_are_the_same_model(
    config: RunConfig, tmp_path: Path
) -> None:
    moved = Path(config.model.name).rename(tmp_path / "moved")
    assert find_work(replace(config, model=replace(config.model, name=str(moved)))).is_done


def test_batch_shard_and_worker_settings_are_free(config: RunConfig) -> None:
    other = with_capture(config, shard_rows=7, shard_tokens=9, batch_tokens=1)
    workers = replace(config.workers, actors=3)
    assert find_work(replace(other, workers=workers, budget_bytes=1)).is_done
    assert find_work(with_capture(config, sample=SampleSpec(limit=1))).is_done


def test_another_key_is_another_capture(config: RunConfig) -> None:
    other = replace(config, model=replace(config.model, key="other"))
    assert find_work(with_capture(other, max_length=9)).new_rows[0].models == ()


def test_a_run_that_died_before_its_shards_holds_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_source(tmp_path / "a.txt", ["one"])
    config = make_config(tmp_path, "a.txt")
    with monkeypatch.context() as patch:
        patch.setattr("flows.planning._commit_shards", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            plan(config)
    with pytest.raises(CaptureConflictError, match="max_length 512, this run has 9"):
        find_work(with_capture(config, max_length=9))
    run(config)
    assert find_work(config).is_done


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_keys_of_stacks_belong_to_their_model_and_no_other(tmp_path: Path) -> None:
    write_source(tmp_path / "a.txt", ["one"])
    both = make_config(tmp_path, "a.txt", key="clip")
    run(both, WordPlanner(both, ["clip--text", "clip--vision"]))
    near = make_config(tmp_path, "a.txt", key="clip2")
    run(near)
    snapshot = Snapshot.load(both.atlas)

    def names(key: str, modality: str) -> list[str]:
        return sorted(row["model"] for row in known_models(snapshot, key, modality))

    assert names("clip", "text") == ["clip--text"]
    assert names("clip", "image") == ["clip--vision"]
    assert names("clip2", "text") == ["clip2"]
    assert names("cl", "text") == []
    assert known_models(None, "clip", "text") == []


def test_identity_is_read_without_a_model(config: RunConfig) -> None:
    found = identify(config)
    assert (found.source, found.revision) == (config.model.name, None)
    assert found.layers == "null"
    assert identify(with_capture(config, layers=(0, 2))).layers == "[0, 2]"
    check_identity(config, found, [])


def test_a_model_that_is_not_there_is_said(config: RunConfig, tmp_path: Path) -> None:
    other = replace(config, model=replace(config.model, name=str(tmp_path / "nowhere")))
    with pytest.raises(ModelLoadError, match="does not exist"):
        find_work(other)
