"""The Prefect flow: plan, extract, map, measure, publish, each a task with retries."""

from collections.abc import Callable
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from flows.cluster import is_users_mistake
from flows.progress import PrefectSteps
from flows.session import Session
from flows.stages import (
    StageResult,
    extract_stage,
    map_stage,
    measure_stage,
    plan_stage,
    publish_stage,
)

_RETRIES = 2
_RETRY_DELAY_S = 5


def _may_retry(_task: Any, _run: Any, state: Any) -> bool:
    """Retry unless the input is wrong."""
    error = state.result(raise_on_failure=False)
    return not (isinstance(error, BaseException) and is_users_mistake(error))


def _as_task(stage: Callable[[Session], StageResult], name: str) -> Any:
    return task(
        name=name,
        retries=_RETRIES,
        retry_delay_seconds=_RETRY_DELAY_S,
        retry_condition_fn=_may_retry,
        cache_policy=NO_CACHE,
        persist_result=False,
    )(stage)


STAGES = {
    "plan": _as_task(plan_stage, "plan"),
    "extract": _as_task(extract_stage, "extract"),
    "map": _as_task(map_stage, "map"),
    "measure": _as_task(measure_stage, "measure"),
    "publish": _as_task(publish_stage, "publish"),
}


def run_stages(
    session: Session, stages: dict[str, Callable[[Session], StageResult]]
) -> list[StageResult]:
    """Run stages in order; Prefect tasks and plain functions alike."""
    return [run(session) for run in stages.values()]


PLAIN_STAGES: dict[str, Callable[[Session], StageResult]] = {
    "plan": plan_stage,
    "extract": extract_stage,
    "map": map_stage,
    "measure": measure_stage,
    "publish": publish_stage,
}


@flow(name="build-atlas", persist_result=False, validate_parameters=False)  # type: ignore[untyped-decorator]
def build_atlas(session: Session) -> list[StageResult]:
    """Bring an atlas up to date with a configuration.

    Args:
        session: of the run; the caller closes it.

    Returns:
        What each stage did.
    """
    session.steps = PrefectSteps(session.steps)
    results = run_stages(session, STAGES)
    create_table_artifact(
        table=[
            {
                "stage": result.stage,
                "done": result.done,
                "failed": len(result.failed),
                "seconds": round(result.seconds, 1),
                **result.counts,
            }
            for result in results
        ],
        key="qkatlas-result",
        description=f"What the run did to {session.config.atlas}",
    )
    return results
