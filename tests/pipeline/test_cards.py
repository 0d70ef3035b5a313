"""The rows of `models` and `heads` say what was found, and the check sees what may come."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.cards import check_model, describe_heads, describe_models, position_encoding
from pipeline.inputs import Encoded, encode_texts
from pipeline.verify import SiteCheck
from tests.pipeline.captured_lake import Capture, prepare, with_capture
from tests.pipeline.tiny_models import WINDOW, Kind, make_text, tiny_model


def make_capture(folder: Path, name: str, **settings: Any) -> Capture:
    (folder / "lines.txt").write_text(make_text(9) + "\n" + make_text(4) + "\n")
    capture = with_capture(**settings)
    return prepare(folder / "atlas", tiny_model(name), name, folder / "lines.txt", capture)


def test_cross_attention_reads_the_tokens_of_both_sides(tmp_path: Path) -> None:
    ready = make_capture(tmp_path, "t5")
    rows = describe_models(ready.loaded, ready.stacks, ready.check())
    names = ("model", "query_model", "key_model", "position_encoding")
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("t5--encoder", "t5--encoder", "t5--encoder", "offset_bias"),
        ("t5--decoder", "t5--decoder", "t5--decoder", "offset_bias"),
        ("t5--cross", "t5--decoder", "t5--encoder", "none"),
    ]  # fmt: skip
    assert all((r["n_layers"], r["n_heads"], r["d_head"]) == (2, 4, 8) for r in rows)
    assert all(0 < r["attention_max_abs_error"] < 1e-4 for r in rows)
    assert all(r["attention_stored_max_abs_error"] < 5e-3 for r in rows)


@pytest.mark.parametrize(
    ("name", "modality", "expected"),
    [
        ("bert", "text", "absolute"),
        ("gpt2", "text", "absolute"),
        ("llama", "text", "rotary"),
        ("modernbert", "text", "rotary"),
        ("opt", "text", "absolute"),
        ("bart", "text", "absolute"),
        ("clip", "text", "absolute"),
        ("vit", "image", "absolute"),
    ],
)
def test_position_encoding_is_told(name: str, modality: Kind, expected: str) -> None:
    assert position_encoding(tiny_model(name, modality)) == expected


def test_heads_are_described_where_they_are_captured(tmp_path: Path) -> None:
    ready = make_capture(tmp_path, "gpt_oss", layers=(1,), heads=(3, 0))
    rows = describe_heads(ready.wanted, ready.check())
    assert [(r["layer"], r["head"], r["kv_head"]) for r in rows] == [(1, 0, 0), (1, 3, 1)]
    assert rows[0]["sink"] != rows[1]["sink"]
    assert {(r["mask"], r["window"], r["soft_cap"], r["offset_bias"]) for r in rows} == {
        ("causal", None, None, None)
    }


def seen_lengths(
    monkeypatch: pytest.MonkeyPatch, name: str, texts: list[str], length: int
) -> list[int]:
    seen: list[list[int]] = []

    def record(_: Any, sites: Any, encoded: list[Encoded], precision: str) -> list[SiteCheck]:
        seen.append([sequence.n_tokens for sequence in encoded])
        return []

    monkeypatch.setattr("pipeline.cards.check_attention", record)
    loaded = tiny_model(name)
    check_model(loaded, [], encode_texts(loaded.tokenizer, texts, length), "float16", length)
    return seen[0]


@pytest.mark.parametrize(
    ("n_words", "expected"),
    [((9, 4, 6), [24, 6]), ((2,), [24, 4]), ((50, 60), [24, 12])],
)
def test_check_sees_the_longest_that_may_come_and_padding(
    n_words: tuple[int, ...], expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [make_text(n) for n in n_words]
    assert seen_lengths(monkeypatch, "bert", texts, 24) == expected


def test_window_is_found_though_the_corpus_is_short(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("the\n")
    ready = prepare(tmp_path, tiny_model("modernbert"), "m", tmp_path / "one.txt")
    assert [site.facts[0].window for site in ready.check()] == [None, WINDOW + 1, WINDOW + 1]


def test_bias_is_known_for_every_offset_though_the_corpus_is_short(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("the\n")
    ready = prepare(tmp_path, tiny_model("t5"), "t5", tmp_path / "one.txt")
    bias = ready.check()[0].facts[0].offset_bias
    assert bias is not None and len(bias) == 2 * 24 - 1
    assert len(set(bias)) == 7  # of 8 buckets; no offset falls into "0 ahead"
