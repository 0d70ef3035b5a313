"""The page docs/observability.md against the code: every event and its fields."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from flows.log import LEVELS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "observability.md").read_text("utf-8")
ROW = re.compile(
    r"^\| `(?P<event>\w+)` \| (?P<level>info|warning|error) \| (?P<fields>.*?) \|", re.M
)
ROWS = {found["event"]: found for found in ROW.finditer(TEXT)}


def calls() -> Iterator[tuple[str, ast.Call]]:
    """List calls of log_event in the source, with the file of each."""
    for path in sorted((ROOT / "flows").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("log_event"):
                yield path.name, node


def event_of(call: ast.Call) -> str | None:
    """Name the event that a call logs; None where that is decided as it runs."""
    first = call.args[0]
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None


def test_every_event_that_is_logged_is_on_the_page() -> None:
    named = {event for _, call in calls() if (event := event_of(call))}
    assert {"shard_started", "run_failed"} <= named
    assert named - set(ROWS) == set()


def test_every_event_on_the_page_is_logged() -> None:
    logging = {name for name, _ in calls()}
    source = "".join((ROOT / "flows" / name).read_text("utf-8") for name in logging)
    assert [event for event in ROWS if f'"{event}"' not in source] == []


def test_every_named_field_is_on_the_page() -> None:
    lacking = [
        f"{name}: {event} {keyword.arg}"
        for name, call in calls()
        if (event := event_of(call))
        for keyword in call.keywords
        if keyword.arg and f"`{keyword.arg}`" not in ROWS[event]["fields"]
    ]
    assert lacking == []


def test_levels_are_those_of_the_code() -> None:
    said = {event: row["level"] for event, row in ROWS.items() if row["level"] != "info"}
    assert {event: {30: "warning", 40: "error"}[level] for event, level in LEVELS.items()} == said
