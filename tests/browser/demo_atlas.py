"""The demonstration in small, for the viewer's tests: real weights, pictures and strangers' texts.

- `minilm`: the demonstration's weights over sentences of Python's reference; `NO_MAP` has no map.
- `decoder`: a causal model of random weights over the same sentences, a token a word; then over
  the corpus `strangers` of markup, many scripts and control characters, by which its maps grow;
  and over `long`, which is on no map.
- `vit`: a vision transformer of random weights over drawn pictures with two labels.

It is made in a process of its own and kept below `build/`, by a hash of what makes it.
"""

import json
import shutil
import subprocess
import sys
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import replace
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import fsspec
import yaml
from PIL import Image, ImageDraw

from flows.config import load_config
from flows.demo import find_weights
from flows.head_tasks import HeadTask, map_head
from flows.measure_tasks import InductionTask, measure_induction, measure_one
from flows.samples import HeadJob
from flows.work import find_work
from flows.worker import CaptureWorker
from store.lake import MAPS, Lake, Unit, next_version
from store.snapshot import Snapshot
from tests.browser.strange_texts import LONG_TEXT, STRANGERS
from tests.flows.tiny_run import capture_here, plan_here

ROOT = Path(__file__).parents[2]
MADE = ROOT / "build" / "viewer-atlas"
MAKERS = ("demo_atlas.py", "strange_texts.py")
"""Modules beside this whose text names the atlas: it is made anew when they change."""

NO_MAP = (5, 11)
"""Layer and head of `minilm` without any map."""
ATTENTION_LAYERS = (0,)
"""Layers of `minilm` with attention maps, which take the longest."""
N_TOKENS = 500
"""Most tokens on a map of `minilm`; each gives two points."""
TOPICS = ("async", "class", "for", "import", "lambda", "try", "while", "yield", "with")
N_SENTENCES = 8
"""Most of a topic."""
SIDE, PATCH = 64, 8
"""Pixels of a picture's side and of a patch's."""
PICTURES = ("discs", "stripes")
"""Labels of the pictures: their folders."""
DECODER_LENGTH = 2048


def find_demo_atlas() -> Path:
    """The folder of the atlas; made if it is not there."""
    text = "".join((Path(__file__).parent / name).read_text("utf-8") for name in MAKERS)
    folder = MADE / sha256(text.encode()).hexdigest()[:16]
    if not folder.is_dir():
        command = [sys.executable, "-m", "tests.browser.demo_atlas", str(folder)]
        done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        assert not done.returncode, done.stderr
    return folder / "atlas"


def build(folder: Path) -> None:
    """Build the atlas in a folder, which gets its name when all is there."""
    making = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    sentences = write_sentences()
    write_records("strangers", STRANGERS)
    write_records("long", [LONG_TEXT])
    draw_pictures(making / "pictures")
    save_decoder(making / "decoder", [*sentences, *STRANGERS, LONG_TEXT])
    save_vit(making / "vit")
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        run_minilm(making, pool)
        run_decoder(making, pool)
        run_vit(making, pool)
    making.rename(folder)


def write_sentences() -> list[str]:
    """Write some sentences of Python's reference; gives them."""
    from pydoc_data.topics import topics

    chosen: list[str] = []
    for topic in TOPICS:
        text = " ".join(topics[topic].split())
        whole = [f"{each}." for each in text.split(". ") if 40 < len(each) < 160]
        chosen += whole[:N_SENTENCES]
    write_records("sentences", chosen)
    return chosen


def write_records(name: str, texts: list[str]) -> None:
    """Keep texts as JSON lines in this process's memory.

    A sample is drawn by the names of sources: these are the same wherever the tests run.
    """
    lines = "".join(f"{json.dumps({'text': text})}\n" for text in texts)
    fsspec.filesystem("memory").pipe(f"/{name}.jsonl", lines.encode())


def draw_pictures(folder: Path) -> None:
    """Draw three pictures a label, each of colours of its own."""
    colours = ("#d1731b", "#2b6cb0", "#2f855a")
    for label in PICTURES:
        (folder / label).mkdir(parents=True)
        for number, colour in enumerate(colours):
            picture = Image.new("RGB", (SIDE, SIDE), "#f3efe6")
            pen = ImageDraw.Draw(picture)
            if label == "discs":
                pen.ellipse((8, 8, 36 + 8 * number, 36 + 8 * number), colour)
            else:
                for left in range(4 * number, SIDE, 16):
                    pen.rectangle((left, 0, left + 7, SIDE), colour)
            picture.save(folder / label / f"{number}.png")


def save_decoder(folder: Path, texts: list[str]) -> None:
    """Save a causal model of random weights whose tokens are what spaces part in some texts."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    from tests.pipeline.tiny_models import enlarge_weights

    words = dict.fromkeys(word for text in texts for word in text.split(" ") if word)
    vocabulary = {word: number for number, word in enumerate(("<s>", "<unk>", *words))}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<s>", unk_token="<unk>", model_max_length=DECODER_LENGTH
    ).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": DECODER_LENGTH,
    }
    model = AutoModel.from_config(AutoConfig.for_model("llama", **shape))
    enlarge_weights(model)
    model.save_pretrained(folder)


def save_vit(folder: Path) -> None:
    """Save a vision transformer of random weights for the pictures."""
    import torch
    from transformers import AutoConfig, AutoModel, ViTImageProcessor

    from tests.pipeline.tiny_models import enlarge_weights

    torch.manual_seed(0)
    shape = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": SIDE,
        "patch_size": PATCH,
    }
    model = AutoModel.from_config(AutoConfig.for_model("vit", **shape))
    enlarge_weights(model)
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)


def run_minilm(folder: Path, pool: Executor) -> None:
    """Capture the sentences with the demonstration's model, and map its heads but one."""
    run(
        folder,
        pool,
        "minilm",
        {
            "corpus": {"name": "sentences", "source": "memory://sentences.jsonl"},
            "model": {"name": str(find_weights("minilm")), "key": "minilm", "device": "cpu"},
            "capture": {"max_length": 256},
            "maps": [
                {"method": "attention", "dims": 2, "max_tokens": N_TOKENS},
                {"method": "pca", "dims": [2, 3], "max_tokens": N_TOKENS},
            ],
            "measures": {"sequences": 100},
        },
    )


def run_decoder(folder: Path, pool: Executor) -> None:
    """Capture the sentences with the causal model and map them; then strangers' texts."""
    maps = [{"method": "pca", "dims": 2, "max_tokens": 2_000}]
    for name in ("sentences", "strangers", "long"):
        settings = {
            "corpus": {"name": name, "source": f"memory://{name}.jsonl"},
            "model": {"name": "decoder", "key": "decoder", "device": "cpu"},
            "capture": {"max_length": DECODER_LENGTH},
            "maps": [] if name == "long" else maps,
            "measures": name == "sentences",
        }
        run(folder, pool, f"decoder-{name}", settings)


def run_vit(folder: Path, pool: Executor) -> None:
    """Capture and map the pictures."""
    run(
        folder,
        pool,
        "vit",
        {
            "corpus": {"name": "pictures", "source": "pictures"},
            "model": {"name": "vit", "key": "vit", "device": "cpu"},
            "maps": [{"method": "pca", "dims": 2}],
        },
    )


def run(folder: Path, pool: Executor, name: str, settings: dict[str, Any]) -> None:
    """What `qkatlas run` does of a configuration, without Ray and less some maps."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"atlas": "atlas", **settings}), "utf-8")
    config = load_config(path)
    worker = CaptureWorker(config, find_work(config).modality, 1, False)
    plan_here(config, worker)
    capture_here(config, worker, find_work(config))
    work, lake = find_work(config), Lake(config.atlas)
    version = Snapshot.load(config.atlas).version
    maps = [HeadTask(config.atlas, version, job) for job in map(less_some, work.maps) if job.specs]
    measures = [HeadTask(config.atlas, version, job) for job in work.measures]
    made = [each for found in pool.map(map_head, maps) for each in found]
    rows = [row for found in pool.map(measure_one, measures) for row in found]
    lake.commit(MAPS, [Unit(each.row, each.files) for each in made])
    if work.induction is not None:
        rows += measure_induction(InductionTask(config, work.modality, work.induction))
    lake.append(
        "measures",
        lambda handle: [row | {"generation": next_version(handle, "measures")} for row in rows],
        "measures",
    )


def less_some(job: HeadJob) -> HeadJob:
    """A job without the maps that the atlas shall lack."""
    if job.model != "minilm":
        return job
    place = (job.layer, job.head)
    kept = [
        number
        for number, spec in enumerate(job.specs)
        if place != NO_MAP and (spec.method != "attention" or job.layer in ATTENTION_LAYERS)
    ]
    return replace(
        job,
        specs=tuple(job.specs[number] for number in kept),
        map_ids=tuple(job.map_ids[number] for number in kept),
        replaces=tuple(job.replaces[number] for number in kept),
    )


if __name__ == "__main__":
    build(Path(sys.argv[1]))
