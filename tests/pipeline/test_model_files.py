"""A model's files are found and told apart by their content, not by where they lie."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import huggingface_hub.errors
import pytest

from pipeline.model_files import ModelFiles, find_model, hash_tokenizer, hash_weights, weight_files
from pipeline.settings import ModelSpec
from store.errors import ModelLoadError
from tests.pipeline.tiny_models import tiny_folder


def spec(name: object, **settings: Any) -> ModelSpec:
    return ModelSpec(str(name), "m", **settings)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder("bert"), tmp_path / "model"))


def test_folder_is_found(folder: Path) -> None:
    assert find_model(spec(folder)) == ModelFiles(folder, None, None)
    assert weight_files(find_model(spec(folder))) == [folder / "model.safetensors"]


def test_gguf_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "some.gguf").write_bytes(b"GGUF")
    files = find_model(spec(tmp_path / "some.gguf"))
    assert files == ModelFiles(tmp_path, "some.gguf", None)
    assert weight_files(files) == [tmp_path / "some.gguf"]
    assert hash_tokenizer(files) is None


@pytest.mark.parametrize("name", ["/no/such/model", "./none", "~/none-at-all", "../none"])
def test_path_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ModelLoadError, match=r"does not exist; check the path"):
        find_model(spec(name))


def test_folder_without_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"has no config.json; expected a folder saved by"):
        find_model(spec(tmp_path))


def test_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "training_args.bin").write_bytes(b"none")
    with pytest.raises(ModelLoadError, match=r"holds no weights .* set model.random_seed"):
        hash_weights(find_model(spec(folder)))


def test_hash_changes_with_the_weights_and_not_with_the_folder(
    folder: Path, tmp_path: Path
) -> None:
    before = hash_weights(find_model(spec(folder)))
    moved = Path(shutil.copytree(folder, tmp_path / "moved"))
    assert hash_weights(find_model(spec(moved))) == before
    weights = moved / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert hash_weights(find_model(spec(moved))) != before


def test_hash_covers_every_shard_of_the_weights(folder: Path) -> None:
    before = hash_weights(find_model(spec(folder)))
    (folder / "model-2.safetensors").write_bytes(b"more")
    assert hash_weights(find_model(spec(folder))) != before


def test_safetensors_count_before_pickles(folder: Path) -> None:
    before = hash_weights(find_model(spec(folder)))
    (folder / "pytorch_model.bin").write_bytes(b"the same again")
    assert hash_weights(find_model(spec(folder))) == before


def test_random_weights_are_told_by_configuration_and_seed(folder: Path) -> None:
    files = find_model(spec(folder))
    seeds = [hash_weights(files, seed) for seed in (0, 0, 1)]
    assert seeds[0] == seeds[1] != seeds[2]
    (folder / "model.safetensors").unlink()
    assert hash_weights(files, 0) == seeds[0]
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text + " ")
    assert hash_weights(files, 0) != seeds[0]


def test_tokenizer_has_a_hash_of_its_own(folder: Path) -> None:
    files = find_model(spec(folder))
    weights, tokenizer = hash_weights(files), hash_tokenizer(files)
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace('"cat"', '"cow"'))
    assert hash_tokenizer(files) != tokenizer
    assert hash_weights(files) == weights
    for path in [*folder.glob("tokenizer*"), *folder.glob("vocab*")]:
        path.unlink()
    assert hash_tokenizer(files) is None


def hub(monkeypatch: pytest.MonkeyPatch, names: list[str] | Exception, folder: Path) -> list[Any]:
    """A hub that lists these files, or cannot be reached; gives what is asked of it."""
    asked: list[Any] = []

    def tell_about(*_: Any, **options: Any) -> SimpleNamespace:
        if isinstance(names, Exception):
            raise names
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])

    def download(repository: str, **options: Any) -> str:
        asked.append((repository, options["revision"], options["allow_patterns"]))
        return str(folder)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", tell_about)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


def test_hub_model_is_downloaded_as_safetensors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    snapshot = tmp_path / "0123abc"
    asked = hub(monkeypatch, ["a.safetensors", "a.bin"], snapshot)
    assert find_model(spec("org/name", revision="main")) == ModelFiles(snapshot, None, "0123abc")
    (repository, revision, patterns), *_ = asked
    assert (repository, revision) == ("org/name", "main")
    assert "*.safetensors" in patterns and "*.bin" not in patterns


def test_hub_model_without_safetensors_is_downloaded_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = hub(monkeypatch, ["pytorch_model.bin"], tmp_path)
    find_model(spec("org/name"))
    assert "*.bin" in asked[0][2] and "*.safetensors" not in asked[0][2]


def test_cached_hub_model_is_found_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = hub(monkeypatch, OSError("offline"), tmp_path)
    find_model(spec("org/name"))
    assert {"*.bin", "*.safetensors"} <= set(asked[0][2])


def test_gguf_of_the_hub_is_downloaded_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = hub(monkeypatch, AssertionError("not asked"), tmp_path)
    assert find_model(spec("org/name/file.gguf")).gguf == "file.gguf"
    assert asked == [("org/name", None, ["file.gguf"])]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (huggingface_hub.errors.LocalEntryNotFoundError("none"), "the hub cannot be reached"),
        (OSError("no such repository\nadvice"), r"on the hub \(no such repository\)"),
        (huggingface_hub.errors.HFValidationError("bad name"), r"on the hub \(bad name\)"),
    ],
)
def test_model_that_is_nowhere_is_refused(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub(monkeypatch, OSError("offline"), tmp_path)

    def fail(*_: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ModelLoadError, match=message):
        find_model(spec("org/name"))
