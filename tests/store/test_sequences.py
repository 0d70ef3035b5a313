from collections.abc import Iterator
from pathlib import Path

import pytest

from store import sequences
from store.atlas import Atlas
from store.errors import NotInAtlasError, QueryError
from store.schema import TABLES, sequence_id
from store.sequences import list_sequences, read_sequence
from tests.store.lake_fixture import add_file, add_shard, add_shard_row, build_atlas


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atlas]:
    """Two shards of `texts`, one of `images` whose text is long; the views for SQL are shut."""
    root = build_atlas(tmp_path_factory.mktemp("lake"), ordinals=(1, 0))
    add_shard(root, 2, corpus="images", tables=("queries", "keys", "tokens"))
    columns = {
        "corpus": ["images"] * 2,
        "sequence_id": [sequence_id(2, row) for row in (1, 0)],
        "source": ["cat.png"] * 2,
        "row": [1, 0],
        "char_offset": [0] * 2,
        "n_tokens": [7, 5],
        "truncated": [False] * 2,
        "text": ["ß" * 300, None],
        "image": [None, b"png"],
        "labels": [[], [("class", "cat"), ("split", "test")]],
    }
    add_file(root, "sequences", "s-tinyx2-1-a.parquet", columns, {"model": "tiny"})
    with Atlas(str(root)) as opened, pytest.MonkeyPatch.context() as patch:
        patch.setattr(opened, "_cursor", None)
        yield opened


def test_all_sequences_come_in_order_without_images_and_with_short_text(atlas: Atlas) -> None:
    found = list_sequences(atlas, "tiny")
    names = [name for name in TABLES["sequences"].schema.names if name != "image"]
    assert found.schema.names == names
    ids = [sequence_id(ordinal, row) for ordinal in range(3) for row in range(3)][:-1]
    assert found["sequence_id"].to_pylist() == ids
    assert found["text"].to_pylist() == ["grüße"] * 6 + [None, "ß" * 200]
    assert set(found["model"].to_pylist()) == {"tiny"}


def test_pages_put_together_are_the_whole(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list_sequences(atlas, "tiny").to_pylist()
    monkeypatch.setattr(sequences, "CHUNK", 2)
    for size in (1, 3, 8, 20):
        starts = range(0, len(whole) + size, size)
        pages = [list_sequences(atlas, "tiny", limit=size, offset=n) for n in starts]
        assert [row for page in pages for row in page.to_pylist()] == whole
    assert list_sequences(atlas, "tiny", limit=0).num_rows == 0


def test_sequences_are_chosen_by_corpus_and_by_id(atlas: Atlas) -> None:
    assert list_sequences(atlas, "tiny", "images")["row"].to_pylist() == [0, 1]
    ids = [sequence_id(2, 0), sequence_id(0, 2), sequence_id(2, 0)]
    found = list_sequences(atlas, "tiny", sequence_ids=ids)
    assert found["sequence_id"].to_pylist() == [ids[1], ids[0]]
    assert list_sequences(atlas, "tiny", "images", ids)["sequence_id"].to_pylist() == ids[:1]
    assert list_sequences(atlas, "tiny", sequence_ids=[]).num_rows == 0


def test_one_sequence_has_its_text_image_and_labels(atlas: Atlas) -> None:
    text, image = (read_sequence(atlas, "tiny", sequence_id(2, row)) for row in (1, 0))
    assert text.schema.names == TABLES["sequences"].schema.names
    assert text["text"].to_pylist() == ["ß" * 300]
    assert image["image"].to_pylist() == [b"png"]
    assert image["labels"].to_pylist() == [[("class", "cat"), ("split", "test")]]


def test_what_is_not_there_is_named_with_what_is(atlas: Atlas) -> None:
    with pytest.raises(NotInAtlasError, match=r"no model tinny .*nearest: tiny"):
        list_sequences(atlas, "tinny")
    with pytest.raises(NotInAtlasError, match="no model tinny"):
        read_sequence(atlas, "tinny", 0)
    with pytest.raises(NotInAtlasError, match="no corpus image of tiny; nearest: images"):
        list_sequences(atlas, "tiny", "image")
    with pytest.raises(NotInAtlasError, match=r"no sequence 77 of tiny: ids go from 0 to 8589"):
        read_sequence(atlas, "tiny", 77)
    with pytest.raises(NotInAtlasError, match="no sequence 77 of tiny"):
        list_sequences(atlas, "tiny", sequence_ids=[0, 77])
    for limit, offset in ((-1, 0), (None, -1)):
        with pytest.raises(QueryError, match="must be 0 or more"):
            list_sequences(atlas, "tiny", limit=limit, offset=offset)


def test_a_model_without_sequences_has_an_empty_list(tmp_path: Path) -> None:
    build_atlas(tmp_path, ordinals=())
    add_shard_row(tmp_path, "x", "tiny", 0, "done", 1)
    with Atlas(str(tmp_path)) as opened:
        assert list_sequences(opened, "tiny").num_rows == 0
        with pytest.raises(NotInAtlasError, match="no sequence 0 of tiny: no ids are known"):
            read_sequence(opened, "tiny", 0)
