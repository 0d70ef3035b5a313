"""The configuration of a run: a YAML file in, frozen values of `pipeline.settings` out.

Everything is checked here, before anything runs, and neither torch nor ray is loaded for it.
`python -m flows.config markdown` (or `schema`) prints `docs/configuration.md` (or its JSON Schema).
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flows.config_sections import Measures, Run
from flows.config_words import describe_fields, list_problems
from flows.config_yaml import put_overrides, read_mapping
from pipeline.settings import (
    CaptureSpec,
    CorpusSpec,
    MapSpec,
    MeasureSpec,
    ModelSpec,
    WorkerSpec,
)
from store.errors import ConfigError

INTRODUCTION = """\
# Configuration

A run is one YAML file; `examples/` holds three to start from. Every field is checked before
anything runs, and a field that is not on this page is refused. This page and
`configuration.schema.json`, which editors read, are made from the code that checks, by
`python -m flows.config markdown` and `python -m flows.config schema`.

- Relative paths (`atlas`, `corpus.source`, and `model.name` where it is a folder or a file) are
  seen from the folder of the YAML file. `~` and environment variables (`$DATA`, `${DATA}`) are
  replaced; one that is not set is refused.
- `--set path=value` on the command line replaces one field, its value written as in YAML:
  `--set capture.layers=[0,1]`, `--set maps.0.dims=3`, `--set 'maps=[{method: pca}]'`.
- Scalars are those of YAML 1.2: only `true` and `false` are truth values. Text that looks like a
  number needs quotes.
"""


@dataclass(frozen=True)
class RunConfig:
    """A checked run, as the stages take it."""

    atlas: str
    """URI or absolute folder of the atlas."""
    corpus: CorpusSpec
    """What is read."""
    model: ModelSpec
    """What reads it."""
    capture: CaptureSpec
    """What is kept."""
    maps: tuple[MapSpec, ...]
    """Maps of each head; empty means none."""
    measures: MeasureSpec | None
    """How head measures are taken; None means not at all."""
    workers: WorkerSpec
    """What the workers may use."""
    budget_bytes: int
    """Most bytes that the run may write."""


def load_config(
    path: str | Path, overrides: Sequence[str] = (), atlas: str | None = None
) -> RunConfig:
    """Return the checked run of a YAML file.

    Args:
        path: the YAML file; its relative paths are seen from its folder.
        overrides: `--set` arguments such as `capture.max_length=256`; paths as in the file.
        atlas: takes the place of the file's `atlas`; a relative one is seen from the
            current folder.

    Raises:
        ConfigError: the file cannot be read, or fields are wrong; the message lists every problem.
    """
    content, changed = put_overrides(read_mapping(Path(path)), overrides)
    folder = os.path.dirname(os.path.abspath(path))
    context = {"folder": folder, "atlas_folder": folder}
    if atlas is not None:
        content, context["atlas_folder"] = {**content, "atlas": atlas}, os.getcwd()
    try:
        return _make_run(Run.model_validate(content, context=context))
    except ValidationError as error:
        errors = error.errors(include_url=False)
    lines = list_problems(errors, content, config_json_schema(), changed)
    opening = f"{path}: " if len(lines) == 1 else f"{path}: {len(lines)} problems\n  "
    raise ConfigError(opening + "\n  ".join(lines))


def config_json_schema() -> dict[str, object]:
    """Return the JSON Schema of the YAML, for editors."""
    schema = Run.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A run of QK Atlas",
        **_without_titles(schema),
    }


def describe_config() -> str:
    """Return the Markdown of `docs/configuration.md`: each field's type, default and meaning."""
    return f"{INTRODUCTION}\n{describe_fields(config_json_schema())}"


def _make_run(run: Run) -> RunConfig:
    """Return the values that the stages take."""
    measures = MeasureSpec() if run.measures is True else None
    if isinstance(run.measures, Measures):
        measures = MeasureSpec(**dict(run.measures))
    return RunConfig(
        atlas=run.atlas,
        corpus=run.corpus.spec(),
        model=run.model.spec(),
        capture=run.capture.spec(),
        maps=tuple(spec for entry in run.maps for spec in entry.specs()),
        measures=measures,
        workers=run.workers.spec(),
        budget_bytes=run.budget_bytes,
    )


def _without_titles(node: Any) -> Any:
    """Return a schema without the titles that pydantic makes of class and field names."""
    if isinstance(node, list):
        return [_without_titles(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        name: _without_titles(item)
        for name, item in node.items()
        if name != "title" or not isinstance(item, str)
    }


def _print(arguments: Sequence[str]) -> int:
    """Print what was asked for; return the exit status."""
    if arguments == ["markdown"]:
        sys.stdout.write(describe_config())
    elif arguments == ["schema"]:
        sys.stdout.write(json.dumps(config_json_schema(), indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stderr.write("usage: python -m flows.config markdown|schema\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(_print(sys.argv[1:]))
