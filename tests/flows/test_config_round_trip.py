"""The configuration, any of it: written as YAML and loaded again, a run is the same run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.config import RunConfig, load_config
from pipeline.settings import (
    ActorGroup,
    CaptureSpec,
    CorpusSpec,
    MapSpec,
    MeasureSpec,
    ModelSpec,
    SampleSpec,
    SplitSpec,
    TaskSpec,
    WorkerSpec,
)

COUNTS = st.integers(1, 2**31 - 1)
SEEDS = st.integers(0, 2**32 - 1)
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9._]{0,20}", fullmatch=True)
INDICES = st.none() | st.sets(st.integers(0, 99), min_size=1).map(lambda s: tuple(sorted(s)))
WORKER_COUNTS = st.floats(0.01, 1) | st.integers(1, 64).map(float)
SPLITS = st.builds(
    SplitSpec, st.sampled_from(["record", "line", "paragraph", "sentence"])
) | st.builds(SplitSpec, st.just("window"), st.just(12), st.none() | st.integers(1, 12))
MAPS = st.builds(
    MapSpec,
    method=st.just("umap"),
    dims=st.sampled_from([2, 3]),
    joint=st.sampled_from(["translate", "attentionviz", "balance", "lift"]),
    max_tokens=COUNTS,
    seed=SEEDS,
    n_neighbors=st.integers(2, 200),
    min_dist=st.floats(0, 1),
    n_epochs=st.none() | COUNTS,
    stability=st.booleans(),
    when_grown=st.sampled_from(["transform", "fit"]),
)
MAPS |= st.builds(MapSpec, method=st.just("pca"), dims=st.sampled_from([2, 3]), seed=SEEDS)
MAPS |= st.builds(MapSpec, method=st.just("tsne"), perplexity=st.floats(2, 1000))
MAPS |= st.builds(MapSpec, method=st.just("attention"), joint=st.just("lift"))
RESOURCES = st.dictionaries(NAMES, WORKER_COUNTS.filter(bool), max_size=2)
BOOKED = (WORKER_COUNTS, WORKER_COUNTS)
GROUPS = st.builds(
    ActorGroup, COUNTS, *BOOKED, resources=RESOURCES.map(lambda named: tuple(sorted(named.items())))
)
TASKS = st.none() | st.builds(TaskSpec, *BOOKED)
WAITS = st.integers(1, 86400)
WORKERS = st.builds(WorkerSpec, COUNTS, *BOOKED, tasks=TASKS, wait_s=WAITS) | st.builds(
    WorkerSpec, groups=st.lists(GROUPS, min_size=1, max_size=2).map(tuple), tasks=TASKS
)

RUNS = st.builds(
    RunConfig,
    atlas=NAMES.map(lambda name: f"s3://bucket/{name}"),
    corpus=st.builds(
        CorpusSpec,
        NAMES,
        st.lists(NAMES.map(lambda name: f"/data/{name}"), min_size=1).map(tuple),
        NAMES,
        SPLITS,
    ),
    model=st.builds(
        ModelSpec,
        NAMES.map(lambda name: f"org/{name}"),
        NAMES,
        st.none() | NAMES,
        st.sampled_from(["float32", "float16", "bfloat16"]),
        st.sampled_from(["auto", "cpu", "cuda:1"]),
        st.booleans(),
        st.none() | SEEDS,
    ),
    capture=st.builds(
        CaptureSpec,
        layers=INDICES,
        heads=INDICES,
        max_length=st.integers(12, 2**31 - 1),
        special_tokens=st.booleans(),
        part_of_speech=st.none() | NAMES,
        precision=st.sampled_from(["float16", "bfloat16", "float32"]),
        sample=st.builds(SampleSpec, st.floats(0, 1, exclude_min=True), st.none() | COUNTS, SEEDS),
        shard_rows=COUNTS,
        shard_tokens=COUNTS,
        batch_tokens=COUNTS,
    ),
    maps=st.lists(
        MAPS, unique_by=lambda m: replace(m, when_grown="fit", stability=False), max_size=3
    ).map(tuple),
    measures=st.none() | st.builds(MeasureSpec, COUNTS, SEEDS),
    workers=WORKERS,
    budget_bytes=st.integers(1, 2**63 - 1),
)


def dump_workers(workers: WorkerSpec) -> dict[str, Any]:
    """Write the workers: in groups, or in the simple form."""
    found = dict(vars(workers)) | {"tasks": workers.tasks and dict(vars(workers.tasks))}
    groups = [dict(vars(group)) | {"resources": dict(group.resources)} for group in workers.groups]
    simple = {"actors"} if groups else {"groups"}
    return {name: value for name, value in found.items() if name not in simple} | (
        {"groups": groups} if groups else {}
    )


def dump(config: RunConfig) -> dict[str, Any]:
    """Write a run as the YAML would have it."""
    corpus, capture = config.corpus, config.capture
    split: Any = corpus.split.unit
    if split == "window":
        split = {"window": corpus.split.window, "stride": corpus.split.stride}
    sample = {
        "sequences": capture.sample.fraction,
        "limit": capture.sample.limit,
        "seed": capture.sample.seed,
    }
    indices = {
        name: "all" if kept is None else list(kept)
        for name, kept in (("layers", capture.layers), ("heads", capture.heads))
    }
    owners = dict.fromkeys(("n_neighbors", "min_dist", "n_epochs"), "umap") | {"perplexity": "tsne"}
    return {
        "atlas": config.atlas,
        "corpus": {
            "name": corpus.name,
            "source": list(corpus.sources),
            "text_column": corpus.text_column,
            "split": split,
        },
        "model": dict(vars(config.model)),
        "capture": vars(capture) | {"sample": sample} | indices,
        "maps": [
            {k: v for k, v in vars(m).items() if owners.get(k, m.method) == m.method}
            for m in config.maps
        ],
        "measures": config.measures is not None and dict(vars(config.measures)),
        "workers": dump_workers(config.workers),
        "budget_bytes": config.budget_bytes,
    }


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(RUNS)
def test_a_dumped_run_loads_again(tmp_path: Path, config: RunConfig) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(dump(config)), "utf-8")
    assert load_config(path) == config
