"""What a person sees at the end of a run: a row a stage, notes, and what was given up."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:  # it loads Ray, which a run with nothing to do does without
    from flows.stages import StageResult


def show_results(results: Sequence["StageResult"], console: Console) -> None:
    """Print a row a stage, then what the owner should decide."""
    table = Table("stage", box=box.SIMPLE_HEAD)
    for name in ("done", "failed", "seconds"):
        table.add_column(name, justify="right")
    table.add_column("notes")
    for result in results:
        notes = ", ".join(
            f"{n:,} {name.removeprefix('n_')}" for name, n in result.counts.items() if n
        )
        table.add_row(
            result.stage, str(result.done), str(len(result.failed)), f"{result.seconds:.1f}", notes
        )
    console.print(table)
    for result in results:
        for note in result.notes:
            console.print(f"[yellow]{escape(note)}", highlight=False, soft_wrap=True)


def show_failed(results: Sequence["StageResult"], errors: Console) -> bool:
    """Print how much work was given up, and the first reason; `status` has them all.

    The last line counts the quarantined shards of the run's models, those of earlier runs too.

    Returns:
        True where any was.
    """
    failed = [reason for result in results for reason in result.failed]
    if failed:
        errors.print(
            f"[red]failed[/]: {len(failed):,} unit(s) of work were given up, the rest is visible; "
            f"the first: {escape(failed[0])}",
            soft_wrap=True,
            highlight=False,
        )
    n_quarantined = sum(result.counts.get("n_quarantined", 0) for result in results)
    if n_quarantined:
        errors.print(
            f"[red]quarantined[/]: {n_quarantined:,} shard(s); `qkatlas status` says why, "
            "`qkatlas retry` plans them again",
            soft_wrap=True,
            highlight=False,
        )
    return bool(failed) or n_quarantined > 0
