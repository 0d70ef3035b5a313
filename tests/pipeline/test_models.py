"""Models load as a user's folder does, or say in a line why not."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.models import choose_device, load_model
from pipeline.settings import ModelSpec
from store.errors import ModelLoadError
from tests.pipeline.tiny_models import tiny_folder, tiny_model, tiny_spec


def spec(folder: object, **settings: Any) -> ModelSpec:
    return ModelSpec(str(folder), "m", device="cpu", **settings)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder("bert"), tmp_path / "model"))


def test_text_model_has_a_tokenizer_and_no_processor() -> None:
    loaded = tiny_model("bert")
    assert loaded.architecture == "BertModel"
    assert loaded.tokenizer.is_fast
    assert loaded.processor is None
    assert not loaded.model.training
    assert not loaded.is_encoder_decoder
    assert tiny_model("t5").is_encoder_decoder


def test_image_model_has_a_processor_and_no_tokenizer() -> None:
    loaded = tiny_model("vit", "image")
    assert loaded.tokenizer is None
    assert loaded.processor is not None
    assert not loaded.is_encoder_decoder


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_dtype_is_what_was_asked(dtype: str) -> None:
    assert load_model(tiny_spec("bert", dtype), "text").model.dtype == getattr(torch, dtype)


def test_random_weights_need_only_a_configuration_and_repeat(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    one, same, other = (
        load_model(spec(folder, random_seed=seed), "text").model.state_dict() for seed in (3, 3, 4)
    )
    name = "encoder.layer.0.attention.self.query.weight"
    assert torch.equal(one[name], same[name])
    assert not torch.equal(one[name], other[name])


def test_checkpoint_that_leaves_weights_to_chance_is_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = "encoder.layer.0.attention.self.query.weight"
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=rf"lacks 1 weights, such as {name}"):
        load_model(spec(folder), "text")


def test_model_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelLoadError, match=r"does not load as an AutoModel: .*no file"):
        load_model(spec(folder), "text")


def test_damaged_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ModelLoadError, match="does not load as an AutoModel"):
        load_model(spec(folder), "text")


def test_unknown_architecture_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "never_heard"}')
    with pytest.raises(ModelLoadError, match="never_heard"):
        load_model(spec(folder), "text")


def test_damaged_pickle_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match="does not load as an AutoModel"):
        load_model(spec(folder), "text")


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "bert", "hidden_size": "wide"}'])
def test_damaged_configuration_is_refused(text: str, folder: Path) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelLoadError, match="does not load as an AutoModel"):
        load_model(spec(folder), "text")


@pytest.mark.parametrize("text", ["{", "[]", '{"model": {"type": "Odd"}}'])
def test_damaged_tokenizer_is_refused(text: str, folder: Path) -> None:
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(ModelLoadError, match="has no tokenizer that loads"):
        load_model(spec(folder), "text")


def test_text_corpus_with_a_model_without_tokenizer_is_refused() -> None:
    with pytest.raises(ModelLoadError, match="no tokenizer that loads, and the corpus is text"):
        load_model(spec(tiny_folder("vit")), "text")


def test_image_corpus_with_a_text_model_is_refused() -> None:
    with pytest.raises(ModelLoadError, match="no image processor that loads"):
        load_model(spec(tiny_folder("bert")), "image")


def test_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ModelLoadError, match="cuda:1, but torch sees no GPU; use cpu or auto"):
        choose_device("cuda:1")


def test_gpu_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda:1")
