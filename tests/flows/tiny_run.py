"""A run that is small and real: a seeded BERT of two layers, lines of text, a configuration."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from flows.config import RunConfig, load_config
from flows.head_tasks import HeadTask, map_head
from flows.measure_tasks import InductionTask, measure_induction, measure_one
from flows.planning import commit_plan, make_plan
from flows.shard_units import group_shards, shard_units
from flows.work import Work, find_work, newest_files
from flows.worker import CaptureWorker
from store.lake import MAPS, SHARDS, Lake, Unit, next_version
from store.snapshot import Snapshot

WORDS = (
    *("a", "the", "red", "blue", "old", "small", "bird", "tree", "river", "house", "stone"),
    *("cloud", "sings", "grows", "flows", "stands", "rolls", "slowly", "here", "over", "near"),
)
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
    raw.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
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


def run_here(config: RunConfig, strict: bool = False) -> None:
    """Do what a run does in this process, without Ray and Prefect."""
    worker = CaptureWorker(config, find_work(config).modality, 1, strict)
    lake = Lake(config.atlas)
    plan_here(config, worker)
    capture_here(config, worker, find_work(config))
    work = find_work(config)
    version = Snapshot.load(config.atlas).version
    for job in work.maps:
        made = map_head(HeadTask(config.atlas, version, job))
        lake.commit(MAPS, [Unit(each.row, each.files) for each in made])
    rows = [
        row for job in work.measures for row in measure_one(HeadTask(config.atlas, version, job))
    ]
    if work.induction is not None:
        rows += measure_induction(InductionTask(config, work.modality, work.induction))
    lake.append(
        "measures",
        lambda handle: [row | {"generation": next_version(handle, "measures")} for row in rows],
        "measures",
    )


def plan_here(config: RunConfig, worker: CaptureWorker) -> None:
    """Plan what is new."""
    lake, work = Lake(config.atlas), find_work(config)
    plans = [make_plan(rows, worker) for rows in work.new_rows]
    lake.create()
    for plan in plans:
        commit_plan(config, work, plan, worker, lake)


def capture_here(config: RunConfig, worker: CaptureWorker, work: Work) -> None:
    """Capture and commit every shard that is planned."""
    known = newest_files(Snapshot.load(config.atlas), config.corpus.name)
    files = {known[file.source]["ordinal"]: file for file in work.files}
    planned = {row["shard_id"]: row for row in work.planned}
    for shard in group_shards(work.planned, files):
        Lake(config.atlas).commit(SHARDS, shard_units(worker.capture(shard), planned))


@contextmanager
def local_ray(n_cpus: int = 2) -> Iterator[None]:
    """A Ray of this machine for as long as the block runs."""
    import ray

    from flows.environment import prepare_environment, worker_environment

    prepare_environment()
    ray.init(
        num_cpus=n_cpus,
        include_dashboard=False,
        logging_level="error",
        log_to_driver=False,
        runtime_env={"env_vars": worker_environment()},
    )
    try:
        yield
    finally:
        ray.shutdown()
