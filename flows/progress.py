"""How far a run is: bars in the terminal, and a progress artifact in Prefect where a flow runs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Steps(Protocol):
    """Told of a stage's progress."""

    def start(self, stage: str, total: float, unit: str) -> None:
        """A stage begins that has this much to do."""

    def advance(self, amount: float, note: str = "") -> None:
        """So much more is done."""

    def finish(self) -> None:
        """The stage has ended."""


class NoSteps:
    """Progress that nobody watches."""

    def start(self, stage: str, total: float, unit: str) -> None:
        """Ignore it."""

    def advance(self, amount: float, note: str = "") -> None:
        """Ignore it."""

    def finish(self) -> None:
        """Ignore it."""


class Bars:
    """A bar in the terminal for each stage."""

    def __init__(self, progress: Progress) -> None:
        """Draw on a live rich progress."""
        self._progress = progress
        self._task: TaskID | None = None

    def start(self, stage: str, total: float, unit: str) -> None:
        """Add a bar."""
        self._task = self._progress.add_task(stage, total=total, unit=unit, note="")

    def advance(self, amount: float, note: str = "") -> None:
        """Move the bar."""
        if self._task is not None:
            self._progress.update(self._task, advance=amount, note=note)

    def finish(self) -> None:
        """Fill the bar and leave it."""
        if self._task is not None:
            total = self._progress.tasks[self._task].total
            self._progress.update(self._task, completed=total, note="")
            self._task = None


@contextmanager
def show_bars(console: Console) -> Iterator[Bars]:
    """Bars on a console for as long as the block runs."""
    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description:<8}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield Bars(progress)


class PrefectSteps:
    """Passes progress on, and keeps a Prefect progress artifact up to date."""

    def __init__(self, inner: Steps, every_s: float = 5.0) -> None:
        """Update the artifact at most once in so many seconds."""
        self._inner = inner
        self._every_s = every_s
        self._artifact: object = None
        self._last = 0.0
        self._done = 0.0
        self._total = 0.0

    def start(self, stage: str, total: float, unit: str) -> None:
        """Create the artifact."""
        from prefect.artifacts import create_progress_artifact

        self._inner.start(stage, total, unit)
        self._done, self._total, self._last = 0.0, total, time.monotonic()
        self._artifact = create_progress_artifact(
            progress=0.0, key=f"qkatlas-{stage}", description=f"{stage}: {total:,.0f} {unit}"
        )

    def advance(self, amount: float, note: str = "") -> None:
        """Update the artifact if it is time."""
        self._inner.advance(amount, note)
        self._done += amount
        if time.monotonic() - self._last >= self._every_s:
            self._update(100 * self._done / max(self._total, 1e-9))

    def finish(self) -> None:
        """Set the artifact to 100 %."""
        self._inner.finish()
        self._update(100.0)

    def _update(self, percent: float) -> None:
        from prefect.artifacts import update_progress_artifact

        self._last = time.monotonic()
        update_progress_artifact(artifact_id=self._artifact, progress=min(100.0, percent))
