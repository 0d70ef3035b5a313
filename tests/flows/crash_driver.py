"""The stages plan, extract and publish of a run in a process of its own, which may be told to die.

`python -m tests.flows.crash_driver CONFIG.yaml [N]`: with N the process ends without a word
before its N-th commit, counted from 1. No part of QK Atlas knows of it.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

from deltalake import DeltaTable

import flows.stages
import store.lake
from flows.config import load_config
from flows.environment import prepare_environment
from flows.session import Session

DIED = 9


def die_before_commit(number: int) -> None:
    """End this process at its n-th commit, of files and of rows alike."""
    left = [number]

    def guard(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os._exit(DIED)
            return original(*arguments, **named)

        return call

    for owner, name in ((DeltaTable, "create_write_transaction"), (store.lake, "write_deltalake")):
        setattr(owner, name, guard(getattr(owner, name)))


def main(path: str, number: int) -> None:
    """Run the stages; several commits, although the run is short."""
    prepare_environment()
    if number:
        die_before_commit(number)
    vars(flows.stages)["_COMMIT_EVERY_S"] = 0.2
    session = Session(load_config(path))
    try:
        for stage in (flows.stages.plan_stage, flows.stages.extract_stage):
            stage(session)
        assert flows.stages.publish_stage(session).failed == []
    finally:
        session.close()


if __name__ == "__main__":
    main(sys.argv[1], int((sys.argv[2:] or ["0"])[0]))
