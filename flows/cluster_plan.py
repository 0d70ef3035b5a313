"""What a run costs on a cluster: hours of workers and GPUs, wall time, and storage by the month.

Plain arithmetic over counts and a rate; `flows.probe` measures the rate on this machine, and
`flows.scale_table` assumes one for machines that are not at hand.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.config import RunConfig
from flows.environment import ray_address
from flows.estimate import Estimate, EstimateRow, estimate_run
from flows.quantities import format_seconds, short
from pipeline.settings import WorkerSpec
from store.errors import ConfigError

if TYPE_CHECKING:
    from flows.probe import Probe

USD_PER_GB_MONTH = 0.023
"""Amazon S3 Standard, first 50 TB, us-east-1, list price; larger amounts and colder classes are
cheaper. A GB is 10^9 bytes here."""


@dataclass(frozen=True)
class Load:
    """What a run has to get through."""

    n_tokens: int
    """Tokens that pass through the model: once, however many stacks it has."""
    n_bytes: int
    n_files: int
    n_shards: int
    """Units of work; each is done by one worker."""


@dataclass(frozen=True)
class Costs:
    """What getting through it takes, maps and measures not counted."""

    n_workers: int
    usd_per_month: float
    worker_hours: float | None = None
    """None where no rate is known."""
    gpu_hours: float | None = None
    wall_s: float | None = None
    """Seconds until the last worker has ended; shards are whole, so few of them leave some idle."""


def price_load(
    load: Load,
    n_workers: int,
    tokens_per_s: float | None = None,
    gpus_per_worker: float = 0.0,
    usd_per_gb_month: float = USD_PER_GB_MONTH,
) -> Costs:
    """What a load takes on so many workers that each do so many tokens a second.

    Raises:
        ConfigError: there are no workers, or a price or a rate is no amount.
    """
    if n_workers < 1 or not usd_per_gb_month >= 0:
        raise ConfigError(
            f"a plan needs at least one worker and a price of 0 or more, got {n_workers} and "
            f"{usd_per_gb_month}: give --workers and --price"
        )
    usd = load.n_bytes / 1e9 * usd_per_gb_month
    if tokens_per_s is None:
        return Costs(n_workers, usd)
    if not tokens_per_s > 0:
        raise ConfigError(f"a rate is above 0 tokens a second, got {tokens_per_s}: probe longer")
    seconds = load.n_tokens / tokens_per_s
    rounds = math.ceil(load.n_shards / n_workers)
    hours = seconds / 3600
    wall_s = rounds * seconds / max(1, load.n_shards)
    return Costs(n_workers, usd, hours, hours * gpus_per_worker, wall_s)


def plan_cluster(
    config: RunConfig,
    console: Console,
    n_workers: int | None = None,
    probe_s: float | None = None,
    price: float = USD_PER_GB_MONTH,
) -> None:
    """Print what a run would write, and what it takes on a cluster.

    Args:
        config: of the run.
        console: to print on.
        n_workers: capture actors of a cluster; None means those of the configuration.
        probe_s: seconds to measure one of them on this machine for; None measures nothing.
        price: of storage, USD a GB and month.

    Raises:
        AtlasError: what would stop the run before it captures.
    """
    estimate = estimate_run(config)
    show_estimate(estimate, console)
    probe = None
    if probe_s is not None:
        from flows.probe import probe_machine  # it loads torch

        probe = probe_machine(config, probe_s, threads_per_worker(config.workers, n_workers))
        show_probe(probe, console)
        is_elsewhere = bool(n_workers or ray_address())
        if probe.device != "cpu" and is_elsewhere and not gpus_per_worker(config.workers):
            console.print(
                f"[yellow]measured on {probe.device}; on a cluster a worker computes on CPUs "
                "unless workers.num_gpus books a GPU",
                highlight=False,
            )
    if not estimate.rows:
        return
    rate = probe.tokens_per_s if probe else None
    n_workers = n_workers or count_workers(config.workers)
    gpus = gpus_per_worker(config.workers)
    load = add_rows(estimate.rows)
    show_costs(price_load(load, n_workers, rate, gpus, price), price, console)
    if load.n_shards < n_workers:
        console.print(
            f"[yellow]{load.n_shards:,} shard(s) keep at most as many workers at work; lower "
            f"capture.shard_tokens ({config.capture.shard_tokens:,}) to spread them over more",
            highlight=False,
        )


def add_rows(rows: Sequence[EstimateRow]) -> Load:
    """What the models of one run are together; stacks of one model share each pass."""
    return Load(
        max((row.n_tokens for row in rows), default=0),
        sum(row.bytes for row in rows),
        sum(row.n_files for row in rows),
        max((row.n_shards for row in rows), default=0),
    )


def count_workers(workers: WorkerSpec) -> int:
    """Capture actors that a configuration asks for."""
    return sum(group.actors for group in workers.actor_groups)


def threads_per_worker(workers: WorkerSpec, n_workers: int | None = None) -> int:
    """Threads that a capture actor computes with: the slower kind's, where there are several.

    Args:
        workers: of the configuration.
        n_workers: of a cluster that is thought of; None means that the run is made from here.
    """
    if n_workers or ray_address():
        return min(group.n_threads for group in workers.actor_groups)
    return max(1, (os.cpu_count() or 1) // count_workers(workers))


def gpus_per_worker(workers: WorkerSpec) -> float:
    """GPUs that a capture actor books, on average over the groups."""
    booked = sum(group.actors * group.num_gpus for group in workers.actor_groups)
    return booked / max(1, count_workers(workers))


def show_estimate(estimate: Estimate, console: Console) -> None:
    """Print a row a model, then what its owner should know."""
    table = Table("model", box=box.SIMPLE_HEAD)
    for name in ("sequences", "tokens", "shards", "files", "bytes", "mean file"):
        table.add_column(name, justify="right")
    for row in estimate.rows:
        table.add_row(*row.cells())
    if estimate.rows:
        console.print(table)
    for note in estimate.notes:
        console.print(f"[yellow]{escape(note)}", highlight=False)


def show_probe(probe: "Probe", console: Console) -> None:
    """Print what this machine did."""
    table = Table(
        "writers",
        title=escape(f"Probe: {probe.device}, {probe.n_cores} cores, {probe.seconds:g} s"),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("tokens/s", justify="right")
    table.add_column("M elements/s encoded", justify="right")
    for rate in (probe.one, probe.many):
        speed = f"{rate.elements_per_s / 1e6:,.1f}"
        table.add_row(str(rate.writers), f"{rate.tokens_per_s:,.0f}", speed)
    console.print(table)
    console.print(
        f"a worker of {probe.n_threads} thread(s); "
        f"{probe.n_tokens:,} tokens of {probe.elements_per_token:,} elements each; "
        + ("encoding sets the pace" if probe.is_storage_bound else "the model sets the pace"),
        highlight=False,
        soft_wrap=True,
    )


def show_costs(costs: Costs, price: float, console: Console) -> None:
    """Print what a run takes on a cluster, a fact a line."""
    lines = []
    if costs.wall_s is not None and costs.worker_hours is not None:
        lines.append(f"{short(costs.worker_hours)} worker-hours")
        if costs.gpu_hours:
            lines.append(f"{short(costs.gpu_hours)} GPU-hours")
        lines.append(f"{format_seconds(costs.wall_s)} on {costs.n_workers:,} workers like this")
    lines.append(f"{costs.usd_per_month:,.2f} USD a month of storage, at {price:g} a GB (--price)")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
    if costs.wall_s is None:
        console.print("[dim]--probe measures how long it takes", highlight=False)
