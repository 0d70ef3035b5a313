"""Query results as bytes: a table for people, JSON, CSV, an Arrow stream or Parquet.

Apart from `atlas`, as the command line and the API write the same formats.
"""

import base64
import io
import json
import math
import shutil
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, BinaryIO, Literal, get_args

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from rich.text import Text

from store.errors import QueryError

Format = Literal["table", "json", "csv", "arrow", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)

MAX_SHOWN_ROWS = 50
MAX_SHOWN_ITEMS = 4
MAX_SHOWN_CHARACTERS = 80
WIDE = 10_000
"""Columns of a table that goes into a file or pipe, where nothing needs to be folded."""


def write_result(table: pa.Table, format: Format, stream: BinaryIO) -> None:
    """Write a query's result.

    Args:
        table: the result.
        format: `table` shows 50 rows and shortens vectors; `json` is an array of records with
            null for NaN; `csv` holds lists and maps as JSON text; `arrow` is an IPC stream.
        stream: stays open.

    Raises:
        QueryError: a column's type does not exist in the format.
    """
    writers = {
        "table": _write_table,
        "json": _write_json,
        "csv": _write_csv,
        "arrow": _write_arrow,
        "parquet": _write_parquet,
    }
    try:
        writers[format](table, stream)
    except pa.ArrowNotImplementedError as error:
        raise QueryError(
            f"no such type in {format} ({error}): cast it, as in x::VARCHAR"
        ) from error
    stream.flush()


def _write_table(table: pa.Table, stream: BinaryIO) -> None:
    """For people: the first rows, and a note of how many more there are."""
    text = io.TextIOWrapper(stream, encoding="utf-8", write_through=True)
    terminal = stream.isatty()
    width = shutil.get_terminal_size().columns if terminal else WIDE
    console = Console(file=text, width=width, force_terminal=terminal)
    if table.column_names == ["explain_key", "explain_value"]:
        console.print(Text("\n".join(table["explain_value"].to_pylist())))
    else:
        console.print(_shown_rows(table))
    if table.num_rows > MAX_SHOWN_ROWS:
        more = table.num_rows - MAX_SHOWN_ROWS
        console.print(f"… {more:,} more rows; the other formats write all", highlight=False)
    text.detach()


def _shown_rows(table: pa.Table) -> Table:
    """The first rows, drawn with lines."""
    shown = Table()
    for field in table.schema:
        shown.add_column(Text(field.name), justify="right" if _is_number(field.type) else "left")
    for row in table.slice(0, MAX_SHOWN_ROWS).to_pylist(maps_as_pydicts="lossy"):
        shown.add_row(*(Text(_shorten(value)) for value in row.values()))
    return shown


def _is_number(kind: pa.DataType) -> bool:
    """True for types that line up at the right."""
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _shorten(value: object) -> str:
    """A cell of few characters, in one line and harmless to a terminal."""
    if value is None:
        return "null"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bytes):
        return f"<{len(value):,} bytes>"
    if isinstance(value, list):
        items = [_shorten(item) for item in value[:MAX_SHOWN_ITEMS]]
        rest = [f"… {len(value)} in all"] if len(value) > MAX_SHOWN_ITEMS else []
        return f"[{', '.join([*items, *rest])}]"
    text = str(value)
    cut = text if len(text) <= MAX_SHOWN_CHARACTERS else text[: MAX_SHOWN_CHARACTERS - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def _write_json(table: pa.Table, stream: BinaryIO) -> None:
    """An array with a record a line."""
    stream.write(b"[")
    separator = b"\n"
    for batch in _name_apart(table).to_batches(max_chunksize=1_024):
        for row in batch.to_pylist(maps_as_pydicts="lossy"):
            stream.write(separator + _to_json(row))
            separator = b",\n"
    stream.write(b"\n]\n")


def _name_apart(table: pa.Table) -> pa.Table:
    """The table with columns of one name numbered, as a record would keep the last alone."""
    names: list[str] = []
    for name in table.column_names:
        tried = (name, *(f"{name}_{n}" for n in range(1, table.num_columns)))
        names.append(next(each for each in tried if each not in names))
    return table.rename_columns(names)


def _to_json(value: object) -> bytes:
    """A value as JSON; NaN and infinities become null, bytes base64."""
    try:
        return orjson.dumps(
            value, _plain, orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATETIME
        )
    except orjson.JSONEncodeError:  # whole numbers of more than 64 bits
        return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False).encode()


def _plain(value: Any) -> Any:
    """A value made of what JSON has."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _write_csv(table: pa.Table, stream: BinaryIO) -> None:
    """A line a row below a line of names; null is empty, the empty string is quoted."""
    for index, field in enumerate(table.schema):
        if pa.types.is_nested(field.type) or pa.types.is_binary(field.type):
            values = table.column(index).to_pylist(maps_as_pydicts="lossy")
            encoded = [None if value is None else _to_csv(value) for value in values]
            table = table.set_column(index, field.name, pa.array(encoded, pa.string()))
    pyarrow.csv.write_csv(table, stream)


def _to_csv(value: object) -> str:
    """A nested value or bytes as the text of one cell."""
    return str(_plain(value)) if isinstance(value, bytes) else _to_json(value).decode()


def _write_arrow(table: pa.Table, stream: BinaryIO) -> None:
    """An IPC stream without compression, which readers in browsers cannot undo."""
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)


def _write_parquet(table: pa.Table, stream: BinaryIO) -> None:
    """One file."""
    pq.write_table(table, stream, compression="zstd")
