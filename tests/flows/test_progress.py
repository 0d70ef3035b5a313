import io
import sys
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from flows.progress import NoSteps, PrefectSteps, Steps, show_bars


class Log:
    """Steps that remember what they were told."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def start(self, stage: str, total: float, unit: str) -> None:
        self.seen.append(("start", stage, total, unit))

    def advance(self, amount: float, note: str = "") -> None:
        self.seen.append(("advance", amount, note))

    def finish(self) -> None:
        self.seen.append(("finish",))


@pytest.fixture
def artifacts(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Calls to Prefect's artifacts, which need a server and are seen in test_build."""
    calls: list[dict[str, Any]] = []
    module = ModuleType("prefect.artifacts")
    module.create_progress_artifact = lambda **call: calls.append(call) or len(calls)  # type: ignore
    module.update_progress_artifact = lambda **call: calls.append(call)  # type: ignore
    monkeypatch.setitem(sys.modules, "prefect", ModuleType("prefect"))
    monkeypatch.setitem(sys.modules, "prefect.artifacts", module)
    return calls


def run(steps: Steps) -> None:
    steps.start("map", 4, "heads")
    steps.advance(1, "fast")
    steps.advance(1)
    steps.finish()
    steps.finish()


def test_bars_fill_up() -> None:
    file = io.StringIO()
    with show_bars(Console(file=file, width=100, force_terminal=True)) as bars:
        bars.advance(1)  # before any stage: nobody minds
        run(bars)
    assert "map" in file.getvalue() and "4/4" in file.getvalue() and "heads" in file.getvalue()


def test_what_was_waited_for_does_not_stay_beside_a_full_bar() -> None:
    with show_bars(Console(file=io.StringIO())) as bars:
        bars.start("plan", 1, "corpora")
        bars.advance(0, "waiting for room")
        (task,) = bars._progress.tasks
        assert task.fields["note"] == "waiting for room"
        bars.finish()
        assert task.fields["note"] == ""


def test_nobody_watching_is_fine() -> None:
    run(NoSteps())


def test_prefect_gets_an_artifact_now_and_then(artifacts: list[dict[str, Any]]) -> None:
    inner = Log()
    run(PrefectSteps(inner, every_s=0))
    assert [call["progress"] for call in artifacts] == [0.0, 25.0, 50.0, 100.0, 100.0]
    assert artifacts[0]["key"] == "qkatlas-map"
    assert inner.seen[:2] == [("start", "map", 4, "heads"), ("advance", 1, "fast")]
    artifacts.clear()
    run(PrefectSteps(inner, every_s=1000))
    assert [call["progress"] for call in artifacts] == [0.0, 100.0, 100.0]
