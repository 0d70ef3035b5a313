from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from store import search
from store.atlas import Atlas
from store.errors import NotInAtlasError, QueryError
from store.search import Match, count_tokens, search_tokens
from tests.store.lake_fixture import (
    add_file,
    add_model,
    add_shard,
    build_atlas,
    create_tables,
    positions,
)

WORDS = ["a%b", "a_b", "aXb", "A%B", ".*", "[a-z]", "Grün", "GRÜN", "##ün", "Ġthe", "The", "the"]
WORDS += ["\\", "it's", '"', "$text", "' OR true --", "猫", "猫の", "e\u0301", "?", "*"]
TOKENS = [*WORDS, *WORDS[5:], *[None] * 6]
"""45 tokens; those without text are image patches."""

TEXTS = [*WORDS, "%", "_", "gr", "A", "t", "THE", "'", "nothing", " "]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files of tokens, the last committed first."""
    root = tmp_path_factory.mktemp("it's 100% {a lake}")
    create_tables(root)
    add_model(root)
    for ordinal in (2, 0, 1):
        add_shard(root, ordinal, tables=("sequences",))
        tokens = TOKENS[15 * ordinal : 15 * (ordinal + 1)]
        special = [position == 0 for position in positions(0)["position"]]
        columns = {**positions(ordinal), "token": tokens, "is_special": special}
        add_file(root, "tokens", f"s-tinyx{ordinal}-1-t.parquet", columns, {"model": "tiny"})
    return root


@pytest.fixture(params=["listed", "dataset"])
def atlas(
    lake: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Atlas]:
    """Files read by DuckDB itself, or as a dataset, as those of a remote atlas are."""
    monkeypatch.setattr(search, "is_listed", lambda *_: request.param == "listed")
    with Atlas(str(lake)) as opened:
        monkeypatch.setattr(opened, "_cursor", None)
        yield opened


def _plain(atlas: Atlas, text: str, match: Match, case: bool) -> list[dict[str, Any]]:
    columns = ["sequence_id", "position", "token", "is_special"]
    found = []
    for row in atlas.tokens("tiny").select(columns).to_pylist():
        token, wanted = row["token"], text
        if token is not None and not case:
            token, wanted = token.lower(), text.lower()
        if token is not None and {
            "exact": token == wanted,
            "prefix": token.startswith(wanted),
            "substring": wanted in token,
        }.get(match):
            found.append(row)
    return found


@pytest.mark.parametrize("case", [True, False])
@pytest.mark.parametrize("match", get_args(Match))
def test_search_and_counts_equal_the_plain_way_and_text_is_no_pattern(
    atlas: Atlas, match: Match, case: bool
) -> None:
    for text in TEXTS:
        expected = _plain(atlas, text, match, case)
        assert search_tokens(atlas, "tiny", text, match, case).to_pylist() == expected, text
        counts = Counter(row["token"] for row in expected)
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        counted = count_tokens(atlas, "tiny", text, match, case)
        assert counted.to_pylist() == [{"token": token, "n": n} for token, n in ordered], text


def test_pages_put_together_are_the_whole(atlas: Atlas) -> None:
    whole = search_tokens(atlas, "tiny", "t", "substring").to_pylist()
    assert len(whole) > 4
    pages = [search_tokens(atlas, "tiny", "t", "substring", True, 2, n) for n in range(0, 12, 2)]
    assert [row for page in pages for row in page.to_pylist()] == whole
    assert count_tokens(atlas, "tiny", "t", "substring", limit=2).num_rows == 2


def test_wrong_arguments_are_named(atlas: Atlas) -> None:
    for ask in (search_tokens, count_tokens):
        with pytest.raises(QueryError, match="is empty: give at least one character"):
            ask(atlas, "tiny", "")
        with pytest.raises(QueryError, match="match 'like' is unknown: take exact, prefix, subs"):
            ask(atlas, "tiny", "t", "like")  # type: ignore[arg-type]
        with pytest.raises(QueryError, match="limit -1 and offset 0 must be 0 or more"):
            ask(atlas, "tiny", "t", limit=-1)
        with pytest.raises(NotInAtlasError, match="no model tinny"):
            ask(atlas, "tinny", "t")


def test_cross_attention_names_the_stacks_that_have_tokens(tmp_path: Path) -> None:
    build_atlas(tmp_path, ordinals=[0])
    add_model(tmp_path, "x--cross", query_model="x--decoder", key_model="tiny")
    add_shard(tmp_path, 0, model="x--cross", tables=("queries", "keys"))
    with (
        Atlas(str(tmp_path)) as opened,
        pytest.raises(NotInAtlasError, match="no tokens of its own: search tiny and x--decoder"),
    ):
        search_tokens(opened, "x--cross", "t0")
