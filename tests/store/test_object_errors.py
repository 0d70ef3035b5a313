"""Texts of object stores: what trouble they tell of, and that no secret of theirs is shown."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.object_store import KEY
from store import object_errors
from store.object_errors import redact, trouble_of

FORMS = (
    "<AWSAccessKeyId>{}</AWSAccessKeyId>",
    "<Token-0>{}</Token-0>",
    "Authorization: Bearer {}",
    "'Authorization': 'Basic {}'",
    "password={}",
    '{{"secret_access_key": "{}"}}',
    "session_token: {}",
    "?X-Amz-Signature={}&x=1",
    "https://user:{}@host/a",
    "https://user:a@{}@host/a",
)
PLAIN = st.text("abcXYZ019 .:/<>'\"@&?", max_size=20)


@settings(max_examples=300, deadline=None)
@given(PLAIN, st.sampled_from(FORMS), st.text("ghijGHIJ2345+._-", min_size=12, max_size=40), PLAIN)
def test_whatever_surrounds_a_secret_it_is_gone(
    before: str, form: str, secret: str, after: str
) -> None:
    assert secret not in redact(f"{before}{form.format(secret)}{after}")


def test_texts_of_all_three_libraries_are_understood() -> None:
    texts = {
        "AWS Error SIGNATURE_DOES_NOT_MATCH during ListObjectsV2 operation": "secret",
        "404 Not Found <Error><Code>NoSuchBucket</Code></Error>": "bucket",
        "An error occurred (ExpiredToken) when calling the ListObjectsV2 operation": "token",
        "AWS Error UNKNOWN (HTTP status 503) during PutObject: ExceptionName: SlowDown": "network",
        "Unable to locate credentials": "none",
        "Path does not exist 'lab/a.parquet'": None,
        "Parquet magic bytes not found in footer": None,
    }
    assert {text: trouble_of(OSError(text)) for text in texts} == texts


@pytest.mark.parametrize(
    "path",
    [
        "s3://lab/timeout-runs/queries/model=m/a.parquet",
        "lab/runs/queries/model=timeout-x/a.parquet",
        "s3://lab/my timeout runs/a.parquet",
    ],
)
def test_words_in_a_path_are_no_trouble_of_the_store(path: str) -> None:
    for text in ("'{}': Parquet magic bytes not found", "{}: read less than 9 bytes"):
        error = OSError(text.format(path.removeprefix("s3://")))
        assert trouble_of(error, path) is None
        assert trouble_of(OSError(text.format(path)), path) is None
    assert trouble_of(OSError(f"error for url ({path}): operation timed out"), path) == "network"
    assert trouble_of(OSError("<h1>Gateway</h1><p>timeout</p>"), path) == "network"


# what is long


LIMIT = 300 + 2 * 4_096


def test_only_the_beginning_of_a_long_text_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = list[int]()

    class Counting:
        def sub(self, put: str, text: str) -> str:
            lengths.append(len(text))
            return text

    assert redact("a" * 200_000) == "a" * 299 + "…"
    monkeypatch.setattr(object_errors, "_SHOWN", [(Counting(), "")])
    redact("a" * 200_000)
    assert lengths == [LIMIT]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("filler", [" ", "x", f"{KEY} "])
def test_a_secret_at_the_end_of_what_is_searched_is_gone(form: str, filler: str) -> None:
    secret = "ghijGHIJ2345"
    for back in range(len(form) + len(secret)):
        before = (filler * LIMIT)[: LIMIT - back - 1] + " "
        shown = redact(f"{before}{form.format(secret)} and so on", longest=LIMIT)
        assert "ghi" not in shown
        shown = redact(f"{before}{form.format(secret)} and so on")
        assert "ghi" not in shown
