"""A run that is small and real: a seeded BERT of two layers, some lines of text, a configuration."""

import random
from pathlib import Path
from typing import Any

import yaml

from flows.config import RunConfig, load_config

WORDS = (
    "a the red blue old small bird tree river house stone cloud sings grows flows stands rolls "
    "drifts slowly quickly here there and over under near"
).split()
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

D_HEAD, N_LAYERS, N_HEADS = 8, 2, 4
N_FILES = N_LAYERS * N_HEADS * 2 + 2
"""Files of a shard: queries and keys of each head, tokens and sequences."""


def make_tokenizer() -> Any:
    """A tokenizer that knows a word a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *WORDS))}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    )


def save_model(folder: Path, kind: str = "bert", seed: int = 0, **changes: object) -> Path:
    """Save a model with random weights, and a tokenizer of a word a token, as a folder."""
    import torch
    from transformers import AutoConfig, AutoModel

    shape: dict[str, Any] = {
        "hidden_size": D_HEAD * N_HEADS,
        "num_hidden_layers": N_LAYERS,
        "num_attention_heads": N_HEADS,
        "intermediate_size": 64,
        "vocab_size": len(SPECIAL) + len(WORDS),
        "max_position_embeddings": 64,
        "pad_token_id": 0,
    }
    torch.manual_seed(seed)
    model = AutoModel.from_config(AutoConfig.for_model(kind, **(shape | changes)))
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def make_lines(count: int, seed: int = 0) -> list[str]:
    """Lines of 3 to 12 words."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(3, 12))) for _ in range(count)]


def write_lines(path: Path, lines: list[str]) -> Path:
    """Write a text file of these lines."""
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


def write_config(folder: Path, model: Path, **changes: object) -> Path:
    """Write `tiny.yaml`, which reads `corpus.txt` beside it; sections are replaced whole."""
    content: dict[str, Any] = {
        "atlas": "atlas",
        "corpus": {"name": "tiny", "source": "corpus.txt"},
        "model": {"name": str(model), "key": "tiny", "device": "cpu"},
        "capture": {"max_length": 32},
        "maps": [{"method": "pca", "dims": 2, "max_tokens": 200}],
        "measures": {"sequences": 20},
        "budget_bytes": "100 MB",
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content | changes), "utf-8")
    return path


def make_run(folder: Path, model: Path, n_lines: int = 40, **changes: object) -> RunConfig:
    """The configuration of a run over fresh lines in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / "corpus.txt", make_lines(n_lines))
    return load_config(write_config(folder, model, **changes))
