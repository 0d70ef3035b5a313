from typing import Any

import numpy as np
import pytest

from store import point_vectors
from store.atlas import Atlas
from store.errors import NotInAtlasError
from store.viewer_table import CONTEXT, cut_around, read_viewer_table
from tests.api.small_app import POINTS, build_mapped_atlas

SCALING = 0.25


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    return Atlas(str(build_mapped_atlas(tmp_path_factory.mktemp("atlas"))))


def vectors_of(atlas: Atlas, head: int) -> dict[tuple[str, int, int], np.ndarray]:
    """Every vector of a head, by kind, sequence and position."""
    found = atlas.read_head("tiny", 0, head)
    sides = (("query", found.queries, found.query_at), ("key", found.keys, found.key_at))
    return {
        (kind, int(at.sequence_id[row]), int(at.position[row])): vectors[row]
        for kind, vectors, at in sides
        for row in range(len(vectors))
    }


def place(row: dict[str, Any]) -> tuple[str, int, int]:
    return row["kind"], row["sequence_id"], row["position"]


@pytest.mark.parametrize("at_once", [1, 512])
def test_neighbours_are_the_ten_of_the_other_kind_that_score_highest(
    atlas: Atlas, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(point_vectors, "SEQUENCES_AT_ONCE", at_once)
    rows = read_viewer_table(atlas, "m2", POINTS).to_pylist()
    vectors = vectors_of(atlas, 2)
    scores = {
        (one["id"], other["id"]): SCALING * float(vectors[place(one)] @ vectors[place(other)])
        for one in rows
        for other in rows
        if one["kind"] != other["kind"]
    }
    top = max(scores.values())
    for row in rows:
        mine = sorted((-score, other) for (one, other), score in scores.items() if one == row["id"])
        assert row["neighbors"]["ids"] == [other for _, other in mine[:10]]
        expected = [top + score for score, _ in mine[:10]]
        assert row["neighbors"]["distances"] == pytest.approx(expected, abs=1e-5)
        assert row["norm"] == pytest.approx(float(np.linalg.norm(vectors[place(row)])), rel=1e-5)


def test_points_come_by_rank_with_what_they_stand_for(atlas: Atlas) -> None:
    table = read_viewer_table(atlas, "m0", 7)
    points = atlas.points("m0", ["x", "y", "kind", "sequence_id", "position", "token", "rank"])
    assert table.num_rows == 7
    assert table["id"].to_pylist() == list(range(7))
    assert table.select(points.column_names).to_pylist() == points.slice(0, 7).to_pylist()
    assert set(table["label_class"].to_pylist()) == {"cat"}
    assert "grüße" in table["text"][0].as_py()
    for left_out in ("part_of_speech", "hue", "patch_row", "char_start", "z"):  # they hold nothing
        assert left_out not in table.column_names


def test_a_map_that_is_not_there_is_said(atlas: Atlas) -> None:
    with pytest.raises(NotInAtlasError, match="no map m9"):
        read_viewer_table(atlas, "m9", 10)


@pytest.mark.parametrize(
    ("text", "token", "start", "end", "expected"),
    [
        ("a cat sat", "cat", 2, 5, "a ⟦cat⟧ sat"),
        ("grüße", "ü", 2, 3, "gr⟦ü⟧ße"),
        ("x" * 500, "x", 250, 251, "…" + "x" * CONTEXT + "⟦x⟧" + "x" * CONTEXT + "…"),
        ("a cat", "[CLS]", None, None, "⟦[CLS]⟧ a cat"),
        ("y" * 500, None, None, None, "y" * 2 * CONTEXT + "…"),
        ("", None, None, None, ""),
    ],
)
def test_the_text_around_a_token_is_bounded(
    text: str, token: str | None, start: int | None, end: int | None, expected: str
) -> None:
    assert cut_around(text, token, start, end) == expected
