"""Command lines that people copy: from the help, the README, the documents and the examples."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

import qkatlas

ROOT = Path(__file__).parents[1]
COMMANDS = typer.main.get_command(qkatlas.app).commands  # type: ignore[attr-defined]

COMMAND_LINE = re.compile(r"^(?:\$ )?(?:\.venv/bin/)?qkatlas (?P<arguments>.*)$")


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_help_has_an_example_that_exists(command: str) -> None:
    help_text = COMMANDS[command].help or ""
    found = re.search(r"Example: `(qkatlas [^`]+)`", help_text)
    assert found
    assert find_problem(found[1]) is None


def find_problem(line: str) -> str | None:
    """What is wrong with a quoted command line; None where nothing is."""
    found = COMMAND_LINE.match(line)
    if found is None:
        return "no command line"
    words = shlex.split(found["arguments"], comments=True)
    if not words or words[0] in ("--help", "--version"):
        return None
    if words[0] not in COMMANDS:
        return f"no command {words[0]}"
    command = COMMANDS[words[0]]
    below = getattr(command, "commands", {})
    if below:
        if words[1:2] and words[1] not in below:
            return f"no command {words[0]} {words[1]}"
        command = below[words[1]] if words[1:] else command
    known = {name for option in command.params for name in option.opts}
    known |= {name for option in command.params for name in option.secondary_opts}
    options = [word.partition("=")[0] for word in words[1:] if word.startswith("-")]
    unknown = [option for option in options if option not in known | {"--help"}]
    if unknown:
        return f"{words[0]} has no option {unknown[0]}"
    files = [word for word in words[1:] if re.match(r"examples/[\w.-]+$", word)]
    missing = [name for name in files if not (ROOT / name).exists()]
    return f"no file {missing[0]}" if missing else None


def quoted_lines(text: str) -> Iterator[str]:
    """Command lines in a Markdown text's code fences; continued lines and open quotes joined."""
    for block in re.findall(r"^```[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        held = ""
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            held = f"{held} {line}" if held else line.strip()
            if not COMMAND_LINE.match(held):
                held = ""
            elif is_closed(held):
                yield held
                held = ""


def is_closed(line: str) -> bool:
    """Whether every quotation that a shell line opens ends in it."""
    try:
        shlex.split(line, comments=True)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("where", ["README.md", "docs", "examples"])
def test_quoted_command_lines_exist(where: str) -> None:
    path = ROOT / where
    if not path.exists():
        pytest.skip(f"{where} is not there")
    files = sorted(path.rglob("*.md")) if path.is_dir() else [path]
    lines = [(file.name, line) for file in files for line in quoted_lines(file.read_text("utf-8"))]
    problems = [
        f"{name}: {line}: {find_problem(line)}" for name, line in lines if find_problem(line)
    ]
    assert problems == []


def test_wrong_quotations_are_found() -> None:
    text = (
        "```sh\n$ qkatlas runn x\nqkatlas run a.yaml --sett b \\\n  --strict\nmake\n```\nqkatlas no"
    )
    problems = [find_problem(line) for line in quoted_lines(text)]
    assert problems == ["no command runn", "run has no option --sett"]
    assert find_problem("qkatlas plan examples/none.yaml") == "no file examples/none.yaml"
    assert find_problem("qkatlas maintain tidy") == "no command maintain tidy"
    assert find_problem("qkatlas maintain check --dry-run") == "maintain has no option --dry-run"
    assert find_problem("qkatlas sql 'SELECT 1' --format json  # a comment") is None
