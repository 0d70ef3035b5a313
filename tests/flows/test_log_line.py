import json
import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.log_line import HIDDEN, MAX_TEXT, encode_line, hide, list_secrets

SECRET = "wJalrXUtnFEMI/K7MDENG"


class Unwilling:
    def __str__(self) -> str:
        raise RuntimeError("no")


def read(**fields: object) -> dict[str, object]:
    return dict(json.loads(encode_line(fields)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1),
        (True, True),
        (0.5, 0.5),
        (np.int64(7), 7),
        (np.float32(0.5), 0.5),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (Path("a/b"), "a/b"),
        (b"\xffx", "\\xffx"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        ({"a": (1, Path("b"))}, {"a": [1, "b"]}),
        ({1: 2}, {"1": 2}),
        ({5}, "{5}"),
        (ValueError("bad"), "bad"),
        (Unwilling(), "<Unwilling: RuntimeError>"),
        ("two\nlines", "two\nlines"),
    ],
)
def test_any_value_finds_a_place(value: object, expected: object) -> None:
    assert read(field=value) == {"field": expected}


def test_what_is_none_is_left_out() -> None:
    assert read(a=None, b=0) == {"b": 0}


def test_long_texts_are_cut() -> None:
    assert read(reason="x" * 9000) == {"reason": "x" * MAX_TEXT + "…"}


def test_what_holds_itself_ends() -> None:
    inner: list[object] = []
    inner.append(inner)
    assert "[[...]]" in str(read(field=inner))


@given(
    st.dictionaries(
        st.text(), st.one_of(st.text(), st.floats(), st.integers(), st.binary(), st.none())
    )
)
def test_every_line_is_one_line_of_json(fields: dict[str, object]) -> None:
    line = encode_line(fields)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert set(json.loads(line)) == {name for name in fields if fields[name] is not None}


def test_a_lone_surrogate_comes_back_as_itself() -> None:
    assert read(source="a\udc80b") == {"source": "a\udc80b"}


def test_secrets_are_told_by_their_names() -> None:
    environment = {
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SESSION_TOKEN": "session",
        "QKATLAS_TOKEN": "token of the service",
        "HF_TOKEN": "hf_x",
        "PREFECT_API_KEY": "pnu_x",
        "PREFECT_SERVER_API_AUTH_STRING": "admin:pass",
        "AZURE_STORAGE_ACCOUNT_KEY": "azure",
        "EMPTY_TOKEN": "",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token",
        "AWS_REGION": "eu-west-1",
        "HOSTNAME": "node-1",
        "TOKENIZERS_PARALLELISM": "true",
        "AZURE_STORAGE_KEY": "azure's other name",
    }
    assert list_secrets(environment) == {
        SECRET,
        "AKIAIOSFODNN7EXAMPLE",
        "session",
        "token of the service",
        "hf_x",
        "pnu_x",
        "admin:pass",
        "azure",
        "azure's other name",
    }


def test_secrets_are_hidden_wherever_they_stand() -> None:
    secrets = frozenset({SECRET, "abc"})
    fields = {
        "whole": SECRET,
        "within": f"key={SECRET}, retry",
        "deep": {"a": [SECRET], SECRET: 1},
        "error": OSError(f"denied for {SECRET}"),
        "short": "abc",
        "holds a short one": "abcdef",
        "url": "http://user:pa/ss@host/x and s3://bucket/key",
        "token in a url": "https://hf_x@host/x and abfss://container@account/x",
        "signed": "https://host/x?X-Amz-Signature=0f1e&part=1, https://host/y?a=1&sig=b%3D",
    }
    found = json.loads(encode_line(fields, secrets))
    assert found == {
        "whole": HIDDEN,
        "within": f"key={HIDDEN}, retry",
        "deep": {"a": [HIDDEN], HIDDEN: 1},
        "error": f"denied for {HIDDEN}",
        "short": HIDDEN,
        "holds a short one": "abcdef",
        "url": f"http://{HIDDEN}@host/x and s3://bucket/key",
        "token in a url": f"https://{HIDDEN}@host/x and abfss://container@account/x",
        "signed": f"https://host/x?X-Amz-Signature={HIDDEN}&part=1, https://host/y?a=1&sig={HIDDEN}",
    }


def test_a_secret_cut_in_two_is_hidden_before_the_text_is_cut() -> None:
    text = "x" * (MAX_TEXT - 5) + SECRET
    assert SECRET[:5] not in json.loads(encode_line({"a": text}, frozenset({SECRET})))["a"]


def test_hiding_is_finished_after_one_pass() -> None:
    once = hide(f"a {SECRET} b", frozenset({SECRET}))
    assert hide(once, frozenset({SECRET})) == once
