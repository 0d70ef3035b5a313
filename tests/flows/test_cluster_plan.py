import inspect
import io
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import qkatlas
from flows.cluster_plan import (
    USD_PER_GB_MONTH,
    Load,
    add_rows,
    count_workers,
    gpus_per_worker,
    plan_cluster,
    price_load,
    threads_per_worker,
)
from flows.estimate import EstimateRow, estimate_run
from flows.probe import Probe, WriterRate
from pipeline.settings import ActorGroup, WorkerSpec
from store.errors import ConfigError
from tests.flows.tiny_run import N_FILES, make_run, run_here, save_model

MANY = Load(n_tokens=3_600_000, n_bytes=2_000_000_000, n_files=80, n_shards=10)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


def said(*arguments: object, **options: object) -> str:
    file = io.StringIO()
    console = Console(file=file, width=200)
    plan_cluster(arguments[0], console, *arguments[1:], **options)  # type: ignore[arg-type]
    return file.getvalue()


def test_hours_are_tokens_over_the_rate() -> None:
    costs = price_load(MANY, n_workers=5, tokens_per_s=100, gpus_per_worker=0.5)
    assert (costs.worker_hours, costs.gpu_hours, costs.wall_s) == (10, 5, 7200)
    assert costs.usd_per_month == pytest.approx(2 * 0.023)


def test_workers_take_whole_shards() -> None:
    walls = {n: price_load(MANY, n, tokens_per_s=100).wall_s for n in (1, 3, 9, 10, 1000)}
    assert walls == {1: 36_000, 3: 14_400, 9: 7200, 10: 3600, 1000: 3600}


def test_without_a_rate_only_storage_is_known() -> None:
    costs = price_load(MANY, 2, usd_per_gb_month=0.5)
    assert (costs.usd_per_month, costs.worker_hours, costs.wall_s) == (1.0, None, None)


def test_nothing_costs_nothing() -> None:
    costs = price_load(Load(0, 0, 0, 0), 2, tokens_per_s=5)
    assert (costs.worker_hours, costs.wall_s, costs.usd_per_month) == (0, 0, 0)


@given(st.integers(0, 10**9), st.integers(1, 500), st.integers(1, 600), st.floats(0.1, 1e6))
def test_no_cluster_is_faster_than_its_workers_together(
    n_tokens: int, n_shards: int, n_workers: int, rate: float
) -> None:
    costs = price_load(Load(n_tokens, 0, 0, n_shards), n_workers, rate)
    assert costs.worker_hours is not None and costs.wall_s is not None
    assert costs.wall_s * n_workers >= costs.worker_hours * 3600 * (1 - 1e-9)
    assert costs.wall_s <= costs.worker_hours * 3600 * (1 + 1e-9)


@pytest.mark.parametrize(
    ("n_workers", "rate", "price", "reason"),
    [
        (0, None, 0.02, "at least one worker and a price of 0 or more, got 0 and"),
        (1, None, -1.0, r"got 1 and -1\.0: give --workers and --price"),
        (1, None, float("nan"), "got 1 and nan"),
        (1, 0.0, 0.02, r"above 0 tokens a second, got 0\.0: probe longer"),
    ],
)
def test_amounts_that_are_none_are_refused(
    n_workers: int, rate: float | None, price: float, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        price_load(MANY, n_workers, rate, usd_per_gb_month=price)


def test_stacks_of_one_model_share_each_pass() -> None:
    rows = [EstimateRow("t5--encoder", 5, 100, 2, 20, 700), EstimateRow("t5--x", 5, 90, 2, 10, 300)]
    assert add_rows(rows) == Load(100, 1000, 30, 2)
    assert add_rows([]) == Load(0, 0, 0, 0)


def test_groups_of_workers_are_counted_together() -> None:
    groups = (ActorGroup(actors=3, num_gpus=1.0), ActorGroup(actors=1))
    mixed = WorkerSpec(groups=groups)
    assert (count_workers(mixed), gpus_per_worker(mixed)) == (4, 0.75)
    plain = WorkerSpec(actors=2, num_gpus=0.5)
    assert (count_workers(plain), gpus_per_worker(plain)) == (2, 0.5)


def test_a_worker_is_measured_with_the_threads_that_a_run_gives_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    large, small = ActorGroup(2, num_cpus=8), ActorGroup(6, num_cpus=2.5)
    mixed = WorkerSpec(groups=(large, small))
    assert threads_per_worker(mixed) == 64 // 8, "they share this machine"
    assert threads_per_worker(mixed, 100) == 2, "of a cluster that is thought of"
    assert threads_per_worker(WorkerSpec(num_cpus=0.5), 100) == 1
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert threads_per_worker(WorkerSpec(num_cpus=4)) == 4


def test_a_plain_plan_adds_what_storage_costs(tmp_path: Path, model: Path) -> None:
    config = make_run(tmp_path, model)
    (row,) = estimate_run(config).rows
    text = said(config, price=1e6)
    for cell in row.cells():
        assert cell in text
    assert f"{row.bytes / 1e9 * 1e6:,.2f} USD a month of storage, at 1e+06 a GB" in text
    assert "--probe measures how long it takes" in text and "hours" not in text
    assert not Path(config.atlas).exists()


def test_a_plan_with_a_probe_says_how_long_a_cluster_takes(tmp_path: Path, model: Path) -> None:
    config = make_run(tmp_path, model, 200, capture={"max_length": 32, "shard_rows": 20})
    config = replace(config, workers=replace(config.workers, num_gpus=0.5))
    text = said(config, 4, 0.4)
    for part in (
        "Probe: cpu",
        "a worker of 1 thread(s)",
        "worker-hours",
        "GPU-hours",
        "on 4 workers like this",
    ):
        assert part in text
    assert "lower capture.shard_tokens" not in text
    assert "10 shard(s) keep at most as many workers at work" in said(config, 11)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.txt", "tiny.yaml"]


def test_a_gpu_that_a_cluster_would_not_give_is_told(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rate = WriterRate(1, 1000.0, 1e6)
    probe = Probe("cuda", 8, 8, 1.0, 100, 10, rate, rate, 1)
    monkeypatch.setattr("flows.probe.probe_machine", lambda *_: probe)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = make_run(tmp_path, model)
    note = "measured on cuda; on a cluster a worker computes on CPUs"
    assert note in said(config, 4, 1.0) and note not in said(config, None, 1.0)
    booked = replace(config, workers=replace(config.workers, num_gpus=1.0))
    assert note not in said(booked, 4, 1.0)


def test_what_is_up_to_date_costs_nothing_more(tmp_path: Path, model: Path) -> None:
    config = make_run(tmp_path, model, maps=[], measures=False)
    run_here(config)
    assert said(config) == "nothing to do: the atlas is up to date\n"


def test_files_and_bytes_are_those_of_the_estimate(tmp_path: Path, model: Path) -> None:
    config = make_run(tmp_path, model, capture={"max_length": 32, "shard_rows": 10})
    (row,) = estimate_run(config).rows
    load = add_rows([row])
    assert (load.n_shards, load.n_files, load.n_bytes) == (4, 4 * N_FILES, row.bytes)


def test_the_price_of_the_help_is_that_of_the_page() -> None:
    assert inspect.signature(qkatlas.plan).parameters["price"].default == USD_PER_GB_MONTH
