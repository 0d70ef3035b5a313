"""The form of a reply: JSON or an Arrow stream by Accept, compressed by Accept-Encoding.

Bodies are whole before the first byte is sent, so that their headers are exact.
"""

import base64
import gzip
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import zstandard
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from store.formats import write_result

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"

VARY = "Accept, Accept-Encoding"
SMALLEST_COMPRESSED = 1_000
"""Bytes below which a compressed body would save nothing."""

CODINGS = ("zstd", "gzip")
ZSTD_LEVEL = 1
GZIP_LEVEL = 4

JSON_ROWS = 20_000
"""Rows whose text is joined at once."""

Document = Mapping[str, object]
"""A reply that is more than one table: fields that are values or tables of rows."""


def choose_media_type(request: Request, offered: Sequence[str] = (JSON, ARROW)) -> str:
    """The media type that the request's Accept likes best, the first offered where it is open.

    Raises:
        HTTPException: 406, none of them.
    """
    accept = ",".join(request.headers.getlist("accept")) or "*/*"
    chosen = _choose(accept, offered)
    if chosen is None:
        raise HTTPException(406, f"Accept {accept}: this reply comes as {' or '.join(offered)}")
    return chosen


def names_media_type(request: Request, media_type: str) -> bool:
    """True where the request's Accept names a media type itself, as browsers do with HTML."""
    accept = ",".join(request.headers.getlist("accept")).lower()
    return dict(_read_weight(part) for part in accept.split(",")).get(media_type, 0) > 0


def check_changed(request: Request, version: str) -> None:
    """Let a request go on unless its If-None-Match names the version.

    Raises:
        HTTPException: 304, the client holds this version.
    """
    known = request.headers.get("if-none-match", "")
    tags = {tag.strip().removeprefix("W/") for tag in known.split(",")}
    if request.method == "GET" and tags & {"*", f'"{version}"'}:
        raise HTTPException(304, headers={"ETag": f'W/"{version}"', "Vary": VARY})


def finish(
    request: Request,
    body: bytes,
    media_type: str,
    version: str,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The reply of a whole body; compresses it, so large ones belong in a thread.

    Args:
        request: that is answered.
        body: uncompressed.
        media_type: of the body.
        version: of the atlas that it was made from.
        headers: more of them.
    """
    own = {**(headers or {}), "X-Atlas-Version": version, "Vary": VARY}
    if request.method == "GET":
        own["ETag"] = f'W/"{version}"'
    if len(body) >= SMALLEST_COMPRESSED and not media_type.startswith("image/"):
        body, coding = _compress(body, request.headers.get("accept-encoding", ""))
        own |= {"Content-Encoding": coding} if coding else {}
    return Response(body, headers=own, media_type=media_type)


def write_rows(table: pa.Table, media_type: str, head: Document) -> bytes:
    """A table as an Arrow stream, or as JSON with its records as the last field, `rows`.

    Args:
        table: with columns of any type but dictionaries.
        media_type: JSON or ARROW.
        head: the other fields of the JSON.
    """
    if media_type == ARROW:
        return _to_arrow(table)
    return orjson.dumps(head)[:-1] + b',"rows":' + _to_json(table) + b"}"


def encode_texts(table: pa.Table) -> pa.Table:
    """The table with its columns of text as dictionaries of int32: each text once."""
    whole = table.combine_chunks()
    columns = [
        column.dictionary_encode() if pa.types.is_string(column.type) else column
        for column in whole.columns
    ]
    return pa.table(columns, whole.column_names)


def write_document(document: Document, media_type: str) -> bytes:
    """A document as JSON with tables as records, or as an Arrow stream of one row.

    Returns:
        In Arrow each table is one list of structs.
    """
    if media_type == ARROW:
        columns = {name: _as_column(value) for name, value in document.items()}
        return _to_arrow(pa.table(columns))
    fields = {
        name: orjson.Fragment(_to_json(value)) if isinstance(value, pa.Table) else value
        for name, value in document.items()
    }
    return orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)


def _choose(header: str, offered: Sequence[str]) -> str | None:
    """The offer of the highest weight above 0 in a header of content negotiation."""
    weights = dict(_read_weight(part) for part in header.lower().split(",") if part.strip())

    def weigh(offer: str) -> float:
        patterns = (offer, f"{offer.partition('/')[0]}/*", "*/*", "*")
        return next((weights[name] for name in patterns if name in weights), 0.0)

    best = max(offered, key=weigh)
    return best if weigh(best) > 0 else None


def _read_weight(part: str) -> tuple[str, float]:
    """`text/html;level=1;q=0.5` as its name and its weight; 0 where that is no number."""
    name, *parameters = (piece.strip() for piece in part.split(";"))
    stated = [text[2:] for text in parameters if text.startswith("q=")]
    try:
        return name, float(stated[-1]) if stated else 1.0
    except ValueError:
        return name, 0.0


def choose_coding(accept_encoding: str) -> str | None:
    """The coding that a client likes best of those that we write; None for none."""
    return _choose(accept_encoding, CODINGS)


def _compress(body: bytes, accept_encoding: str) -> tuple[bytes, str | None]:
    """The body in a coding that the client reads, and the name of that."""
    coding = choose_coding(accept_encoding)
    if coding == "zstd":
        return zstandard.ZstdCompressor(ZSTD_LEVEL).compress(body), coding
    if coding == "gzip":
        return gzip.compress(body, GZIP_LEVEL, mtime=0), coding
    return body, None


def _to_arrow(table: pa.Table) -> bytes:
    sink = BytesIO()
    write_result(table, "arrow", sink)
    return sink.getvalue()


def _to_json(table: pa.Table) -> bytes:
    """The records of a table as a JSON array; NaN is null, bytes are base64.

    Arrow joins the text of the cells: 10 times as fast as to make a dict of each row.
    """
    pieces = []
    for start in range(0, table.num_rows, JSON_ROWS):
        part = table.slice(start, JSON_ROWS)
        cells: list[Any] = []
        for name, column in zip(part.column_names, part.itercolumns(), strict=True):
            cells += [f"{',' if cells else '{'}{orjson.dumps(name).decode()}:", _to_text(column)]
        rows = pc.binary_join_element_wise(
            *cells, "}", "", null_handling="replace", null_replacement="null"
        )
        pieces.append(pc.binary_join(pa.ListArray.from_arrays([0, len(rows)], rows), ",")[0])
    return b"[" + b",".join(piece.as_buffer() for piece in pieces) + b"]"


def _to_text(column: pa.ChunkedArray) -> pa.Array:
    """The JSON text of each value of a column; null stays null."""
    values, kind = column.combine_chunks(), column.type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return values.cast(pa.string())
    if pa.types.is_float32(kind) or pa.types.is_float64(kind):
        return pc.if_else(pc.is_finite(values), values.cast(pa.string()), None)
    if pa.types.is_string(kind):
        coded = values.dictionary_encode()
        return _dump(coded.dictionary.to_pylist()).take(coded.indices)
    return _dump(values.to_pylist(maps_as_pydicts="lossy"))


def _dump(values: list[Any]) -> pa.Array:
    texts = [None if value is None else _dump_one(value) for value in values]
    return pa.array(texts, pa.string())


def _dump_one(value: object) -> bytes:
    plain = base64.b64encode(value).decode() if isinstance(value, bytes) else value
    return orjson.dumps(plain, default=str)


def _as_column(value: object) -> pa.Array:
    """A field of a document as a column of one row."""
    if isinstance(value, pa.Table):
        rows = pa.concat_arrays(value.to_struct_array().chunks or [_no_rows(value.schema)])
        return pa.ListArray.from_arrays(pa.array([0, len(rows)], pa.int32()), rows)
    return pa.array([value])


def _no_rows(schema: pa.Schema) -> pa.Array:
    return pa.array([], pa.struct(list(schema)))
