"""Loading a model with its tokenizer or image processor, whatever AutoModel knows."""

from collections.abc import Iterable
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn

from pipeline.model_files import ModelFiles, find_model
from pipeline.settings import ModelSpec
from pipeline.tap import tap_model
from store.errors import ModelLoadError

Modality = Literal["text", "image"]

_BROKEN = (
    OSError, ValueError, TypeError, LookupError, RuntimeError, ImportError, EOFError,
    UnpicklingError, SafetensorError, StrictDataclassError,
)  # fmt: skip
"""What transformers and the readers beneath it raise on files that are missing or broken."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A tapped model in evaluation mode on its device, and what prepares its input."""

    model: Any  # transformers.PreTrainedModel
    tokenizer: Any  # transformers.PreTrainedTokenizerBase; None for images
    processor: Any  # transformers.BaseImageProcessor; None for text
    device: torch.device
    modality: Modality

    @property
    def architecture(self) -> str:
        """Class name of the model."""
        return type(self.model).__name__

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether the decoder reads the same sequence shifted right."""
        return self.modality == "text" and bool(self.model.config.is_encoder_decoder)


def choose_device(device: str) -> torch.device:
    """The device to run on; `auto` takes a GPU where there is one.

    Raises:
        ModelLoadError: the device that was asked for is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelLoadError(
            f"model.device: {device}, but torch sees no GPU; use cpu or auto, and on a cluster "
            "book one by workers.num_gpus"
        )
    return torch.device(device)


def load_model(spec: ModelSpec, modality: Modality) -> LoadedModel:
    """Load a model for one kind of input.

    Raises:
        ModelLoadError: any part does not exist or does not load.
        UnsupportedModelError: its attention cannot be seen.
    """
    files = find_model(spec)
    device = choose_device(spec.device)
    model = _load_weights(spec, files)
    try:
        model = model.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        raise ModelLoadError(
            f"model.device: {spec.name} cannot be brought to {device}: {_reason(error)}"
        ) from error
    tap_model(model)
    tokenizer = _load_tokenizer(spec, files) if modality == "text" else None
    processor = _load_processor(spec, files) if modality == "image" else None
    return LoadedModel(model, tokenizer, processor, device, modality)


def _load_weights(spec: ModelSpec, files: ModelFiles) -> nn.Module:
    from transformers import AutoConfig, AutoModel

    options: dict[str, Any] = {"trust_remote_code": spec.trust_remote_code}
    if files.gguf is not None:
        options["gguf_file"] = files.gguf
    dtype = getattr(torch, spec.dtype)
    try:
        if spec.random_seed is not None:
            config = AutoConfig.from_pretrained(files.folder, **options)
            torch.manual_seed(spec.random_seed)
            model: nn.Module = AutoModel.from_config(config, dtype=dtype)
            return model
        model, report = AutoModel.from_pretrained(
            files.folder, dtype=dtype, output_loading_info=True, **options
        )
    except _BROKEN as error:
        raise ModelLoadError(
            f"model.name: {spec.name} does not load as an AutoModel: {_reason(error)}"
        ) from error
    _check_complete(spec, report["missing_keys"])
    return model


def _check_complete(spec: ModelSpec, missing: Iterable[str]) -> None:
    """Refuse a checkpoint that leaves weights to chance; poolers come after all attention."""
    needed = sorted(name for name in missing if "pooler" not in name)
    if needed:
        raise ModelLoadError(
            f"model.name: {spec.name} lacks {len(needed)} weights, such as {needed[0]}, which "
            "would be random; name a whole checkpoint, or set model.random_seed"
        )


def _load_tokenizer(spec: ModelSpec, files: ModelFiles) -> Any:
    from transformers import AutoTokenizer

    options: dict[str, Any] = {"trust_remote_code": spec.trust_remote_code}
    if files.gguf is not None:
        options["gguf_file"] = files.gguf
    try:
        return AutoTokenizer.from_pretrained(files.folder, **options)
    except _BROKEN as error:
        raise ModelLoadError(
            f"model.name: {spec.name} has no tokenizer that loads, and the corpus is text: "
            f"{_reason(error)}"
        ) from error


def _load_processor(spec: ModelSpec, files: ModelFiles) -> Any:
    from transformers import AutoImageProcessor

    try:
        return AutoImageProcessor.from_pretrained(
            files.folder, trust_remote_code=spec.trust_remote_code
        )
    except _BROKEN as error:
        raise ModelLoadError(
            f"model.name: {spec.name} has no image processor that loads, and the corpus is "
            f"images: {_reason(error)}"
        ) from error


def _reason(error: Exception) -> str:
    """The first sentence of an error, without its traceback or advice on other lines."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
