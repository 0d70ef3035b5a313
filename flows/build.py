"""The Prefect flow: plan, extract, map, measure, publish, each a task with retries."""

import signal
from collections.abc import Callable
from threading import Thread
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

from flows.atlas_turn import atlas_turn
from flows.cluster import is_hopeless
from flows.progress import PrefectSteps
from flows.session import Session
from flows.stages import PLAIN_STAGES, StageResult, run_stages

_RETRIES = 2
_RETRY_DELAY_S = 5


def _may_retry(_task: Any, _run: Any, state: Any) -> bool:
    """Retry unless the same again would end the same."""
    error = state.result(raise_on_failure=False)
    return not (isinstance(error, BaseException) and is_hopeless(error))


def _as_task(stage: Callable[[Session], StageResult], name: str) -> Any:
    return task(
        name=name,
        retries=_RETRIES,
        retry_delay_seconds=_RETRY_DELAY_S,
        retry_condition_fn=_may_retry,
        cache_policy=NO_CACHE,
        persist_result=False,
    )(stage)


STAGES = {name: _as_task(stage, name) for name, stage in PLAIN_STAGES.items()}


class PrefectServer:
    """Prefect's server: the one of PREFECT_API_URL, or one that is started for this run.

    It starts beside other work, and in a thread that lets no Ctrl-C through: a process inherits
    that, so the server outlives the flow whose end it has to record.
    """

    def __init__(self) -> None:
        """Begin to start it."""
        self._error: BaseException | None = None
        self._thread = Thread(target=self._start, name="prefect-server", daemon=True)
        self._thread.start()

    def _start(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            get_client(sync_client=True)
        except Exception as error:
            self._error = error

    def wait(self) -> None:
        """Return when it answers; raise what kept it from starting."""
        self.settle()
        if self._error is not None:
            raise self._error

    def settle(self) -> None:
        """Return when it has started or failed to: a process on its way would be left behind."""
        self._thread.join()


def build_atlas(session: Session, start: Callable[[], None]) -> list[StageResult]:
    """Bring an atlas up to date with a configuration, when it is this run's turn.

    A flow run of its own, or a part of the one that it is called in.

    Args:
        session: of the run; the caller closes it.
        start: starts what the stages need, once the turn has come: who waits holds nothing.

    Returns:
        What each stage did.
    """

    def build() -> list[StageResult]:  # no parameters: Prefect would show them
        return _build(session, start)

    if FlowRunContext.get():
        return build()
    as_flow: Any = flow(name="build-atlas", persist_result=False)(build)
    results: list[StageResult] = as_flow()
    return results


def _build(session: Session, start: Callable[[], None]) -> list[StageResult]:
    session.steps = PrefectSteps(session.steps)
    with atlas_turn(session.config.atlas, tell):
        start()
        results = run_stages(session, STAGES)
    create_table_artifact(
        table=[
            {
                "stage": result.stage,
                "done": result.done,
                "failed": len(result.failed),
                "seconds": round(result.seconds, 1),
                **result.counts,
                **({"notes": "; ".join(result.notes)} if result.notes else {}),
            }
            for result in results
        ],
        key="qkatlas-result",
        description=f"What the run did to {session.config.atlas}",
    )
    return results


def tell(sentence: str) -> None:
    """Say something to whoever started a flow, and to those who look at it in Prefect."""
    print(sentence, flush=True)
    get_run_logger().info(sentence)
