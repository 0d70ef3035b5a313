"""The rows of `tokens` and `sequences` describe what the model read."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.inputs import encode_texts, encode_units
from pipeline.models import LoadedModel
from pipeline.readers import Unit
from pipeline.token_rows import SequenceRecord, TokenRows
from store.schema import TABLES
from tests.pipeline.captured_lake import capture_corpus
from tests.pipeline.test_inputs import SlowTokenizer
from tests.pipeline.tiny_models import tiny_model

TEXTS = ("the  cat, sat", "zebra on", "a")


def make_records(loaded: LoadedModel, length: int = 24) -> list[SequenceRecord]:
    units = [Unit(row, 2 * row, text, None, {}, row, None) for row, text in enumerate(TEXTS)]
    encoded = encode_units(loaded, units, length)
    pairs = zip(units, encoded, strict=True)
    return [SequenceRecord(7 + unit.row, "c", "a.txt", unit, e) for unit, e in pairs]


def tokens(name: str, stack: str = "", length: int = 24) -> list[dict[str, Any]]:
    loaded = tiny_model(name)
    rows = TokenRows(loaded).tokens(make_records(loaded, length), stack)
    assert rows.schema.equals(TABLES["tokens"].file_schema.remove_metadata())
    found: list[dict[str, Any]] = rows.to_pylist()
    return found


def test_characters_of_a_token_cut_it_out_of_the_text() -> None:
    for row in tokens("bert"):
        text = TEXTS[row["sequence_id"] - 7]
        start, end = row["char_start"], row["char_end"]
        if row["is_special"]:
            assert start is None and end is None
        elif row["token"] != "[UNK]":
            assert text[start:end] == row["token"]


def test_tokens_carry_place_name_and_id() -> None:
    rows = tokens("bert")[-3:]
    assert [(r["sequence_id"], r["position"], r["token"]) for r in rows] == [
        (9, 0, "[CLS]"), (9, 1, "a"), (9, 2, "[SEP]"),
    ]  # fmt: skip
    vocabulary = tiny_model("bert").tokenizer.get_vocab()
    assert all(row["vocab_id"] == vocabulary[row["token"]] for row in rows)
    assert [row["is_special"] for row in rows] == [True, False, True]
    images = ("patch_row", "patch_col", "hue", "saturation", "brightness", "label")
    assert all(row[name] is None for row in rows for name in (*images, "part_of_speech"))


def test_tokenizer_without_offsets_gives_no_characters() -> None:
    loaded = tiny_model("bert")
    encoded = encode_texts(SlowTokenizer(), list(TEXTS), 24)
    records = [
        SequenceRecord(r.sequence_id, r.corpus, r.source, r.unit, e)
        for r, e in zip(make_records(loaded), encoded, strict=True)
    ]
    rows = TokenRows(loaded).tokens(records, "")
    assert rows["char_start"].null_count == rows["char_end"].null_count == rows.num_rows
    assert rows["token"].null_count == 0


@pytest.mark.parametrize(("name", "start"), [("t5", "<pad>"), ("bart", "</s>")])
def test_decoder_reads_the_tokens_shifted_right(name: str, start: str) -> None:
    encoder, decoder = tokens(name, "encoder"), tokens(name, "decoder")
    assert len(encoder) == len(decoder)
    for index, row in enumerate(decoder):
        if row["position"] == 0:
            assert (row["token"], row["is_special"], row["char_start"]) == (start, True, None)
        else:
            for column in ("token", "vocab_id", "is_special", "char_start", "char_end"):
                assert row[column] == encoder[index - 1][column]


def test_captured_decoder_tokens_are_what_the_decoder_read(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("the cat sat\non a mat\n")
    _, report = capture_corpus(tmp_path / "atlas", tiny_model("t5"), "t5", tmp_path / "lines.txt")
    read = {
        model: pq.read_table(tmp_path / "atlas" / "tokens" / file.path, partitioning=None)
        for model, files in report.files.items()
        for file in files
        if file.table == "tokens"
    }
    assert set(read) == {"t5--encoder", "t5--decoder"}
    assert read["t5--encoder"]["token"].to_pylist()[:4] == ["the", "cat", "sat", "</s>"]
    assert read["t5--decoder"]["token"].to_pylist()[:4] == ["<pad>", "the", "cat", "sat"]


def test_sequences_say_where_they_come_from() -> None:
    loaded = tiny_model("bert")
    rows = TokenRows(loaded).sequences(make_records(loaded, length=4))
    assert rows.schema.equals(TABLES["sequences"].file_schema.remove_metadata())
    assert rows.to_pylist()[0] == {
        "corpus": "c", "sequence_id": 7, "source": "a.txt", "row": 0, "char_offset": 0,
        "n_tokens": 4, "truncated": True, "text": TEXTS[0], "image": None, "labels": [],
    }  # fmt: skip
    assert rows["char_offset"].to_pylist() == [0, 2, 4]
    assert rows["truncated"].to_pylist() == [True, False, False]


def image_records(loaded: LoadedModel, *images: Image.Image) -> list[SequenceRecord]:
    units = [Unit(0, 0, None, image, {"folder": "cats"}, 0, None) for image in images]
    pairs = enumerate(zip(units, encode_units(loaded, units, 24), strict=True))
    return [SequenceRecord(index, "c", "a.png", unit, e) for index, (unit, e) in pairs]


def patch_rows(name: str, image: Image.Image) -> list[dict[str, Any]]:
    loaded = tiny_model(name, "image")
    found: pa.Table = TokenRows(loaded).tokens(image_records(loaded, image), "")
    rows: list[dict[str, Any]] = found.to_pylist()
    return rows


@pytest.mark.parametrize("name", ["vit", "clip"])
def test_patches_have_their_place_and_colour(name: str) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16] = (255, 0, 0)  # red above, blue below
    pixels[16:] = (0, 0, 255)
    rows = patch_rows(name, Image.fromarray(pixels))
    assert [row["is_special"] for row in rows] == [True] + [False] * 16
    assert all(rows[0][c] is None for c in ("patch_row", "patch_col", "hue", "token", "vocab_id"))
    at = [(row["patch_row"], row["patch_col"]) for row in rows[1:]]
    assert at == [(row, column) for row in range(4) for column in range(4)]
    for row in rows[1:]:
        expected = 0 if row["patch_row"] < 2 else 2 / 3
        assert row["hue"] == pytest.approx(expected, abs=0.01)
        assert row["saturation"] == pytest.approx(1, abs=0.02)
        assert row["brightness"] == pytest.approx(1, abs=0.02)


def test_colours_stay_within_0_and_1() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    for row in patch_rows("vit", Image.fromarray(noise))[1:]:
        for column in ("hue", "saturation", "brightness"):
            assert 0 <= row[column] <= 1


def test_image_opens_at_the_size_that_the_model_saw() -> None:
    loaded = tiny_model("vit", "image")
    noise = np.random.default_rng(0).integers(0, 256, (90, 50, 3), dtype=np.uint8)
    (row,) = TokenRows(loaded).sequences(image_records(loaded, Image.fromarray(noise))).to_pylist()
    with Image.open(io.BytesIO(row["image"])) as image:
        assert (image.format, image.size, image.mode) == ("PNG", (32, 32), "RGB")
    assert (row["text"], row["n_tokens"], row["labels"]) == (None, 17, [("folder", "cats")])
