"""Drivers that commit to one atlas, stopped between steps, interleaved and killed at will."""

import threading
from collections.abc import Callable, Sequence
from itertools import chain, cycle
from typing import Any

import pytest
from deltalake import DeltaTable

import store.lake

COMMITS: tuple[tuple[Any, str], ...] = (
    (DeltaTable, "create_write_transaction"),
    (store.lake, "write_deltalake"),
)


def crash_at(
    monkeypatch: pytest.MonkeyPatch, step: int, make_error: Callable[[], BaseException]
) -> None:
    """Let every commit from the n-th on raise, files and ledger rows alike."""
    count = [0]

    def guard(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if count[0] >= step:
                raise make_error()
            count[0] += 1
            return original(*arguments, **named)

        return call

    for owner, name in COMMITS:
        monkeypatch.setattr(owner, name, guard(getattr(owner, name)))


class Crash(BaseException):
    """The driver dies here."""


class Stepper:
    """Runs drivers as threads of which one moves at a time, from one step to the next."""

    def __init__(self) -> None:
        self.back = threading.Semaphore(0)
        self.go: dict[str, threading.Semaphore] = {}
        self.dying: set[str] = set()
        self.waiting: set[str] = set()

    def run(self, jobs: dict[str, Callable[[], None]], turns: Sequence[tuple[str, bool]]) -> None:
        """Take these turns (driver, and whether it dies in it), then others until all ended."""
        threads = {}
        for name, job in jobs.items():
            self.go[name] = threading.Semaphore(0)
            threads[name] = threading.Thread(target=self._drive, args=(job,), name=name)
            threads[name].start()
        for name, dies in chain(turns, cycle([(name, False) for name in jobs])):
            if not any(thread.is_alive() for thread in threads.values()):
                return
            if threads[name].is_alive():
                self.dying |= {name} if dies else set()
                self.go[name].release()
                assert self.back.acquire(timeout=60)
                if name not in self.waiting:
                    threads[name].join(60)

    def _drive(self, job: Callable[[], None]) -> None:
        name = threading.current_thread().name
        self.go[name].acquire(timeout=60)
        try:
            job()
        except Crash:
            pass
        finally:
            self.waiting.discard(name)
            self.back.release()

    def pause(self) -> None:
        """End a driver's turn; one that shall die does so when its next turn comes."""
        name = threading.current_thread().name
        if name in self.go:
            self.waiting.add(name)
            self.back.release()
            self.go[name].acquire(timeout=60)
            self.waiting.discard(name)
            if name in self.dying:
                raise Crash


def stop_between_steps(monkeypatch: pytest.MonkeyPatch, stepper: Stepper) -> None:
    """Let drivers stop before each look at a table and around each commit."""

    def around(original: Callable[..., Any], behind: bool) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            stepper.pause()
            result = original(*arguments, **named)
            if behind:
                stepper.pause()
            return result

        return call

    for owner, name in (*COMMITS, (store.lake, "open_table")):
        monkeypatch.setattr(owner, name, around(getattr(owner, name), name != "open_table"))
