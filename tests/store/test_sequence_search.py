from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from store import search
from store.atlas import Atlas
from store.errors import LimitError, NotInAtlasError, QueryError
from store.filters import Filter
from store.schema import sequence_id
from store.sequence_search import Wanted, find_sequences
from store.sequences import list_sequences
from tests.store.lake_fixture import add_file, add_shard, add_shard_row, build_atlas

TEXTS = ["An IDENTIFIER is 100% a_name.", None, 'STRASSE "x" ; DROP TABLE', "x" * 300 + "ENDE"]
LABELS: list[list[tuple[str, str]]] = [
    [("class", "dog"), ('odd "name', "1")],
    [],
    [("class", "cat")],
    [("class", "ant")],
]


@pytest.fixture(scope="module", params=["listed", "dataset"])
def atlas(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atlas]:
    """Two shards of `texts`, one of `more` with labels, read by DuckDB and through pyarrow."""
    root = build_atlas(tmp_path_factory.mktemp("lake"), ordinals=(0, 1))
    add_shard(root, 2, corpus="more", tables=("queries", "keys", "tokens"))
    columns = {
        "corpus": ["more"] * 4,
        "sequence_id": [sequence_id(2, row) for row in range(4)],
        "source": ["a.txt", "a.txt", "b.txt", "b.txt"],
        "row": [0, 1, 0, 1],
        "char_offset": [0] * 4,
        "n_tokens": [7, 5, 9, 5],
        "truncated": [True, False, False, False],
        "text": TEXTS,
        "labels": LABELS,
    }
    add_file(root, "sequences", "s-tinyx2-1-a.parquet", columns, {"model": "tiny"})
    with Atlas(str(root)) as opened, pytest.MonkeyPatch.context() as patch:
        if request.param == "dataset":
            patch.setattr(search, "is_listed", lambda *_: False)
        yield opened


def find(atlas: Atlas, **wanted: Any) -> list[int]:
    """The rows of `more`, as their number in its file, that are wanted."""
    rows, n_matches = find_sequences(atlas, "tiny", Wanted("more", **wanted))
    assert n_matches == rows.num_rows
    return [id - sequence_id(2, 0) for id in rows["sequence_id"].to_pylist()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("identifier", [0]),
        ("100%", [0]),
        ("%", [0]),
        ("a_n", [0]),
        ("strasse", [2]),
        ("'; drop", []),
        ('"x" ; drop', [2]),
        ("ende", [3]),
        ("nothing", []),
    ],
)
def test_text_is_found_anywhere_in_any_case_and_is_never_a_pattern(
    atlas: Atlas, text: str, expected: list[int]
) -> None:
    assert find(atlas, contains=text) == expected


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ([("n_tokens", ">", "5")], [0, 2]),
        ([("source", "=", "a.txt"), ("row", ">=", "1")], [1]),
        ([("truncated", "=", "true")], [0]),
        ([("sequence_id", "in", f"{sequence_id(2, 1)},{sequence_id(2, 3)}")], [1, 3]),
        ([("corpus", "=", "texts")], []),
        ([("label.class", "=", "cat")], [2]),
        ([("label.class", "prefix", "d")], [0]),
        ([("label.class", "is_null", None)], [1]),
        ([('label.odd "name', "=", "1")], [0]),
        ([("label.none", "not_null", None)], []),
        ([("label.class", "!=", "cat"), ("label.class", "!=", "dog")], [3]),
    ],
)
def test_filters_name_columns_and_labels(
    atlas: Atlas, filters: list[tuple[str, str, str | None]], expected: list[int]
) -> None:
    assert find(atlas, filters=tuple(Filter(*each) for each in filters)) == expected


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ((), [0, 1, 2, 3]),
        (("-sequence_id",), [3, 2, 1, 0]),
        (("n_tokens",), [1, 3, 0, 2]),
        (("-source", "-row"), [3, 2, 1, 0]),
        (("label.class",), [3, 2, 0, 1]),
        (("-label.class",), [0, 2, 3, 1]),
    ],
)
def test_order_is_by_columns_and_labels_with_ties_by_id(
    atlas: Atlas, sort: tuple[str, ...], expected: list[int]
) -> None:
    assert find(atlas, sort=sort) == expected


def test_a_token_is_found_whole(atlas: Atlas) -> None:
    rows, n_matches = find_sequences(atlas, "tiny", Wanted(token="t6"))
    tokens = atlas.tokens("tiny").to_pylist()
    listed = list_sequences(atlas, "tiny")["sequence_id"].to_pylist()
    expected = {row["sequence_id"] for row in tokens if row["token"] == "t6"} & set(listed)
    assert set(rows["sequence_id"].to_pylist()) == expected
    assert n_matches == len(expected) > 0
    assert find(atlas, token="t") == []
    assert find(atlas, token="t6", contains="identifier", sort=("row",)) == []


def test_pages_put_together_are_the_whole_in_its_order(atlas: Atlas) -> None:
    for wanted in (Wanted(), Wanted(sort=("-n_tokens", "label.class")), Wanted(contains="E")):
        whole, n_matches = find_sequences(atlas, "tiny", wanted)
        assert len(whole) == n_matches > 2
        for size in (1, 3, 20):
            pages = [find_sequences(atlas, "tiny", wanted, size, n) for n in range(0, 12, size)]
            rows = [row for page, _ in pages for row in page.to_pylist()]
            assert rows == whole.to_pylist()
            assert {n for _, n in pages} == {n_matches}
    plain = list_sequences(atlas, "tiny")
    assert find_sequences(atlas, "tiny", Wanted())[0].equals(plain)


def test_wrong_searches_say_what_is_wrong(atlas: Atlas) -> None:
    wrong: list[tuple[Wanted, str]] = [
        (Wanted(filters=(Filter("text", "=", "a"),)), "no column 'text' here"),
        (Wanted(filters=(Filter("n_tokens", "=", "a"),)), "'a' is no value for n_tokens"),
        (Wanted(sort=("-tokens",)), "no column 'tokens' here; nearest: n_tokens"),
        (Wanted(sort=("labels",)), "no column 'labels' here"),
    ]
    for wanted, message in wrong:
        with pytest.raises(QueryError, match=message):
            find_sequences(atlas, "tiny", wanted)
    with pytest.raises(NotInAtlasError, match="no corpus mor of tiny; nearest: more"):
        find_sequences(atlas, "tiny", Wanted("mor", contains="a"))
    with pytest.raises(NotInAtlasError, match="no model tinny"):
        find_sequences(atlas, "tinny", Wanted(contains="a"))
    with pytest.raises(QueryError, match="must be 0 or more"):
        find_sequences(atlas, "tiny", Wanted(), limit=-1)


def test_a_search_over_the_limit_is_refused_and_a_filter_is_not(tmp_path: Path) -> None:
    with Atlas(str(build_atlas(tmp_path))) as opened:
        for wanted in (Wanted(contains="a"), Wanted(token="t1")):
            with pytest.raises(LimitError, match=r"allowed are 10 \(scan_bytes\): ask the tables"):
                find_sequences(opened, "tiny", wanted, scan_bytes=10)
        wanted = Wanted(filters=(Filter("row", "=", 1),))
        assert find_sequences(opened, "tiny", wanted, scan_bytes=10)[1] == 2


def test_a_model_without_sequences_has_none(tmp_path: Path) -> None:
    build_atlas(tmp_path, ordinals=())
    add_shard_row(tmp_path, "x", "tiny", 0, "done", 1)
    with Atlas(str(tmp_path)) as opened:
        for wanted in (Wanted(), Wanted(contains="a"), Wanted(sort=("row",))):
            assert find_sequences(opened, "tiny", wanted)[1] == 0
