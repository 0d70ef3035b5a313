import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.paging import Cursor
from store.errors import QueryError


@given(st.text(max_size=20), st.integers(0, (1 << 53) - 1))
def test_a_cursor_comes_back_from_its_text(version: str, offset: int) -> None:
    cursor = Cursor(version, offset)
    assert Cursor.from_text(cursor.to_text()) == cursor


def test_the_text_of_a_cursor_needs_no_escapes_in_a_url() -> None:
    text = Cursor("c67797e6929abe82", 10_000).to_text()
    assert text.replace("-", "").replace("_", "").isalnum()


@pytest.mark.parametrize(
    "packed",
    [b"", b"[]", b'["v"]', b'["v",-1]', b'["v",1.5]', b'["v",true]', b"[1,2]", b'["v",1e300]'],
)
def test_anything_else_is_refused(packed: bytes) -> None:
    with pytest.raises(QueryError, match="no such cursor"):
        Cursor.from_text(base64.urlsafe_b64encode(packed).decode())


@given(st.text(max_size=30))
def test_no_text_breaks_the_reading_of_cursors(text: str) -> None:
    try:
        Cursor.from_text(text)
    except QueryError:
        return
