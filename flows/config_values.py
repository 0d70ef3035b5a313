"""Single values as the YAML writes them: sizes, layer ranges, names and paths, each checked here.

They are apart from the sections of `flows.config` because they know one value, never its field.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from flows.config_words import INT_MAX, show
from store.errors import ConfigError

INDEX_MAX = 9_999
NAME_MAX = 128
SIZE_PATTERN = r"^([0-9]+(?:\.[0-9]+)?) ?(?:([kKmMgGtTpP])(i?))?[bB]$"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
INDEX_WORDS = "'all', a range such as '0-5', or a list of indices (at least 0) and ranges"


def problem(text: str, path: str | None = None) -> PydanticCustomError:
    """Return an error whose text reaches the user word for word; `path` replaces its field's."""
    return PydanticCustomError("qkatlas", "{text}", {"text": text, "path": path})


def kind_of(value: object) -> str:
    """Return which of a field's forms a value has: `list`, `mapping` or `scalar`."""
    if isinstance(value, list):
        return "list"
    return "mapping" if isinstance(value, dict | BaseModel) else "scalar"


def parse_size(value: object) -> int:
    """Return the bytes of a number or of text such as `20 GB` (powers of 1000) or `500 MiB`."""
    size: Decimal | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        size = Decimal(value)
    elif isinstance(value, str) and (match := re.fullmatch(SIZE_PATTERN, value)):
        number, letter, binary = match.groups(default="")
        power = 1 + "kmgtp".index(letter.lower()) if letter else 0
        size = Decimal(number) * (1024 if binary else 1000) ** power
    if size is None or not 1 <= size < 2**63:
        raise problem(f"expected bytes (1 or more) or text such as '20 GB', got {show(value)}")
    return int(size)


def parse_indices(value: object) -> tuple[int, ...] | None:
    """Return the sorted indices that `all` (None), a range or a list stands for."""
    if value == "all":
        return None
    entries = value if isinstance(value, list) else [value] if isinstance(value, str) else []
    indices = [index for entry in entries for index in _read_range(entry)]
    if not indices:
        raise problem(f"expected {INDEX_WORDS}, got {show(value)}")
    repeated = [index for index, times in Counter(indices).items() if times > 1]
    if repeated:
        raise problem(f"index {min(repeated)} is there twice; list each once")
    return tuple(sorted(indices))


def _read_range(entry: object) -> Iterable[int]:
    """Return the indices of one entry: an integer, or text such as `0-5`, its end included."""
    if isinstance(entry, int) and not isinstance(entry, bool):
        first = last = entry
    elif isinstance(entry, str) and (match := re.fullmatch("([0-9]{1,9})-([0-9]{1,9})", entry)):
        first, last = int(match[1]), int(match[2])
    else:
        raise problem(f"expected {INDEX_WORDS}, got {show(entry)}")
    if not 0 <= first <= last <= INDEX_MAX:
        raise problem(f"expected indices from 0 to {INDEX_MAX}, rising, got {show(entry)}")
    return range(first, last + 1)


def check_text(text: str) -> str:
    """Return text that has something to read and no control characters."""
    if not text.strip() or not text.isprintable():
        raise problem(f"expected text, got {show(text)}")
    return text


def check_name(name: str) -> str:
    """Return a name that is safe in a file name, in SQL text and in a URL."""
    if not re.fullmatch(NAME_PATTERN, name) or len(name) > NAME_MAX:
        raise problem(
            f"expected at most {NAME_MAX} letters, digits, '.', '_' and '-', "
            f"the first a letter or a digit, got {show(name)}"
        )
    return name


def check_key(key: str) -> str:
    """Return a model key, which is a name without `--`."""
    if "--" in key:
        raise problem(f"'--' is reserved for the stacks of one model; use '-', got {show(key)}")
    return check_name(key)


def safe_name(source: str) -> str:
    """Return a name made from the last part of a path or URI that is no pattern; may be empty.

    The options of a URI (`?split=train`) are no part of it.
    """
    scheme, _, path = source.rpartition("://")
    parts = (re.sub(r"\?\w+=.*", "", path) if scheme else path).split("/")
    named = [part for part in parts if part and not set("*?[{") & set(part)]
    name = re.sub("[^A-Za-z0-9._-]+", "-", named[-1]) if named else ""
    return re.sub("-{2,}", "-", name).lstrip("._-")[:NAME_MAX].rstrip("-")


def expand(text: str) -> str:
    """Return text with `~` and environment variables replaced; an unset one is refused."""
    for variable in re.findall(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([^}]*)\})", text):
        name = "".join(variable)
        if name not in os.environ:
            raise problem(f"the environment variable {name} is not set; set it or write the path")
    return os.path.expanduser(os.path.expandvars(text))


def resolve_path(text: str, info: ValidationInfo) -> str:
    """Return a URI as it is, and a path as seen from the folder of the configuration."""
    return _join(_folder(info, "folder"), _without_credentials(expand(check_text(text))))


def resolve_atlas(text: str, info: ValidationInfo) -> str:
    """Return the atlas's URI or absolute path; on the command line it is seen from there."""
    return _join(_folder(info, "atlas_folder"), _without_credentials(expand(check_text(text))))


def _without_credentials(text: str) -> str:
    """Return a path or URI, unless it holds credentials."""
    if "://" in text:
        from store.object_store import check_no_credentials  # pyarrow loads for long

        try:
            check_no_credentials(text)
        except ConfigError as error:
            raise problem(str(error)) from None
    return text


def resolve_model(text: str, info: ValidationInfo) -> str:
    """Return a hub id or package as it is, and the absolute path of what lies in a folder."""
    folder, name = _folder(info, "folder"), expand(check_text(text))
    is_local = name in (".", "..") or name.startswith(("./", "../"))
    if is_local or os.path.isabs(name) or os.path.exists(os.path.join(folder, name)):
        return _join(folder, name)
    return name


def _folder(info: ValidationInfo, name: str) -> str:
    """Return a folder that `load_config` handed to the validators."""
    context: dict[str, str] = info.context or {}
    return context.get(name, os.getcwd())


def _join(folder: str, path: str) -> str:
    """Return a URI as it is and a path as an absolute one."""
    return path if "://" in path else os.path.normpath(os.path.join(folder, path))


_RANGE_SCHEMA: dict[str, Any] = {
    "type": "string",
    "pattern": "^[0-9]{1,9}-[0-9]{1,9}$",
    "examples": ["0-5"],
}
_INDEX_SCHEMA: dict[str, Any] = {"type": "integer", "minimum": 0, "maximum": INDEX_MAX}
_INDICES_SCHEMA: dict[str, Any] = {
    "oneOf": [
        {"const": "all"},
        _RANGE_SCHEMA,
        {"type": "array", "items": {"oneOf": [_INDEX_SCHEMA, _RANGE_SCHEMA]}, "minItems": 1},
    ]
}
_SIZE_SCHEMA: dict[str, Any] = {
    "oneOf": [
        {"type": "integer", "minimum": 1},
        {"type": "string", "pattern": SIZE_PATTERN, "examples": ["20 GB", "500 MiB"]},
    ]
}
_NAME_SCHEMA: dict[str, Any] = {"type": "string", "pattern": NAME_PATTERN, "maxLength": NAME_MAX}

Count = Annotated[int, Field(ge=1, le=INT_MAX)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Text = Annotated[str, AfterValidator(check_text)]
Name = Annotated[
    str, AfterValidator(check_name), WithJsonSchema({**_NAME_SCHEMA, "examples": ["my-text"]})
]
Key = Annotated[
    str,
    AfterValidator(check_key),
    WithJsonSchema({**_NAME_SCHEMA, "not": {"pattern": "--"}, "examples": ["minilm"]}),
]
Source = Annotated[str, AfterValidator(resolve_path)]
AtlasUri = Annotated[str, AfterValidator(resolve_atlas)]
ModelName = Annotated[str, AfterValidator(resolve_model)]
PipelineName = Annotated[
    str,
    AfterValidator(resolve_model),
    WithJsonSchema({"type": "string", "examples": ["en_core_web_sm"]}),
]
Indices = Annotated[
    tuple[int, ...] | None, PlainValidator(parse_indices), WithJsonSchema(_INDICES_SCHEMA)
]
Size = Annotated[int, PlainValidator(parse_size), WithJsonSchema(_SIZE_SCHEMA)]
