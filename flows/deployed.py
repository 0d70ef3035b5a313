"""The flows that Prefect starts on a schedule: plain parameters, and the code of `qkatlas run`.

`infra/prefect.yaml` deploys them. Prefect stores parameters and states and shows them to all who
see its page, so credentials are never among them: a worker has them in its environment.
"""

import os
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from typing import Annotated, Any, Literal

from prefect import flow
from pydantic import Field
from rich.console import Console
from typer import Exit

from flows.config import RunConfig, load_config
from store.errors import AtlasError, ConfigError, StageError
from store.object_errors import CREDENTIALS

MOST_ATTEMPTS = 3
"""So often in a row a run may crash and run again: Prefect refuses more, by the schema below."""

_NO_CREDENTIALS = {"pattern": rf"^(?![\s\S]*(?:{CREDENTIALS.pattern}))"}
"""In the schema, by which Prefect's server refuses a parameter before it stores it."""

ConfigPath = Annotated[
    str, Field(min_length=1, description="YAML file of the run: an absolute path on the worker.")
]
Overrides = Annotated[
    list[str] | None,
    Field(
        description="Fields to replace, each as for `--set`: `a.b=c`.",
        json_schema_extra={"items": _NO_CREDENTIALS},
    ),
]
AtlasUri = Annotated[
    str | None,
    Field(
        description="In place of the configuration's atlas; without credentials.",
        json_schema_extra=_NO_CREDENTIALS,
    ),
]
Attempt = Annotated[
    int,
    Field(ge=1, le=MOST_ATTEMPTS, description="Counted by the automation that runs it again."),
]
Step = Literal["compact", "checkpoint", "vacuum", "check"]
_SHOWN = 2_000
STEPS: tuple[Step, ...] = ("compact", "checkpoint", "vacuum", "check")


@flow(name="nightly-build", persist_result=False)  # type: ignore[untyped-decorator]
def nightly_build(
    config: ConfigPath,
    overrides: Overrides = None,
    atlas: AtlasUri = None,
    attempt: Attempt = 1,
) -> dict[str, int]:
    """Capture, map and measure what is new in a corpus; what the atlas has is not touched.

    Args:
        config: YAML file of the run, as an absolute path.
        overrides: replace fields of it.
        atlas: takes the place of its `atlas`.
        attempt: 1, and one more each time that the run before it crashed.

    Returns:
        Units of work done, a stage each; empty where nothing was to do.

    Raises:
        StageError: work was given up, now or by an earlier run.
    """
    return build(read_config(config, overrides, atlas))


@flow(name="refresh-maps", persist_result=False)  # type: ignore[untyped-decorator]
def refresh_maps(
    config: ConfigPath,
    overrides: Overrides = None,
    atlas: AtlasUri = None,
    only_due: bool = True,
    attempt: Attempt = 1,
) -> dict[str, int]:
    """Fit maps anew that sequences were added to, over all that is visible now.

    Args:
        config: YAML file of the run, as an absolute path.
        overrides: replace fields of it.
        atlas: takes the place of its `atlas`.
        only_due: do nothing unless added points fit in badly or are more than the fitted.
        attempt: 1, and one more each time that the run before it crashed.

    Returns:
        Units of work done, a stage each; empty where nothing was to do.

    Raises:
        StageError: work was given up, now or by an earlier run.
    """
    checked = read_config(config, overrides, atlas)
    if only_due and not has_due_maps(checked.atlas):
        return {}
    maps = tuple(replace(spec, when_grown="fit") for spec in checked.maps)
    return build(replace(checked, maps=maps))


@flow(name="maintain", persist_result=False)  # type: ignore[untyped-decorator]
def maintain(
    config: ConfigPath,
    overrides: Overrides = None,
    atlas: AtlasUri = None,
    steps: list[Step] | None = None,
    attempt: Attempt = 1,
) -> dict[str, str]:
    """Merge small files, write checkpoints, delete what no version needs, check what is there.

    Args:
        config: YAML file of the run, as an absolute path; only its `atlas` is used.
        overrides: replace fields of it.
        atlas: takes the place of its `atlas`.
        steps: in this order; all of them where it is not given.
        attempt: 1, and one more each time that the run before it crashed.

    Returns:
        What each step printed.

    Raises:
        StageError: a step failed or the check found damage; the steps after it were done.
    """
    from flows.atlas_turn import atlas_turn
    from flows.build import tell

    uri = read_config(config, overrides, atlas).atlas
    failed: list[str] = []
    said: dict[str, str] = {}
    with atlas_turn(uri, tell):
        for step in STEPS if steps is None else steps:
            try:
                said[step] = run_step(step, uri)
            except StageError as error:
                failed.append(str(error))
            except AtlasError as error:
                failed.append(f"maintain {step}: {error}")
    if failed:
        raise StageError("\n".join(failed))
    return said


def read_config(
    config: str, overrides: Sequence[str] | None = None, atlas: str | None = None
) -> RunConfig:
    """The checked run of a deployment's parameters.

    Raises:
        ConfigError: the file is wrong or its path relative, or a parameter holds credentials.
    """
    if not os.path.isabs(config):
        raise ConfigError(
            f"config: expected an absolute path, got '{config}'; a worker runs each flow in a "
            "folder of its own"
        )
    for name, text in (("atlas", atlas), *(("overrides", each) for each in overrides or ())):
        if text is not None and CREDENTIALS.search(text):
            raise ConfigError(
                f"{name}: holds credentials, which Prefect stores and shows with the parameters; "
                "change them, and give them to the worker in its environment"
            )
    return load_config(config, overrides or (), atlas)


def build(config: RunConfig) -> dict[str, int]:
    """Do what `qkatlas run` does and fail where it exits with 1.

    Raises:
        StageError: work was given up, now or by an earlier run.
    """
    from flows.run import run

    results = run(config, Console(quiet=True)) or []
    refuse_given_up(results)
    return {result.stage: result.done for result in results}


def refuse_given_up(results: Sequence[Any]) -> None:
    """Fail a run that left rows out, so that somebody sees it in the morning.

    Args:
        results: `flows.stages.StageResult` of each stage.

    Raises:
        StageError: work was given up, now or by an earlier run.
    """
    failed = [reason for result in results for reason in result.failed]
    quarantined = max((result.counts.get("n_quarantined", 0) for result in results), default=0)
    if failed or quarantined:
        first = f"; the first: {failed[0]}" if failed else ""
        raise StageError(
            f"{len(failed):,} unit(s) of work were given up by this run{first}; {quarantined:,} "
            "shard(s) are quarantined and their rows missing: `qkatlas status` says why, and "
            "`qkatlas retry` plans them again; the rest is visible"
        )


def has_due_maps(uri: str) -> bool:
    """Whether maps of an atlas need a new fit, as `qkatlas status` says."""
    from flows.growth import find_due_fits
    from flows.work import load_snapshot

    snapshot = load_snapshot(uri)
    return snapshot is not None and bool(find_due_fits(snapshot.newest_maps()))


def run_step(step: Step, uri: str) -> str:
    """Do what `qkatlas maintain STEP` does, and return what it prints.

    Raises:
        StageError: it exits with 1, as `check` does where it finds damage.
    """
    from flows import maintain_commands

    said = StringIO()
    try:
        with redirect_stdout(said):
            getattr(maintain_commands, step)(uri)
    except Exit:
        raise StageError(f"maintain {step}: {said.getvalue().strip()[:_SHOWN]}") from None
    return said.getvalue().strip()
