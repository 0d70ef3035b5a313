"""One run from configuration to results; says at once when nothing is to do."""

from typing import Any

from rich.console import Console

from flows.config import RunConfig
from flows.environment import prepare_environment
from flows.progress import show_bars
from flows.work import Work, find_work


def run(config: RunConfig, console: Console, strict: bool = False) -> list[Any] | None:
    """Bring an atlas up to date.

    Args:
        config: of the run.
        console: for progress and notes.
        strict: stop at the first row that cannot be read.

    Returns:
        What each stage did (`flows.stages.StageResult`); None when nothing was to do.
    """
    prepare_environment()
    work = find_work(config)
    _note_vanished(work, console)
    if work.is_done:
        return None
    console.print("[dim]starting Prefect and Ray …")
    from flows.build import PrefectServer, build_atlas
    from flows.session import Session

    server = PrefectServer()
    with show_bars(console) as bars:
        session = Session(config, strict, bars)
        try:
            session.start()
            server.wait()
            results: list[Any] = build_atlas(session)
        finally:
            session.close()
    return results


def _note_vanished(work: Work, console: Console) -> None:
    if work.vanished:
        console.print(
            f"[yellow]{len(work.vanished)} captured file(s) are no longer among the sources; "
            f"their sequences stay: {work.vanished[0]}"
        )
