"""YAML text read strictly, and `--set a.b=c` put into what was read.

Strict means: the scalars of YAML 1.2 (`no` and `0:5` are text, `1e-3` is a number), no field
twice, no other tags. Nothing here knows a field's name; `flows.config` does.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode

from flows.config_words import show
from store.errors import ConfigError

START = "start from a file in examples/"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the plain scalars of YAML 1.2 and no field twice."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        """Compose a mapping and refuse a field that is there twice."""
        node: MappingNode = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in lines:
                raise yaml.MarkedYAMLError(
                    problem=f"'{key.value}' is on line {lines[key.value]} already; keep one",
                    problem_mark=key.start_mark,
                )
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                lines[key.value] = key.start_mark.line + 1
        return node


_PLAIN = {
    "null": ("~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": ("true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": ("[-+]?(?:0|[1-9][0-9_]*)", list("-+0123456789")),
    "float": (
        r"[-+]?(?:[0-9][0-9_]*\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?",
        list("-+.0123456789"),
    ),
    "merge": ("<<", ["<"]),
}
for _name, (_pattern, _first) in _PLAIN.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), _first
    )
_Loader.yaml_constructors = {
    tag: construct
    for tag, construct in yaml.SafeLoader.yaml_constructors.items()
    if tag is None
    or tag.rpartition(":")[2] in ("null", "bool", "int", "float", "str", "seq", "map")
}


def read_mapping(path: Path) -> dict[object, object]:
    """Return the mapping that a YAML file holds.

    Raises:
        ConfigError: there is no such file, it is no YAML, is empty or holds something else.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file; {START}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name a YAML file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text; save it as UTF-8") from None
    content = parse_yaml(text, str(path))
    if content is None:
        raise ConfigError(f"{path}: empty; {START}")
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path}: expected fields such as 'atlas: ./atlas', got {show(content)}; {START}"
        )
    return content


def parse_yaml(text: str, where: str) -> object:
    """Return what YAML text stands for.

    Raises:
        ConfigError: it is no YAML; the message starts with `where` and says the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{where}: {_explain(error)}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {str(error).splitlines()[0]}") from None
    except (ValueError, KeyError):
        raise ConfigError(f"{where}: a number is too long, or a value is not of its tag") from None
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply; a configuration has three levels") from None


def _explain(error: yaml.MarkedYAMLError) -> str:
    """Return a YAML error as a line: where it is, what it is, and what helps."""
    mark, text = error.problem_mark, str(error.problem)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    hint = ""
    if "'\\t'" in text:
        hint = "; indent with spaces, not with tabs"
    elif "alias" in f"{error.context} {text}" or "cannot start any token" in text:
        hint = "; put text that starts with *, &, %, @ or ` in quotes"
    elif "mapping values" in text:
        hint = "; put text that has ': ' in it in quotes, and check the indentation"
    return f"{'' if 'keep one' in text else 'not YAML: '}{place}{text}{hint}"


def put_overrides(
    content: dict[object, object], overrides: Sequence[str]
) -> tuple[dict[object, object], list[tuple[str, ...]]]:
    """Return the content with each `path=value` put in, and the paths, in order.

    Raises:
        ConfigError: an override is not `path=value`, its value is no YAML, or a list has no
            entry of this number.
    """
    paths = []
    for override in overrides:
        name, equals, text = override.partition("=")
        parts = tuple(name.strip().split("."))
        if not equals or not all(parts):
            raise ConfigError(
                f"--set {override}: expected path=value, such as --set capture.max_length=256"
            )
        value = parse_yaml(text, f"--set {override}")
        content = {**content, parts[0]: _put(content.get(parts[0]), parts, 1, value)}
        paths.append(parts)
    return content, paths


def _put(node: object, parts: tuple[str, ...], depth: int, value: object) -> object:
    """Return a copy of the node at `parts[:depth]` with the value put in below it.

    What has no fields or entries yet (nothing, or a scalar) becomes a mapping or, before a number,
    a list. The node itself stays: a YAML alias may share it with another place.
    """
    if depth == len(parts):
        return value
    part = parts[depth]
    if isinstance(node, list) or (part.isdecimal() and not isinstance(node, dict)):
        entries = list(node) if isinstance(node, list) else []
        index = _read_index(parts, depth, len(entries))
        below = entries[index] if index < len(entries) else None
        return [*entries[:index], _put(below, parts, depth + 1, value), *entries[index + 1 :]]
    fields = node if isinstance(node, dict) else {}
    return {**fields, part: _put(fields.get(part), parts, depth + 1, value)}


def _read_index(parts: tuple[str, ...], depth: int, n_entries: int) -> int:
    """Return the index that a part of a path stands for; one behind the last entry adds one."""
    part, parent = parts[depth], ".".join(parts[:depth])
    index = int(part) if part.isdecimal() and len(part) < 7 else n_entries + 1
    if index > n_entries:
        raise ConfigError(
            f"--set {'.'.join(parts)}: {parent} is a list of {n_entries}; "
            f"expected a number up to {n_entries} (which adds one) after '{parent}.', got '{part}'"
        )
    return index
