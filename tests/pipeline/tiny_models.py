"""Small seeded models of many architectures in folders, as a user would have saved them.

Weights are enlarged beyond transformers' initialisation, under which all attention is uniform and
no comparison could fail.
"""

import atexit
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import nn

from pipeline.models import LoadedModel, load_model
from pipeline.settings import ModelSpec

WORDS = (
    "the", "of", "a", "cat", "dog", "sat", "ran", "on", "mat", "far",
    "red", "big", "old", "new", "sun", "sky", "one", "two", "ten", "end",
)  # fmt: skip
WINDOW = 4
"""Keys in reach of the models with a causal window."""
_SPECIAL = {
    "bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    "roberta": ("<s>", "<pad>", "</s>", "<unk>", "<mask>"),
    "decoder": ("<pad>", "<unk>", "<s>", "</s>"),
    "t5": ("<pad>", "</s>", "<unk>"),
    "bare": ("<unk>",),
}
_TEMPLATE = {
    "bert": "[CLS] $A [SEP]",
    "roberta": "<s> $A </s>",
    "decoder": "<s> $A",
    "t5": "$A </s>",
    "clip": "<s> $A </s>",
}
_NAMES = {
    "[PAD]": "pad_token",
    "<pad>": "pad_token",
    "[UNK]": "unk_token",
    "<unk>": "unk_token",
    "[CLS]": "cls_token",
    "[SEP]": "sep_token",
    "[MASK]": "mask_token",
    "<mask>": "mask_token",
    "<s>": "bos_token",
    "</s>": "eos_token",
}
_SIZE: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
_DECODER: dict[str, Any] = {
    **_SIZE,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
_SEQ2SEQ = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
_TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "projection_dim": 16,
}
_IMAGE: dict[str, Any] = {**_TOWER, "image_size": 32, "patch_size": 8}

Kind = Literal["text", "image"]


TEXT_MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("bert", "bert", {**_SIZE, "max_position_embeddings": 40}),
    "roberta": ("roberta", "roberta", {**_SIZE, "max_position_embeddings": 40}),
    "distilbert": (
        "distilbert",
        "bert",
        {"vocab_size": 32, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    ),
    "albert": ("albert", "bert", {**_SIZE, "embedding_size": 16, "num_hidden_layers": 3}),
    "gpt2": (
        "gpt2",
        "decoder",
        {
            "vocab_size": 32,
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": 64,
            "bos_token_id": 2,
            "eos_token_id": 3,
        },
    ),
    "gpt_neox": ("gpt_neox", "decoder", {**_SIZE, "max_position_embeddings": 64}),
    "opt": (
        "opt",
        "decoder",
        {
            **_SIZE,
            "ffn_dim": 48,
            "word_embed_proj_dim": 32,
            "max_position_embeddings": 40,
            "pad_token_id": 0,
        },
    ),
    "llama": ("llama", "decoder", _DECODER),
    "qwen3": ("qwen3", "decoder", _DECODER),
    "gemma2": (
        "gemma2",
        "decoder",
        {
            **_DECODER,
            "sliding_window": WINDOW,
            "attn_logit_softcapping": 2.0,
            "query_pre_attn_scalar": 6,
        },
    ),
    "gpt_oss": (
        "gpt_oss",
        "decoder",
        {
            **_DECODER,
            "sliding_window": WINDOW,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        },
    ),
    "modernbert": (
        "modernbert",
        "bert",
        {
            **_SIZE,
            "num_hidden_layers": 3,
            "local_attention": 2 * WINDOW,
            "global_attn_every_n_layers": 3,
            "max_position_embeddings": 64,
            "pad_token_id": 0,
            "cls_token_id": 2,
            "bos_token_id": 2,
            "sep_token_id": 3,
            "eos_token_id": 3,
        },
    ),
    "t5": (
        "t5",
        "t5",
        {
            "vocab_size": 32,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 48,
            "num_layers": 2,
            "num_heads": 4,
            "relative_attention_num_buckets": 8,
            "relative_attention_max_distance": 12,
            **_SEQ2SEQ,
        },
    ),
    "bart": (
        "bart",
        "roberta",
        {
            "vocab_size": 32,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_position_embeddings": 40,
            "decoder_start_token_id": 2,
        },
    ),
    "bloom": ("bloom", "decoder", {"vocab_size": 32, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "llama4_text": (
        "llama4_text",
        "decoder",
        {
            **_DECODER,
            "intermediate_size_mlp": 48,
            "num_local_experts": 2,
            "attention_chunk_size": WINDOW,
        },
    ),
    "clip": (
        "clip",
        "clip",
        {
            "text_config": {
                **_TOWER,
                "vocab_size": 32,
                "max_position_embeddings": 40,
                "bos_token_id": 2,
                "eos_token_id": 3,
            },
            "vision_config": _IMAGE,
            "projection_dim": 16,
        },
    ),
}
"""Model type, tokenizer and configuration of each text model."""

IMAGE_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit", _IMAGE),
    "beit": ("beit", {**_IMAGE, "use_relative_position_bias": True}),
    "swin": (
        "swin",
        {
            "image_size": 32,
            "patch_size": 4,
            "embed_dim": 16,
            "depths": [2, 2],
            "num_heads": [2, 4],
            "window_size": 4,
        },
    ),
}
"""Model type and configuration of each image model; CLIP is among the text models."""

_ROOT = Path(tempfile.mkdtemp(prefix="tiny-models-"))
atexit.register(shutil.rmtree, _ROOT, ignore_errors=True)


@cache
def tiny_folder(name: str) -> Path:
    """The folder of a model, made once a session."""
    from transformers import AutoConfig, AutoModel

    folder = _ROOT / name
    kind, settings = (
        (TEXT_MODELS[name][0], TEXT_MODELS[name][2]) if name in TEXT_MODELS else IMAGE_MODELS[name]
    )
    torch.manual_seed(sum(name.encode()))
    model = AutoModel.from_config(AutoConfig.for_model(kind, **settings))
    enlarge_weights(model)
    model.save_pretrained(folder)
    if name in TEXT_MODELS:
        make_tokenizer(TEXT_MODELS[name][1]).save_pretrained(folder)
    if name in IMAGE_MODELS or name == "clip":
        make_processor(name).save_pretrained(folder)
    return folder


@cache
def tiny_model(name: str, modality: Kind = "text", dtype: str = "float32") -> LoadedModel:
    """A model loaded from its folder as a run loads it."""
    return load_model(tiny_spec(name, dtype), modality)


def tiny_spec(name: str, dtype: str = "float32") -> ModelSpec:
    """What a configuration says of a model in its folder."""
    return ModelSpec(str(tiny_folder(name)), name, dtype=dtype, device="cpu")


def enlarge_weights(model: nn.Module) -> None:
    """Draw weights anew so that scores spread by about 2 and every bias and sink counts."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim < 2:
                spread = 1.0 if name.endswith("sinks") else 0.1
                weight.add_(spread * torch.randn(weight.shape))
            elif re.search(r"embed(?!.*mapping)|wte|wpe|bias", name):
                weight.copy_(torch.randn(weight.shape))
            else:
                weight.copy_(1.4 * torch.randn(weight.shape) * weight.shape[-1] ** -0.5)


def make_tokenizer(kind: str, **options: Any) -> Any:
    """A tokenizer of whole words with the special tokens of a family of models."""
    from transformers import PreTrainedTokenizerFast

    special = _SPECIAL["decoder" if kind == "clip" else kind]
    names = {_NAMES[token]: token for token in special}
    vocabulary = {token: index for index, token in enumerate((*special, *WORDS))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=names["unk_token"]))
    tokenizer.pre_tokenizer = Whitespace()
    if kind in _TEMPLATE:
        pieces = [piece for piece in _TEMPLATE[kind].split() if piece != "$A"]
        tokenizer.post_processor = TemplateProcessing(
            single=_TEMPLATE[kind],
            special_tokens=[(piece, vocabulary[piece]) for piece in pieces],
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, **options)


def make_processor(name: str) -> Any:
    """An image processor for images of 32 x 32 pixels."""
    from transformers import CLIPImageProcessor, ViTImageProcessor

    size = {"height": 32, "width": 32}
    if name == "clip":
        return CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
    return ViTImageProcessor(size=size)


def make_text(n_words: int, seed: int = 0) -> str:
    """So many words, the same for the same seed."""
    random = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(WORDS), (n_words,), generator=random).tolist()
    return " ".join(WORDS[pick] for pick in picks)
