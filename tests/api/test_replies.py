import base64
import gzip
import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import zstandard
from starlette.exceptions import HTTPException
from starlette.requests import Request

from api import replies
from api.replies import (
    ARROW,
    JSON,
    check_changed,
    choose_media_type,
    finish,
    write_document,
    write_rows,
)

TABLE = pa.table(
    {
        "id": pa.array([1 << 52, 2, 3], pa.int64()),
        "n": pa.array([1, None, 3], pa.int32()),
        "x": pa.array([0.1, math.nan, math.inf], pa.float32()),
        "y": pa.array([0.1, None, -0.0], pa.float64()),
        "ok": [True, None, False],
        "text": ['"ü"\n', None, ""],
        "blob": pa.array([b"\x00\xff", None, b""], pa.binary()),
        "low": pa.array([[0.5, 1.5], None, []], pa.list_(pa.float32())),
        "labels": pa.array([[("class", "cat")], None, []], pa.map_(pa.string(), pa.string())),
    }
)


EQUAL = TABLE.drop_columns("x")
"""Without NaN, which equals nothing."""


def request(method: str = "GET", **headers: str) -> Request:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": method, "headers": named})


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("application/json", JSON),
        ("Application/JSON; charset=utf-8", JSON),
        (ARROW, ARROW),
        (f"{JSON};q=0.5, {ARROW}", ARROW),
        (f"{JSON};q=0, */*;q=0.1", ARROW),
        ("text/html,application/xml;q=0.9,*/*;q=0.8", JSON),
    ],
)
def test_the_form_follows_accept(accept: str | None, chosen: str) -> None:
    asked = request() if accept is None else request(accept=accept)
    assert choose_media_type(asked) == chosen


@pytest.mark.parametrize("accept", ["text/html", f"{JSON};q=0", "image/*", f"{JSON};q=high"])
def test_a_form_that_we_lack_is_refused(accept: str) -> None:
    with pytest.raises(HTTPException, match="this reply comes as application/json or"):
        choose_media_type(request(accept=accept))


@pytest.mark.parametrize("known", ['W/"v1"', '"v1"', '"v0", W/"v1"', "*"])
def test_a_client_that_holds_the_version_gets_304(known: str) -> None:
    with pytest.raises(HTTPException) as caught:
        check_changed(request(if_none_match=known), "v1")
    assert caught.value.status_code == 304
    assert caught.value.headers == {"ETag": 'W/"v1"', "Vary": "Accept, Accept-Encoding"}


def test_another_version_or_method_is_answered() -> None:
    check_changed(request(), "v1")
    check_changed(request(if_none_match='W/"v2"'), "v1")
    check_changed(request("POST", if_none_match='W/"v1"'), "v1")


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip", "gzip"),
        ("zstd;q=0.1, gzip", "gzip"),
        ("zstd;q=0", None),
        ("identity", None),
        ("*", "zstd"),
    ],
)
def test_long_bodies_are_compressed_as_the_client_likes(accepted: str, coding: str | None) -> None:
    body = b"attention " * 1_000
    reply = finish(request(accept_encoding=accepted), body, JSON, "v1")
    assert reply.headers.get("content-encoding") == coding
    undo: dict[str | None, Any] = {
        "gzip": gzip.decompress,
        "zstd": zstandard.ZstdDecompressor().decompress,
        None: bytes,
    }
    assert undo[coding](bytes(reply.body)) == body
    assert (coding is None) == (len(bytes(reply.body)) == len(body))


def test_short_bodies_and_images_are_left_as_they_are() -> None:
    asked = request(accept_encoding="gzip")
    for body, kind in ((b"x" * 999, JSON), (b"x" * 9_999, "image/png")):
        assert bytes(finish(asked, body, kind, "v1").body) == body


def test_a_reply_names_its_version_and_what_it_varies_by() -> None:
    headers = finish(request(), b"{}", JSON, "v1", {"X-Rows": "3"}).headers
    assert headers["etag"] == 'W/"v1"'
    assert headers["x-atlas-version"] == "v1"
    assert headers["vary"] == "Accept, Accept-Encoding"
    assert headers["x-rows"] == "3"
    assert "etag" not in finish(request("POST"), b"{}", JSON, "v1").headers


def plain(value: Any) -> Any:
    """The slow way to JSON."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@pytest.mark.parametrize("n_rows", [0, 1, 3, 7])
def test_json_rows_equal_records_made_one_by_one(
    n_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replies, "JSON_ROWS", 2)
    table = pa.concat_tables([TABLE] * 3).slice(0, n_rows)
    found = json.loads(write_rows(table, JSON, {"version": "v1", "next": None}))
    assert list(found) == ["version", "next", "rows"]
    slow = table.to_pylist(maps_as_pydicts="lossy")
    for row, expected in zip(found["rows"], slow, strict=True):
        row["x"] = None if row["x"] is None else float(np.float32(row["x"]))
        assert row == {name: plain(value) for name, value in expected.items()}


def test_json_writes_float32_with_its_own_digits() -> None:
    table = pa.table({"x": pa.array([0.1], pa.float32()), "y": pa.array([0.1], pa.float64())})
    assert write_rows(table, JSON, {"n": 1}) == b'{"n":1,"rows":[{"x":0.1,"y":0.1}]}'


def test_arrow_rows_are_a_stream_without_compression() -> None:
    body = write_rows(EQUAL, ARROW, {})
    assert pa.ipc.open_stream(body).read_all().equals(EQUAL)
    assert b"\x00\xff" in body


@pytest.mark.parametrize("rows", [EQUAL, EQUAL.slice(0, 0), pa.concat_tables([EQUAL, EQUAL])])
def test_a_document_is_the_same_in_both_forms(rows: pa.Table) -> None:
    weights = list(np.array([[0.25, 0.75], [1.0, 0.0]]))
    document = {"method": "pca", "n": 2, "rows": rows, "weights": weights}
    as_json = json.loads(write_document(document, JSON))
    as_arrow = pa.ipc.open_stream(write_document(document, ARROW)).read_all()
    assert as_json["weights"] == as_arrow["weights"][0].as_py() == [[0.25, 0.75], [1.0, 0.0]]
    assert as_json["rows"] == json.loads(write_rows(rows, JSON, {"n": 1}))["rows"]
    inner = pa.Table.from_struct_array(as_arrow["rows"].chunk(0).values)
    assert inner.equals(rows.combine_chunks())
    assert (as_json["method"], as_arrow["n"].to_pylist()) == ("pca", [2])
