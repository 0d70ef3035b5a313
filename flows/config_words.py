"""The configuration in words: what a field expects, what is wrong with a value, and the tables.

All of it is made from the JSON Schema, so that the errors, `docs/configuration.md` and the editors
say the same.
"""

import difflib
import json
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic_core import ErrorDetails

Schema = Mapping[str, Any]
Path = tuple[str, ...]

INT_MAX = 2**31 - 1
"""The bound of every count; not worth a word until a value is above it."""

_SHORT = reprlib.Repr()
_SHORT.maxstring, _SHORT.maxother, _SHORT.maxlevel = 60, 60, 2


def show(value: object) -> str:
    """Return a value as the user wrote it, or nearly so, in one short line."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    noun = "the list " if isinstance(value, list) else ""
    return ("the mapping " if isinstance(value, dict) else noun) + _SHORT.repr(value)


def describe_type(schema: Schema, root: Schema) -> str:
    """Return what a field expects, such as `an integer of at least 1`."""
    schema = _resolve(schema, root)
    if forms := _forms(schema):
        return ", or ".join(describe_type(form, root) for form in forms)
    if "const" in schema or "enum" in schema:
        return _join_words([_quote(item) for item in schema.get("enum", [schema.get("const")])])
    if schema.get("type") == "array":
        return f"a list (each entry: {describe_type(schema['items'], root)})"
    if schema.get("type") == "object":
        if "properties" not in schema:
            return f"a mapping (each entry: {describe_type(schema['additionalProperties'], root)})"
        return f"a mapping ({', '.join(schema['properties'])})"
    nouns = {"integer": "an integer", "number": "a number", "boolean": "true or false"}
    return nouns.get(schema.get("type", ""), "text") + _describe_bounds(schema)


def list_problems(
    errors: Sequence[ErrorDetails],
    content: Mapping[object, object],
    root: Schema,
    overrides: Sequence[Path],
) -> list[str]:
    """Return a line for each validation error, the field's path first.

    Args:
        errors: as pydantic found them.
        content: what was validated.
        root: the JSON Schema of the configuration.
        overrides: paths that came from the command line; their lines start with `--set`.
    """
    lines = []
    for error in errors:
        path = _path_of(error, content)
        text = ".".join(path)
        is_override = any(
            path[: len(other)] == other or other[: len(path)] == path for other in overrides
        )
        lines.append(f"{'--set ' if is_override else ''}{text}: {_explain(error, path, root)}")
    return lines


def describe_fields(root: Schema) -> str:
    """Return a Markdown table for the top level and one for each section below it."""
    blocks = []
    for path, section in _sections(root, root, ""):
        required = section.get("required", [])
        rows = [
            _row(
                f"`{name}`",
                describe_type(field, root),
                "required" if name in required else _default(field),
                field.get("description") or _resolve(field, root).get("description", ""),
            )
            for name, field in section["properties"].items()
        ]
        heading = f"## `{path}`" if path else "## Top level"
        table = ["| field | type | default | meaning |", "|---|---|---|---|", *rows]
        blocks.append("\n".join([heading, "", section.get("description", ""), "", *table]))
    return "\n\n".join(blocks) + "\n"


def _explain(error: ErrorDetails, path: Path, root: Schema) -> str:
    """Return what is wrong and what is expected instead."""
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "qkatlas":
        return str(context["text"])
    if kind == "invalid_key":
        return "a field's name must be text; put it in quotes"
    if kind == "extra_forbidden":
        return "unknown field; " + _suggest(path[-1], _field_names(path[:-1], root))
    schema = _schema_at(path, root)
    expected = describe_type(schema, root)
    if kind == "missing":
        return f"missing; expected {expected}"
    if kind == "less_than_equal":
        expected += f" and at most {context['le']}" if "at most" not in expected else ""
    hint = ""
    takes_text = any(form.get("type") == "string" for form in _unfold([schema], root))
    if takes_text and isinstance(value, int | float) and not isinstance(value, bool):
        hint = "; put text that looks like a number in quotes"
    if value is None:
        hint = "; write a value, or take the field out"
    return f"expected {expected}, got {show(value)}{hint}"


def _suggest(name: str, known: Sequence[str]) -> str:
    """Return the nearest known field, or all of them."""
    nearest = difflib.get_close_matches(name.lower(), known, n=1)
    return f"did you mean '{nearest[0]}'?" if nearest else f"known here: {', '.join(known)}"


def _path_of(error: ErrorDetails, content: object) -> Path:
    """Return the path as the YAML has it: without pydantic's names for the forms of a value."""
    if path := error.get("ctx", {}).get("path"):
        return tuple(path.split("."))
    parts: list[str] = []
    node: Any = content
    location = error["loc"]
    for depth, part in enumerate(location, start=1):
        if error["type"] == "invalid_key" and depth == len(location):
            part = show(error["input"])
        elif (isinstance(node, dict) and part in node) or isinstance(part, int):
            node = node[part]
        elif error["type"] != "missing" or depth < len(location):
            continue
        parts.append(str(part))
    return tuple(parts)


def _resolve(schema: Schema, root: Schema) -> Schema:
    """Return the schema that a `$ref` points to, or the schema itself."""
    if "$ref" not in schema:
        return schema
    found: Schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    return found


def _forms(schema: Schema) -> list[Schema]:
    """Return the forms that a field may have; `null` means left out and is none."""
    forms = [*schema.get("oneOf", []), *schema.get("anyOf", [])]
    return [form for form in forms if form.get("type") != "null"]


def _schema_at(path: Path, root: Schema) -> Schema:
    """Return the schema of the field at a path; an empty one for an unknown path."""
    candidates: list[Schema] = [root]
    for part in path:
        below = []
        for schema in _unfold(candidates, root):
            if schema.get("type") == "array" and part.isdecimal():
                below.append(schema["items"])
            elif part in schema.get("properties", {}):
                below.append(schema["properties"][part])
            elif isinstance(schema.get("additionalProperties"), dict):
                below.append(schema["additionalProperties"])
        candidates = below
    return candidates[0] if candidates else {}


def _unfold(schemas: Sequence[Schema], root: Schema) -> Iterator[Schema]:
    """Yield each schema and each of its forms, references resolved."""
    for schema in schemas:
        resolved = _resolve(schema, root)
        yield resolved
        yield from _unfold(_forms(resolved), root)


def _field_names(path: Path, root: Schema) -> list[str]:
    """Return the names of the fields below a path."""
    return [
        name
        for schema in _unfold([_schema_at(path, root)], root)
        for name in schema.get("properties", {})
    ]


def _sections(schema: Schema, root: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Yield every mapping of the configuration with its path, outer ones first."""
    for form in _unfold([schema], root):
        if form.get("type") == "array":
            yield from _sections(form["items"], root, f"{path}[]")
        if "properties" in form:
            yield path, form
            for name, field in form["properties"].items():
                yield from _sections(field, root, f"{path}.{name}".lstrip("."))


def _describe_bounds(schema: Schema) -> str:
    """Return the bounds of a number or the examples of text, to put behind its noun."""
    words = []
    if "minimum" in schema:
        words.append(f"of at least {schema['minimum']:g}")
    if "exclusiveMinimum" in schema:
        words.append(f"above {schema['exclusiveMinimum']:g}")
    if schema.get("maximum", INT_MAX) != INT_MAX:
        words.append(f"at most {schema['maximum']}")
    if "examples" in schema:
        words.append(f"such as {_join_words([_quote(item) for item in schema['examples']])}")
    return " " + " and ".join(words) if words else ""


def _join_words(words: Sequence[str]) -> str:
    """Return `a, b or c`."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _quote(item: object) -> str:
    """Return text in quotes and anything else as it is."""
    return f"'{item}'" if isinstance(item, str) else str(item)


def _default(field: Schema) -> str:
    """Return the cell of a default, written as in YAML."""
    value = field.get("default")
    if value is None:
        return "–"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _row(*cells: str) -> str:
    """Return a line of a Markdown table."""
    return "| " + " | ".join(cell.replace("\n", " ").replace("|", "\\|") for cell in cells) + " |"
