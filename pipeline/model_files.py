"""Where a model's files lie and what they hash to. Loads no torch, so a finished run is known fast.

Hub models are brought to the local cache as a folder first, so that everything behind this
module knows folders and GGUF files only.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pipeline.settings import ModelSpec
from store.errors import ModelLoadError

_WEIGHTS = ("*.safetensors", "*.bin")  # the first kind that is there counts
_TEXT_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "*.py")
_TIMEOUT_S = 10
_NO_WEIGHTS = ("optimizer.bin", "scheduler.bin", "training_args.bin")


@dataclass(frozen=True)
class ModelFiles:
    """A model on this machine's disk."""

    folder: Path
    gguf: str | None
    """Name of the GGUF file in the folder, for models in that format."""
    revision: str | None
    """Commit on the hub; None for local files."""


def find_model(spec: ModelSpec) -> ModelFiles:
    """Find a model's folder, downloading it from the hub unless it is a local path.

    Raises:
        ModelLoadError: it is neither a folder with a config.json, a GGUF file, nor on the hub.
    """
    path = Path(spec.name).expanduser()
    if path.is_file() and path.suffix == ".gguf":
        return ModelFiles(path.resolve().parent, path.name, None)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelLoadError(
                f"model.name: {path} has no config.json; expected a folder saved by save_pretrained"
            )
        return ModelFiles(path.resolve(), None, None)
    if path.is_absolute() or spec.name.startswith((".", "~")):
        raise ModelLoadError(f"model.name: {spec.name} does not exist; check the path")
    return _download(spec)


def _download(spec: ModelSpec) -> ModelFiles:
    """Bring a hub model into the local cache, weights as safetensors where there are any."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        repository, _, gguf = _split_gguf(spec.name)
        patterns = [gguf] if gguf else _wanted_files(repository, spec.revision)
        folder = Path(
            snapshot_download(
                repository, revision=spec.revision, allow_patterns=patterns, etag_timeout=_TIMEOUT_S
            )
        )
    except LocalEntryNotFoundError as error:
        raise ModelLoadError(
            f"model.name: {spec.name} is not a local folder, and the hub cannot be reached; "
            "check the name, the network, or give a folder"
        ) from error
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise ModelLoadError(
            f"model.name: {spec.name} is neither a local folder nor a model on the hub "
            f"({_first_line(error)}); private models need a token from `hf auth login`"
        ) from error
    return ModelFiles(folder, gguf or None, folder.name)


def _wanted_files(repository: str, revision: str | None) -> list[str]:
    """Patterns of the files to bring: safetensors where the hub has them, else any weights."""
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        about = HfApi().model_info(repository, revision=revision, timeout=_TIMEOUT_S)
    except (OSError, HfHubHTTPError, OfflineModeIsEnabled, httpx2.HTTPError):
        return [*_TEXT_FILES, *_WEIGHTS]  # offline: whatever the cache holds
    names = [file.rfilename for file in about.siblings or ()]
    has_safetensors = any(name.endswith(".safetensors") for name in names)
    return [*_TEXT_FILES, _WEIGHTS[0] if has_safetensors else _WEIGHTS[1]]


def _split_gguf(name: str) -> tuple[str, str, str]:
    """Part `org/repo/file.gguf` into repository, slash and file; other names stay whole."""
    if name.endswith(".gguf") and name.count("/") >= 2:
        return name.rpartition("/")
    return name, "", ""


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def hash_weights(files: ModelFiles, random_seed: int | None = None) -> str:
    """SHA-256 over the names and SHA-256 sums of the weight files, as hex.

    With a random seed the configuration and the seed stand for the weights.
    """
    if random_seed is not None:
        config = _sha256(files.folder / "config.json")
        return hashlib.sha256(f"random {random_seed} {config}".encode()).hexdigest()
    return _hash_files(weight_files(files))


def hash_tokenizer(files: ModelFiles) -> str | None:
    """SHA-256 over the tokenizer's and processor's files, as hex; None where there are none."""
    if files.gguf is not None:
        return None  # a GGUF file carries its tokenizer; weights_sha256 covers it
    names = ("tokenizer*", "vocab*", "merges.txt", "*.model", "preprocessor_config.json")
    found = sorted({path for name in names for path in files.folder.glob(name) if path.is_file()})
    return _hash_files(found) if found else None


def weight_files(files: ModelFiles) -> list[Path]:
    """The files that hold a model's weights.

    Raises:
        ModelLoadError: there are none.
    """
    if files.gguf is not None:
        return [files.folder / files.gguf]
    for pattern in _WEIGHTS:
        found = sorted(p for p in files.folder.glob(pattern) if p.name not in _NO_WEIGHTS)
        if found:
            return found
    raise ModelLoadError(
        f"model.name: {files.folder} holds no weights ({' or '.join(_WEIGHTS)}); "
        "set model.random_seed to use random ones"
    )


def _hash_files(paths: list[Path]) -> str:
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.name} {_sha256(path)}\n".encode())
    return total.hexdigest()


def _sha256(path: Path) -> str:
    state = path.stat()
    return _sha256_of(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=1024)
def _sha256_of(path: Path, size: int, modified_ns: int) -> str:
    """The sum of a file in this state; a run asks for it at every stage."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
