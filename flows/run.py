"""One run from configuration to results; says at once when nothing is to do."""

import os
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from flows.config import RunConfig
from flows.dashboards import show_dashboards
from flows.environment import prepare_environment
from flows.log import configure_logs, log_run
from flows.progress import show_bars
from flows.work import Work, find_work
from store.errors import ConfigError, StageError
from store.snapshot import local_path

if TYPE_CHECKING:
    from flows.session import Session


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
        for note in work.due:
            console.print(f"[yellow]{escape(note)}", highlight=False, soft_wrap=True)
        _refuse_given_up(work)
        return None
    check_writable(config.atlas)
    configure_logs()
    console.print("[dim]starting Prefect and Ray …")
    from flows.atlas_turn import has_queue
    from flows.build import PrefectServer, build_atlas
    from flows.session import Session

    server = PrefectServer()
    with show_bars(console) as bars:
        session = Session(config, strict, bars)
        start = cache(partial(_start, session, console))  # once
        try:
            with log_run(atlas=config.atlas, model=config.model.key, corpus=config.corpus.name):
                if not has_queue():  # nobody to wait for: Ray starts beside Prefect
                    start()
                server.wait()
                results: list[Any] = build_atlas(session, start)
        finally:
            session.close()
            server.settle()
    return results


def _start(session: "Session", console: Console) -> None:
    from flows.cluster import note_idle_gpus

    session.start()
    if note := note_idle_gpus(session.config.workers):
        console.print(f"[yellow]{escape(note)}", highlight=False, soft_wrap=True)
    show_dashboards(console, session.dashboard)


def check_writable(uri: str) -> None:
    """Refuse an atlas that lies where nothing can be written, before anything is started.

    Raises:
        ConfigError: a local folder cannot be made or written to.
    """
    path = local_path(uri)
    if path is None:
        return
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if not there.is_dir():
        raise ConfigError(f"atlas: {path} cannot be made, as {there} is a file; choose a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"atlas: {there} may not be written to; choose another folder")


def _refuse_given_up(work: Work) -> None:
    """Say that rows are missing, though nothing is left to try.

    Raises:
        StageError: shards of this corpus were given up.
    """
    if work.given_up:
        raise StageError(
            f"nothing is left to do, but {work.given_up} shard(s) are quarantined and their rows "
            "missing: `qkatlas status` says why, `qkatlas retry` plans them again"
        )


def _note_vanished(work: Work, console: Console) -> None:
    if work.vanished:
        console.print(
            f"[yellow]{len(work.vanished)} captured file(s) are no longer among the sources; "
            f"their sequences stay: {escape(work.vanished[0])}"
        )
