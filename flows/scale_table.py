"""The tables of docs/scale.md: a billion and a trillion tokens of three models, on paper.

Write them anew with `python -m flows.scale_table`; a test compares the page with this module.
Every figure follows from a model's shape and the assumptions that are named here, except for those
of a probe of a real machine: `python -m flows.scale_table CONFIG.yaml` makes one and keeps it.
"""

import json
import math
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.cluster_plan import USD_PER_GB_MONTH, Costs, Load, price_load
from flows.quantities import short
from pipeline.settings import CaptureSpec
from store.errors import ConfigError

PAGE = Path(__file__).parent.parent / "docs" / "scale.md"
PROBED = PAGE.with_name("scale-probe.json")
"""What a machine did, as it was measured."""

BYTES_PER_ELEMENT = {"float16": 1.78, "bfloat16": 1.39}
ENCODE_ELEMENTS_PER_S = 1e9
NODE_CORES = 16
DEVICE_FLOPS = 989e12
UTILISATION = 0.4
SHARD_TOKENS = CaptureSpec.shard_tokens
TABLES_BESIDE = 2
WORKERS = (8, 64, 512)
CORPORA = (10**9, 10**12)
STORED_BITS_PER_S = 8 * ENCODE_ELEMENTS_PER_S * BYTES_PER_ELEMENT["float16"]

ASSUMPTIONS = (
    (
        "bytes of a stored number",
        ", ".join(f"{n} at `{name}`" for name, n in BYTES_PER_ELEMENT.items()),
        "measured on normal data at `d_head` 64; `make bench` measures 1.73 on MiniLM's real "
        "vectors at `float16`. `tokens` and `sequences` add 9 bytes a token in the demonstration's "
        "atlas and are left out",
    ),
    (
        "numbers encoded a second",
        f"{ENCODE_ELEMENTS_PER_S / 1e9:g} G on a node of {NODE_CORES} cores",
        "60 to 75 M a core were measured, and taken as growing with the cores",
    ),
    (
        "device",
        f"{DEVICE_FLOPS / 1e12:g} TFLOP/s, of which {UTILISATION:.0%} are reached",
        "NVIDIA's data sheet of the H100 SXM, bf16 dense; the share is an assumption, not measured",
    ),
    (
        "work of a token",
        "2 × parameters + 4 × layers × heads × `d_head` × sequence length",
        "a multiplication and an addition a weight; scores and their sum over values, whole "
        "sequence in reach. Weights of embeddings are counted too, which makes it an upper bound",
    ),
    (
        "node",
        f"1 GPU, {NODE_CORES} cores, one worker",
        "the model runs and writers encode at the same time: the slower of both sets the pace",
    ),
    (
        "files",
        f"a shard of {SHARD_TOKENS:,} tokens has a file for each head's queries, one for each "
        f"key-value head's keys and {TABLES_BESIDE} more",
        "`capture.shard_tokens` as it is by default; before `qkatlas maintain compact`",
    ),
    (
        "network and store",
        f"keep up with {STORED_BITS_PER_S / 1e9:.0f} Gbit/s a node",
        "what a node encodes at `float16`; where they do not, they set the pace",
    ),
    (
        "storage",
        f"{USD_PER_GB_MONTH:g} USD a GB (10^9 bytes) and month",
        "list price of Amazon S3 Standard for the first 50 TB; requests and transfer are not in it",
    ),
)


@dataclass(frozen=True)
class Shape:
    """What of a model decides how much is stored and computed."""

    name: str
    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    n_parameters: int
    """Of what capture loads: without a language-model head or a classifier."""
    n_context: int
    """Tokens in a sequence, as attention is worked out over all of them."""
    source: str

    def elements_per_token(self, n_layers: int | None = None) -> int:
        """Numbers stored of a token: queries of every head, keys of every key-value head."""
        return (n_layers or self.n_layers) * (self.n_heads + self.n_kv_heads) * self.d_head

    def bytes_per_token(self, precision: str = "float16", n_layers: int | None = None) -> float:
        """Bytes stored of a token."""
        return self.elements_per_token(n_layers) * BYTES_PER_ELEMENT[precision]

    def flops_per_token(self) -> float:
        """Operations of the forward pass for a token."""
        attention = 4 * self.n_layers * self.n_heads * self.d_head * self.n_context
        return 2 * self.n_parameters + attention

    def files_per_shard(self, n_layers: int | None = None) -> int:
        """Files that a shard has."""
        return (n_layers or self.n_layers) * (self.n_heads + self.n_kv_heads) + TABLES_BESIDE


BERT_BASE = Shape(
    "BERT-base", 12, 12, 12, 64, 109_482_240, 512, "Devlin et al. 2019; `BertConfig()`"
)
LLAMA_3_8B = Shape(
    "Llama-3-8B",
    32,
    32,
    8,
    128,
    7_504_924_672,
    512,
    "Meta 2024; 8.03 B with the language-model head",
)
VIT_L = Shape("ViT-L/16", 24, 16, 16, 64, 303_301_632, 197, "Dosovitskiy et al. 2021, 224 px")
SHAPES = (BERT_BASE, LLAMA_3_8B, VIT_L)


@dataclass(frozen=True)
class Lever:
    """What is kept of a corpus."""

    name: str
    fraction: float = 1.0
    """Share of the sequences (`capture.sample.sequences`)."""
    n_layers: int | None = None
    """Layers kept, the last one among them (`capture.layers`); None keeps all."""
    precision: str = "float16"


LEVERS = (
    Lever("everything"),
    Lever("`bfloat16`", precision="bfloat16"),
    Lever("4 layers", n_layers=4),
    Lever("1 % of sequences", fraction=0.01),
    Lever("1 %, 4 layers, `bfloat16`", fraction=0.01, n_layers=4, precision="bfloat16"),
    Lever("0.01 % of sequences", fraction=0.0001),
)


@dataclass(frozen=True)
class Case:
    """A model over a corpus with a lever."""

    shape: Shape
    lever: Lever
    load: Load
    tokens_per_s: float
    """Of a node: the slower of device and encoding."""
    device_share: float
    """Share of the time that the device is at work."""

    def costs(self, n_workers: int) -> Costs:
        """On so many nodes."""
        return price_load(self.load, n_workers, self.tokens_per_s, gpus_per_worker=1.0)


def make_case(shape: Shape, lever: Lever, corpus_tokens: int) -> Case:
    """Work out a model over a corpus with a lever."""
    n_tokens = round(corpus_tokens * lever.fraction)
    n_shards = math.ceil(n_tokens / SHARD_TOKENS)
    load = Load(
        n_tokens,
        round(n_tokens * shape.bytes_per_token(lever.precision, lever.n_layers)),
        n_shards * shape.files_per_shard(lever.n_layers),
        n_shards,
    )
    device_s = shape.flops_per_token() / (DEVICE_FLOPS * UTILISATION)
    encode_s = shape.elements_per_token(lever.n_layers) / ENCODE_ELEMENTS_PER_S
    slower_s = max(device_s, encode_s)
    return Case(shape, lever, load, 1 / slower_s, device_s / slower_s)


def make_tables() -> dict[str, str]:
    """Markdown of each part of the page, by the name of its markers."""
    found = {f"{size:.0e}".replace("+", ""): _corpus_table(size) for size in CORPORA}
    probe = json.loads(PROBED.read_text("utf-8"))
    return {"assumptions": _assumptions(), "shapes": _shapes(), "probe": _probe(probe), **found}


def _table(head: Sequence[str], rows: Iterator[Sequence[str]], texts: int = 1) -> str:
    """A table whose first columns are text and the others numbers."""
    sides = [*["---"] * texts, *["---:"] * (len(head) - texts)]
    lines = [head, sides, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _assumptions() -> str:
    return _table(("what", "taken as", "from"), iter(ASSUMPTIONS), texts=3)


def _shapes() -> str:
    head = (
        "model",
        "layers",
        "heads",
        "key-value heads",
        "`d_head`",
        "parameters",
        "tokens a sequence",
        "numbers a token",
        "bytes a token, `float16`",
        "`bfloat16`",
        "GFLOP a token",
        "source",
    )
    rows = (
        (
            shape.name,
            *(str(n) for n in (shape.n_layers, shape.n_heads, shape.n_kv_heads, shape.d_head)),
            f"{shape.n_parameters / 1e6:,.1f} M",
            str(shape.n_context),
            f"{shape.elements_per_token():,}",
            f"{shape.bytes_per_token() / 1e3:,.1f} kB",
            f"{shape.bytes_per_token('bfloat16') / 1e3:,.1f} kB",
            f"{shape.flops_per_token() / 1e9:,.2f}",
            shape.source,
        )
        for shape in SHAPES
    )
    return _table(head, rows)


def _probe(probe: dict[str, Any]) -> str:
    """What a machine did, and what follows for a billion tokens."""
    rate, corpus = probe["tokens_per_s"], CORPORA[0]
    n_bytes = round(corpus * probe["elements_per_token"] * BYTES_PER_ELEMENT["float16"])
    load = Load(corpus, n_bytes, 0, math.ceil(corpus / SHARD_TOKENS))
    costs = {n: price_load(load, n, rate) for n in WORKERS}
    rows = [
        ("command", f"`{probe['command']}`"),
        ("machine", f"{probe['machine']}, {probe['date']}; load before: {probe['load']:.1f}"),
        ("model, device", f"{probe['model']}, {probe['device']}"),
        ("tokens captured", f"{probe['n_tokens']:,}, of {probe['elements_per_token']:,} numbers"),
    ]
    for name in ("one", "many"):
        each = probe[name]
        said = f"{each['tokens_per_s']:,.0f} tokens/s; encoding alone "
        rows.append(
            (
                f"writers: {each['writers']}",
                f"{said}{each['elements_per_s'] / 1e6:,.1f} M numbers/s",
            )
        )
    walls = ", ".join(f"{rough_time(each.wall_s or 0)} on {n}" for n, each in costs.items())
    rows.append((f"{scaled(corpus)} tokens", f"{scaled(n_bytes)}B, {walls} such machines"))
    return _table(("what", "figure"), iter(rows), texts=2)


def write_probe(config: str) -> None:
    """Probe this machine with a configuration, and keep what it did for the page.

    Raises:
        ConfigError: other programs have the machine's cores.
    """
    from flows.config import load_config
    from flows.probe import probe_machine

    before, n_cores = os.getloadavg()[0], os.cpu_count() or 1
    if before > n_cores / 2:
        raise ConfigError(
            f"the load of this machine is {before:.1f} on {n_cores} cores, so the probe would "
            "measure other programs: end them, and wait until it is below half a core each"
        )
    loaded = load_config(config)
    probe = probe_machine(loaded)
    about = {
        "command": f"python -m flows.scale_table {config}",
        "machine": f"{platform.system()} {platform.machine()}, {probe.n_cores} cores",
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "load": round(before, 1),
        "model": loaded.model.key,
        "tokens_per_s": probe.tokens_per_s,
    }
    PROBED.write_text(json.dumps(about | asdict(probe), indent=2) + "\n", "utf-8")


def _corpus_table(corpus_tokens: int) -> str:
    walls = [f"on {n} nodes" for n in WORKERS]
    head = (
        "model",
        "kept",
        "tokens",
        "bytes",
        "files",
        "GPU-hours",
        "GPU at work",
        *walls,
        "USD a month",
    )
    rows = (
        _case_row(make_case(shape, lever, corpus_tokens)) for shape in SHAPES for lever in LEVERS
    )
    return _table(head, rows, texts=2)


def _case_row(case: Case) -> Sequence[str]:
    costs = [case.costs(n) for n in WORKERS]
    return (
        case.shape.name,
        case.lever.name,
        scaled(case.load.n_tokens),
        f"{scaled(case.load.n_bytes)}B",
        scaled(case.load.n_files),
        short(costs[0].gpu_hours or 0),
        f"{case.device_share:.0%}",
        *(rough_time(each.wall_s or 0) for each in costs),
        short(costs[0].usd_per_month),
    )


def scaled(n: float) -> str:
    """A number to three digits with a letter for its size: 32.8 T."""
    for letter, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size * 0.9995:
            return f"{n / size:.3g} {letter}"
    return f"{n:.3g}"


def rough_time(seconds: float) -> str:
    """A duration to three digits in one unit."""
    for unit, size in (("years", 365.25 * 86_400), ("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:,.3g} {unit}"
    return f"{seconds:.0f} s"


def fill_page(text: str) -> str:
    """A page with what stands between its markers made anew.

    Raises:
        ValueError: a pair of markers is missing.
    """
    for name, table in make_tables().items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, found, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not (found and found_end):
            raise ValueError(f"docs/scale.md lacks the markers {begin} and {end}: put them back")
        text = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    return text


if __name__ == "__main__":
    for path in sys.argv[1:]:
        write_probe(path)
    PAGE.write_text(fill_page(PAGE.read_text("utf-8")), "utf-8")
