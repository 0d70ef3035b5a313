"""The sections of the YAML: each field with its bounds, default and meaning.

They mirror what a user writes; `spec` turns a section into the frozen values of
`pipeline.settings`, which also hold the defaults. The line under a field is its meaning in
`docs/configuration.md`.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from flows.config_values import (
    AtlasUri,
    Count,
    Indices,
    Key,
    ModelName,
    Name,
    PipelineName,
    Seed,
    Size,
    Source,
    Text,
    kind_of,
    problem,
    safe_name,
)
from pipeline.settings import (
    ActorGroup,
    CaptureSpec,
    CorpusSpec,
    Joint,
    MapSpec,
    MeasureSpec,
    MethodName,
    ModelSpec,
    Precision,
    SampleSpec,
    SplitSpec,
    TaskSpec,
    WhenGrown,
    WorkerSpec,
)

BY_KIND = Discriminator(kind_of)


class Section(BaseModel):
    """What every mapping of the YAML has in common."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class Window(Section):
    """Cuts long text into windows of tokens."""

    window: Count
    """Tokens in a window, without special tokens."""
    stride: Count | None = None
    """Tokens between the starts of two windows; left out, windows do not overlap."""

    @field_validator("stride")
    @classmethod
    def _check_stride(cls, stride: int | None, info: ValidationInfo) -> int | None:
        window = info.data.get("window")
        if window and stride and stride > window:
            raise problem(f"expected at most the window, {window}, or text is lost, got {stride}")
        return stride


Unit = Literal["record", "line", "paragraph", "sentence"]
Split = Annotated[
    Annotated[Unit, Tag("scalar")] | Annotated[Window, Tag("mapping")],
    Field(discriminator=BY_KIND),
]
Sources = Annotated[
    Annotated[Source, Tag("scalar")] | Annotated[list[Source], Field(min_length=1), Tag("list")],
    Field(discriminator=BY_KIND),
]


class Corpus(Section):
    """What is read."""

    name: Name | None = None
    """Name in the atlas; left out, the last part of the first source."""
    source: Sources
    """Files, folders, globs, or URIs such as `s3://bucket/*.jsonl.gz` and `hub://org/data-set`."""
    text_column: Text = CorpusSpec.text_column
    """Column (CSV, Parquet) or field (JSONL) that holds the text."""
    split: Split = "record"
    """How a record's text becomes sequences; `record` keeps it whole."""

    @model_validator(mode="after")
    def _check_name(self) -> "Corpus":
        if not (self.name or safe_name(self._sources()[0])):
            raise problem("no name can be made from the source; expected one here", "corpus.name")
        return self

    def _sources(self) -> list[str]:
        return self.source if isinstance(self.source, list) else [self.source]

    def spec(self) -> CorpusSpec:
        """Return the values that the stages take."""
        sources = tuple(self._sources())
        name = self.name or safe_name(sources[0])
        if isinstance(self.split, Window):
            split = SplitSpec("window", self.split.window, self.split.stride)
        else:
            split = SplitSpec(self.split)
        return CorpusSpec(name, sources, self.text_column, split)


class Model(Section):
    """What reads the corpus."""

    name: ModelName
    """Hub id, local folder (`./my-model`) or GGUF file."""
    key: Key | None = None
    """Short key in the atlas; left out, the last part of `name`. One key holds one capture."""
    revision: Text | None = None
    """Branch, tag or commit on the hub; left out, its main branch."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Number type of the forward pass."""
    device: Annotated[
        str,
        Field(
            pattern="^(auto|cpu|cuda(:[0-9]{1,4})?|mps)$",
            examples=["auto", "cpu", "cuda", "cuda:1", "mps"],
        ),
    ] = ModelSpec.device
    """Where the model runs; `auto` takes a GPU where there is one."""
    trust_remote_code: bool = ModelSpec.trust_remote_code
    """Whether Python code that comes with the model may run."""
    random_seed: Seed | None = None
    """Seed for random weights instead of trained ones; a configuration folder is enough then."""

    @model_validator(mode="after")
    def _check_key(self) -> "Model":
        if not (self.key or safe_name(self.name)):
            raise problem("no key can be made from model.name; expected one here", "model.key")
        return self

    def spec(self) -> ModelSpec:
        """Return the values that the stages take."""
        return ModelSpec(**(dict(self) | {"key": self.key or safe_name(self.name)}))


class Sample(Section):
    """Which sequences are captured: whole ones, by hash."""

    sequences: Annotated[float, Field(gt=0, le=1)] = SampleSpec.fraction
    """Share of the sequences."""
    limit: Count | None = None
    """Most sequences of this corpus with this model; left out, no limit."""
    seed: Seed = SampleSpec.seed
    """Seed of the hash."""


class Capture(Section):
    """What is kept of a forward pass, and in which portions."""

    layers: Indices = Field(default="all", validate_default=True)
    """Layers to keep, counted from 0, ends of ranges included."""
    heads: Indices = Field(default="all", validate_default=True)
    """Query heads to keep in each layer, counted from 0."""
    max_length: Count = CaptureSpec.max_length
    """Longest sequence in tokens, special tokens included; longer ones are cut."""
    special_tokens: bool = CaptureSpec.special_tokens
    """Whether the tokenizer adds its special tokens."""
    part_of_speech: PipelineName | None = None
    """spaCy pipeline, a name or a folder, that tags parts of speech; null means no tags."""
    precision: Precision = CaptureSpec.precision
    """Bits kept of each stored number: float16 keeps 10 of the mantissa, bfloat16 7, float32 23."""
    sample: Sample = Field(default_factory=Sample)
    """Which sequences."""
    shard_rows: Count = CaptureSpec.shard_rows
    """Most rows of a shard, the unit of work and of retry."""
    shard_tokens: Count = CaptureSpec.shard_tokens
    """Most tokens of a shard; sets how large its files become."""
    batch_tokens: Count | None = CaptureSpec.batch_tokens
    """Tokens in a forward pass, padding included; null means 1,024 on a CPU, else 16,384."""

    def spec(self) -> CaptureSpec:
        """Return the values that the stages take."""
        sample = SampleSpec(self.sample.sequences, self.sample.limit, self.sample.seed)
        return CaptureSpec(**(dict(self) | {"sample": sample}))


Dims = Annotated[
    Annotated[Literal[2, 3], Tag("scalar")]
    | Annotated[list[Literal[2, 3]], Field(min_length=1), Tag("list")],
    Field(discriminator=BY_KIND),
]


class Map(Section):
    """A map to make of every captured head."""

    method: MethodName = MapSpec.method
    """How points are placed."""
    dims: Dims = 2
    """Dimensions; a list makes a map for each."""
    joint: Joint | None = None
    """How queries and keys meet in one space; left out, `lift` for attention, else `translate`."""
    max_tokens: Count = MapSpec.max_tokens
    """Most tokens on the map; each gives a query and a key, whole sequences only."""
    seed: Seed = MapSpec.seed
    """Seed of the method and of the choice of sequences."""
    n_neighbors: Annotated[int, Field(ge=2, le=1000)] = MapSpec.n_neighbors
    """Neighbours of a point; only umap."""
    min_dist: Annotated[float, Field(ge=0, le=1)] = MapSpec.min_dist
    """Least distance of neighbours on the map; only umap."""
    n_epochs: Count | None = None
    """Optimisation epochs; left out, umap's own choice; only umap."""
    perplexity: Annotated[float, Field(ge=2, le=1000)] = MapSpec.perplexity
    """Effective number of neighbours of a point; only tsne."""
    stability: bool = MapSpec.stability
    """Whether the map is fitted again with another seed, to report `seed_disparity`."""
    when_grown: WhenGrown = MapSpec.when_grown
    """`transform` adds new sequences to the map, whose points stay; `fit` makes a map of all."""

    @field_validator("n_neighbors", "min_dist", "n_epochs", "perplexity")
    @classmethod
    def _check_method(cls, value: Any, info: ValidationInfo) -> Any:
        method = info.data.get("method")
        owner = "tsne" if info.field_name == "perplexity" else "umap"
        if method not in (None, owner):
            raise problem(f"belongs to method {owner}, not {method}; take it out")
        return value

    @field_validator("joint")
    @classmethod
    def _check_joint(cls, joint: Joint | None, info: ValidationInfo) -> Joint | None:
        if info.data.get("method") == "attention" and joint not in (None, "lift"):
            raise problem(f"attention starts from the lifted vectors; take {joint} out")
        return joint

    def specs(self) -> Iterator[MapSpec]:
        """Yield a map for each number of dimensions."""
        joint = self.joint or ("lift" if self.method == "attention" else MapSpec.joint)
        for dims in self.dims if isinstance(self.dims, list) else [self.dims]:
            yield MapSpec(**(dict(self) | {"dims": dims, "joint": joint}))


class Measures(Section):
    """How head measures are taken."""

    sequences: Count = MeasureSpec.sequences
    """Most sequences, whole ones in hash order."""
    seed: Seed = MeasureSpec.seed
    """Seed of the hash order, and of the random sequences of the induction score."""


Cpus = Annotated[float, Field(gt=0, le=1024)]
Gpus = Annotated[float, Field(ge=0, le=1024)]


class Booking(Section):
    """What Ray books."""

    num_cpus: Cpus = WorkerSpec.num_cpus
    """CPUs booked for an actor or a task."""
    num_gpus: Gpus = WorkerSpec.num_gpus
    """GPUs booked for an actor or a task; a fraction below 1 shares a GPU."""

    @field_validator("num_cpus", "num_gpus")
    @classmethod
    def _check_whole(cls, number: float) -> float:
        if number > 1 and not number.is_integer():
            raise problem(f"expected a fraction below 1 or a whole number, got {number}")
        return number


class Group(Booking):
    """Capture actors that are alike."""

    actors: Count = ActorGroup.actors
    """How many; each loads the model once."""
    resources: dict[str, Cpus] = Field(default_factory=dict)
    """Resources of your own that are booked for each, such as `{big_memory: 1}`."""


class Workers(Booking):
    """What the workers may use."""

    actors: Count = WorkerSpec.actors
    """Capture actors; each loads the model once."""
    groups: Annotated[list[Group], Field(min_length=1)] | None = None
    """Capture actors of several kinds, in place of `actors`, with CPUs and GPUs for each kind."""
    tasks: Booking | None = None
    """For maps and measures, a task a head; left out, `num_cpus` and `num_gpus` count for them."""
    wait_s: Annotated[float, Field(gt=0, le=86400)] = WorkerSpec.wait_s
    """Seconds to wait for room on a cluster for the first actor or task; then the run ends."""

    @model_validator(mode="after")
    def _check_groups(self) -> "Workers":
        if self.groups and "actors" in self.model_fields_set:
            raise problem("the groups say how many; take it out", "workers.actors")
        return self

    def spec(self) -> WorkerSpec:
        """Return the values that the stages take."""
        groups = tuple(
            ActorGroup(**(dict(group) | {"resources": tuple(sorted(group.resources.items()))}))
            for group in self.groups or ()
        )
        tasks = TaskSpec(**dict(self.tasks)) if self.tasks else None
        return WorkerSpec(**(dict(self) | {"groups": groups, "tasks": tasks}))


class Run(Section):
    """A run: a corpus and a model go in, an atlas comes out."""

    atlas: AtlasUri
    """Folder or URI (`s3://bucket/prefix`) of the atlas; made where there is none."""
    corpus: Corpus
    """What is read."""
    model: Model
    """What reads it."""
    capture: Capture = Field(default_factory=Capture)
    """What is kept of a forward pass."""
    maps: list[Map] = Field(
        default=[{"method": "attention"}, {"method": "umap"}], validate_default=True
    )
    """Maps to make of every head; `[]` means none."""
    measures: Annotated[
        Annotated[bool, Tag("scalar")] | Annotated[Measures, Tag("mapping")],
        Field(discriminator=BY_KIND),
    ] = True
    """Whether, or how, head measures are taken."""
    workers: Workers = Field(default_factory=Workers)
    """What each worker may use."""
    budget_bytes: Size = Field(default="100 GB", validate_default=True)
    """Most bytes that the run may write; above it, it is refused before it starts."""

    @field_validator("maps")
    @classmethod
    def _check_maps(cls, maps: list[Map]) -> list[Map]:
        first: dict[MapSpec, int] = {}
        for index, entry in enumerate(maps):
            for spec in entry.specs():
                same = replace(spec, when_grown=MapSpec.when_grown, stability=False)
                if same in first:
                    text = f"the {spec.dims}-D map of maps.{first[same]} again; take one out"
                    raise problem(text, f"maps.{index}")
                first[same] = index
        return maps

    @model_validator(mode="after")
    def _check_window(self) -> "Run":
        split, longest = self.corpus.split, self.capture.max_length
        if isinstance(split, Window) and split.window > longest:
            text = f"expected at most capture.max_length, {longest}, got {split.window}"
            raise problem(f"{text}, which would cut every window", "corpus.split.window")
        return self
