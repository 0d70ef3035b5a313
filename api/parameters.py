"""Values that come as text in a URL: filters, lists, boxes. Named as the URLs name them."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NoReturn

from fastapi import Path, Query

from api.paging import Cursor
from store.errors import QueryError
from store.filters import Filter
from store.points import Box

VERSION = "c67797e6929abe82"
"""Of the atlas, in examples."""

Model = Annotated[str, Path(description="Model key.", examples=["minilm"])]
Layer = Annotated[int, Path(ge=0, le=1_000_000, description="From 0.", examples=[0])]
Head = Annotated[int, Path(ge=0, le=1_000_000, description="Query head, from 0.", examples=[0])]
SequenceId = Annotated[int, Path(ge=0, lt=1 << 53, examples=[0])]
OneSequence = Annotated[int, Query(ge=0, lt=1 << 53, examples=[0])]

OfModel = Annotated[str | None, Query(description="Model key; all where left out.")]
Filters = Annotated[
    list[str] | None,
    Query(
        alias="filter",
        max_length=50,
        description="`column:operator:value`, repeatable; all must hold. Operators: =, !=, <, <=, "
        ">, >=, in (comma separated), contains, prefix, is_null, not_null.",
        examples=[["entropy:<:0.5"]],
    ),
]
Sort = Annotated[
    list[str] | None,
    Query(max_length=10, description="A column, `-` before it for descending; repeatable."),
]


def read_filters(texts: Sequence[str] | None) -> list[Filter]:
    """Filters from `column:operator:value`; a value may hold colons.

    Raises:
        QueryError: a part is missing.
    """
    filters = []
    for text in texts or ():
        column, _, rest = text.partition(":")
        operator, colon, value = rest.partition(":")
        if not operator:
            _refuse("filter", text, "column:operator:value")
        filters.append(Filter(column, operator, value if colon else None))
    return filters


def read_columns(text: str | None) -> list[str] | None:
    """Names between commas; None for no text."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def read_positions(text: str) -> list[int]:
    """Integers between commas.

    Raises:
        QueryError: one is none.
    """
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        _refuse("hidden", text, "positions between commas, as 0,7")


def read_box(text: str | None) -> Box | None:
    """Bounds `x0,x1,y0,y1[,z0,z1]`.

    Raises:
        QueryError: not four or six numbers.
    """
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in (4, 6):
        _refuse("box", text, "x0,x1,y0,y1 or x0,x1,y0,y1,z0,z1")
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _refuse(name: str, text: str, expected: str) -> NoReturn:
    raise QueryError(f"{name}={text[:100]}: write it as {expected}")


def shown(example: object) -> dict[int | str, dict[str, Any]]:
    """The reply of an endpoint as OpenAPI shows it."""
    content: dict[str, Any] = {
        "application/json": {"example": example},
        "application/vnd.apache.arrow.stream": {},
    }
    return {200: {"description": "JSON, or an Arrow stream by Accept.", "content": content}}


def shown_page(row: Mapping[str, object], **more: object) -> dict[int | str, dict[str, Any]]:
    """The page of rows of an endpoint as OpenAPI shows it, with more fields before the rows."""
    head = {"version": VERSION, "n_rows": 1, "next": Cursor(VERSION, 1).to_text()}
    return shown({**head, **more, "rows": [row]})
