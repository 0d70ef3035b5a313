"""Data sets of the Hugging Face hub as corpora, streamed: `hub://org/name?config=en&split=train`.

Separate because the `datasets` library is an optional extra, imported only here and late.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import xxhash

from pipeline.records import Record, describe_unknown
from pipeline.streams import check_text
from store.errors import ConfigError, CorpusFormatError, SourceNotFoundError

PREFIX = "hub://"
_OPTIONS = ("config", "split", "revision")


@dataclass(frozen=True)
class HubSource:
    """A data set as a `hub://` source names it."""

    name: str
    """Id on the hub, or a local folder."""
    config: str | None
    """Configuration; None means the only one."""
    split: str
    """Split, such as train."""
    revision: str | None
    """Branch, tag or commit; None means the main branch."""


def parse_hub(source: str) -> HubSource:
    """The parts of a `hub://` source.

    Raises:
        ConfigError: it has no name or an unknown option.
    """
    name, _, query = source.removeprefix(PREFIX).partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = [key for key in options if key not in _OPTIONS]
    if unknown:
        raise ConfigError(
            f"corpus source {source!r} has no option {unknown[0]!r}; "
            f"{describe_unknown(unknown[0], _OPTIONS)}"
        )
    if not name:
        raise ConfigError(f"corpus source {source!r} names no data set, expected hub://org/name")
    return HubSource(
        name, options.get("config"), options.get("split", "train"), options.get("revision")
    )


def read_hub(source: str, column: str, skip: int = 0) -> Iterator[Record]:
    """The rows of a data set, streamed.

    Raises:
        ConfigError: the extra is not installed, or configuration or split do not exist.
        SourceNotFoundError: the data set does not exist or the hub cannot be reached.
        CorpusFormatError: there is no such column.
    """
    hub = parse_hub(source)
    rows = _call_datasets(
        source,
        "load_dataset",
        hub.name,
        hub.config,
        split=hub.split,
        revision=hub.revision,
        streaming=True,
    )
    names = rows.column_names
    if names is not None:
        _check_column(source, column, names)
        rows = rows.select_columns([column])
    for row in rows.skip(skip) if skip else rows:
        _check_column(source, column, row)
        yield Record(partial(check_text, row[column], f"column {column!r}"))


def fingerprint_hub(source: str) -> str:
    """A hash of which files a data set's split has, at which commit or with which change times.

    Raises:
        ConfigError, SourceNotFoundError: as `read_hub`.
    """
    hub = parse_hub(source)
    builder = _call_datasets(
        source, "load_dataset_builder", hub.name, hub.config, revision=hub.revision
    )
    files = (builder.config.data_files or {}).get(hub.split)
    origin = getattr(files, "origin_metadata", None)
    content = json.dumps([files, origin] if files else str(builder.hash), default=str)
    return f"hub:{xxhash.xxh64_hexdigest(content.encode())}"


def _call_datasets(source: str, function: str, *args: object, **options: object) -> Any:
    """Call a function of `datasets` and put its errors in our words."""
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(
            f"corpus source {source!r} needs the Hugging Face datasets library; "
            "pip install 'qkatlas[hub]'"
        ) from error
    try:
        return getattr(datasets, function)(*args, **options)
    except ValueError as error:
        raise ConfigError(f"corpus source {source!r}: {error}") from error
    except OSError as error:
        raise SourceNotFoundError(
            f"corpus source {source!r} cannot be opened ({error}); "
            "check its name, your connection and, where it is private, HF_TOKEN"
        ) from error


def _check_column(source: str, column: str, names: Any) -> None:
    """Refuse a data set without the text column."""
    if column not in names:
        raise CorpusFormatError(
            f"{source} has no column {column!r}; {describe_unknown(column, names)}"
        )
