"""What a run asks for, as frozen values that every stage takes; `flows/config.py` makes them.

They are separate from the code that obeys them so that a plan can be made, and "nothing to do"
said, without loading torch.
"""

from dataclasses import dataclass
from typing import Literal

SplitUnit = Literal["record", "line", "paragraph", "sentence", "window"]
Precision = Literal["float16", "bfloat16", "float32"]
Joint = Literal["translate", "attentionviz", "balance", "lift"]
MethodName = Literal["pca", "umap", "tsne", "attention"]
WhenGrown = Literal["transform", "fit"]


@dataclass(frozen=True)
class SplitSpec:
    """How a record's text becomes sequences."""

    unit: SplitUnit = "record"
    """`record` keeps a record whole (a line of a text file is a record)."""
    window: int | None = None
    """Tokens in a window, without special tokens; only with unit `window`."""
    stride: int | None = None
    """Tokens between the starts of windows; None means `window`: no overlap."""


@dataclass(frozen=True)
class CorpusSpec:
    """A corpus: where it is and how it is cut."""

    name: str
    """Name in the atlas."""
    sources: tuple[str, ...]
    """Files, folders, globs or fsspec URIs, in order."""
    text_column: str = "text"
    """Column or JSON field that holds the text."""
    split: SplitSpec = SplitSpec()
    """How records are cut."""


@dataclass(frozen=True)
class ModelSpec:
    """A model as AutoModel finds it."""

    name: str
    """Hub id, local folder or GGUF file."""
    key: str
    """Short key under which the atlas stores it."""
    revision: str | None = None
    """Branch, tag or commit on the hub; None means its main branch."""
    dtype: str = "float32"
    """Number type of the forward pass: float32, float16 or bfloat16."""
    device: str = "auto"
    """cpu, cuda, cuda:1, or auto: a GPU where there is one."""
    trust_remote_code: bool = False
    """True runs Python code that comes with the model."""
    random_seed: int | None = None
    """Seed for random weights instead of trained ones: a configuration folder is enough then."""


@dataclass(frozen=True)
class SampleSpec:
    """Which sequences are captured: whole ones, by hash."""

    fraction: float = 1.0
    """Share of sequences, above 0, up to 1."""
    limit: int | None = None
    """Most sequences to capture of this corpus with this model; None means no limit."""
    seed: int = 0
    """Seed of the hash."""


@dataclass(frozen=True)
class CaptureSpec:
    """What is kept of a forward pass, and in which portions."""

    layers: tuple[int, ...] | None = None
    """Layers to keep, from 0; None means all."""
    heads: tuple[int, ...] | None = None
    """Query heads to keep in each layer, from 0; None means all."""
    max_length: int = 512
    """Longest sequence in tokens, special tokens included; longer ones are cut."""
    special_tokens: bool = True
    """Whether the tokenizer adds its special tokens."""
    part_of_speech: str | None = None
    """spaCy pipeline, a name or a folder, that tags words; None leaves them untagged."""
    precision: Precision = "float16"
    """Bits kept of each stored number: float16 keeps 10 of the mantissa, bfloat16 7."""
    sample: SampleSpec = SampleSpec()
    """Which sequences."""
    shard_rows: int = 65_536
    """Most rows of a shard, the unit of work and of retry."""
    shard_tokens: int = 1_048_576
    """Most tokens of a shard; sets how large its files become."""
    batch_tokens: int | None = None
    """Tokens in a forward pass, padding included; None means 1,024 on a CPU, else 16,384."""


@dataclass(frozen=True)
class MapSpec:
    """A map to make of every captured head."""

    method: MethodName = "umap"
    """pca, umap, tsne or attention."""
    dims: int = 2
    """2 or 3."""
    joint: Joint = "translate"
    """How queries and keys are brought into one space; `attention` starts from `lift`."""
    max_tokens: int = 10_000
    """Most tokens on the map; each gives a query and a key, whole sequences only."""
    seed: int = 0
    """Random seed of the method and of the choice of sequences."""
    n_neighbors: int = 15
    """Neighbours of a point; only umap."""
    perplexity: float = 30.0
    """Effective number of neighbours of a point; only tsne."""
    stability: bool = False
    """True fits the map again with another seed and reports `seed_disparity`."""
    min_dist: float = 0.02
    """Least distance of neighbours on the map; only umap."""
    n_epochs: int | None = None
    """Optimisation epochs; None means umap's own choice; only umap."""
    when_grown: WhenGrown = "transform"
    """What new sequences bring: `transform` adds them to the map, `fit` makes a new one."""


@dataclass(frozen=True)
class MeasureSpec:
    """How head measures are taken."""

    sequences: int = 2_000
    """Most sequences, whole ones in hash order."""
    seed: int = 0
    """Seed of the hash order, and of the random sequences of the induction score."""


@dataclass(frozen=True)
class InductionSpec:
    """The random sequences of the induction score; no settings of a run, so that runs compare."""

    sequences: int = 16
    """Sequences, each a block of random tokens twice."""
    block: int = 50
    """Tokens in a block; fewer where two blocks are longer than capture's longest sequence."""
    seed: int = 0
    """Seed of the random tokens."""


@dataclass(frozen=True)
class ActorGroup:
    """Capture actors that are alike; several groups make a mixed cluster."""

    actors: int = 1
    """How many; each loads the model once."""
    num_cpus: float = 1.0
    """CPUs that Ray books for each."""
    num_gpus: float = 0.0
    """GPUs that Ray books for each; fractions share a GPU."""
    resources: tuple[tuple[str, float], ...] = ()
    """Resources of your own that Ray books for each, such as those that mark a kind of node."""

    @property
    def n_threads(self) -> int:
        """Threads that each computes with on a cluster, where CPUs are booked."""
        return max(1, int(self.num_cpus))


@dataclass(frozen=True)
class TaskSpec:
    """What each task, a map or the measures of a head, may use."""

    num_cpus: float = 1.0
    """CPUs that Ray books for it."""
    num_gpus: float = 0.0
    """GPUs that Ray books for it; fractions share a GPU."""


@dataclass(frozen=True)
class WorkerSpec:
    """What the Ray workers may use."""

    actors: int = 1
    """Capture actors; each loads the model once."""
    num_cpus: float = 1.0
    """CPUs that Ray books for an actor or a task."""
    num_gpus: float = 0.0
    """GPUs that Ray books for an actor or a task; fractions share a GPU."""
    groups: tuple[ActorGroup, ...] = ()
    """Actors of several kinds, in place of the three above."""
    tasks: TaskSpec | None = None
    """What a task may use; None means as much as an actor of the simple form."""
    wait_s: float = 900.0
    """Seconds to wait for a first worker to find room on the cluster."""

    @property
    def actor_groups(self) -> tuple[ActorGroup, ...]:
        """The groups; the simple form is one."""
        return self.groups or (ActorGroup(self.actors, self.num_cpus, self.num_gpus),)

    @property
    def task_spec(self) -> TaskSpec:
        """What a task may use."""
        return self.tasks or TaskSpec(self.num_cpus, self.num_gpus)

    @property
    def mixes_devices(self) -> bool:
        """Whether some workers book a GPU and others none, which then must not touch one."""
        booked = [*(group.num_gpus for group in self.actor_groups), self.task_spec.num_gpus]
        return any(booked) and not all(booked)
