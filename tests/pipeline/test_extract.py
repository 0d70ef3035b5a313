"""A shard becomes the same complete files however it is batched, cut or sampled."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import extract
from pipeline.extract import Extractor, make_chunks
from pipeline.inputs import Encoded
from pipeline.models import load_model
from pipeline.readers import Unit
from pipeline.settings import CaptureSpec, SampleSpec
from pipeline.shards import ShardReport
from pipeline.stacks import trace_calls
from pipeline.token_rows import SequenceRecord
from store.errors import ConfigError, UnsupportedModelError
from tests.pipeline.captured_lake import (
    CAPTURE,
    all_files,
    assert_equal_rows,
    capture_corpus,
    prepare,
    read_rows,
    with_capture,
    write_lines,
)
from tests.pipeline.own_attention import largest_error, load_eager, own_attention
from tests.pipeline.tiny_models import make_text, tiny_folder, tiny_model, tiny_spec


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "lines.txt", 3, 17, 1, 60, 9, 2, 19, 5, 5, 12)


def capture(
    uri: Path, source: Path, spec: CaptureSpec = CAPTURE, name: str = "llama"
) -> ShardReport:
    ready = prepare(uri, tiny_model(name), name, source, spec)
    return ready.extractor.extract_shard(ready.work())


def read_bytes(uri: Path, report: ShardReport) -> dict[str, bytes]:
    return {
        f"{file.table} {file.partition}": (uri / file.table / file.path).read_bytes()
        for files in report.files.values()
        for file in files
    }


def test_rows_are_sorted_without_padding(corpus: Path, tmp_path: Path) -> None:
    report = capture(tmp_path / "atlas", corpus)
    lengths = [min(24, n + 1) for n in (3, 17, 1, 60, 9, 2, 19, 5, 5, 12)]
    expected = [(row, position) for row, n in enumerate(lengths) for position in range(n)]
    assert report.counts.n_tokens == len(expected)
    for name, rows in read_rows(tmp_path / "atlas", report).items():
        if name.startswith(("queries", "keys", "tokens")):
            at = zip(rows["sequence_id"].to_pylist(), rows["position"].to_pylist(), strict=True)
            assert list(at) == expected
    by_table = [file.table for file in report.files["llama"]]
    assert {t: by_table.count(t) for t in by_table} == {
        "queries": 8, "keys": 4, "tokens": 1, "sequences": 1,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["llama", "t5"])
@pytest.mark.parametrize("batch_tokens", [1, 10_000])
def test_batches_change_nothing_but_float_noise(
    batch_tokens: int, name: str, corpus: Path, tmp_path: Path
) -> None:
    exact = with_capture(precision="float32")
    one = capture(tmp_path / "one", corpus, exact, name)
    other = capture(tmp_path / "other", corpus, replace(exact, batch_tokens=batch_tokens), name)
    expected = read_rows(tmp_path / "one", one)
    assert_equal_rows(read_rows(tmp_path / "other", other), expected, off=2e-5)


def test_chunks_change_nothing_but_float_noise(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = with_capture(precision="float32")
    one = capture(tmp_path / "one", corpus, exact)
    monkeypatch.setattr(extract, "rows_per_group", lambda d_head: 30)
    other = capture(tmp_path / "other", corpus, exact)
    expected = read_rows(tmp_path / "one", one)
    assert_equal_rows(read_rows(tmp_path / "other", other), expected, off=2e-5)
    file = next(f for f in other.files["llama"] if f.table == "queries")
    assert pq.ParquetFile(tmp_path / "other" / "queries" / file.path).num_row_groups > 3


def test_runs_of_the_same_settings_are_bit_identical(corpus: Path, tmp_path: Path) -> None:
    runs = [read_bytes(tmp_path / at, capture(tmp_path / at, corpus)) for at in ("one", "two")]
    assert runs[0] == runs[1]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ShardReport]:
    """A shard of several row groups of the true size: d_head 8, so 16,384 rows each."""
    root = tmp_path_factory.mktemp("large")
    lengths = [(17 * n) % 40 + 20 for n in range(1_000)]
    (root / "lines.txt").write_text("".join(make_text(n, n % 7) + "\n" for n in lengths))
    spec = with_capture(max_length=64, batch_tokens=4096, layers=(0,), heads=(2,))
    return root, capture(root, root / "lines.txt", spec)


def parquet(large: tuple[Path, ShardReport], table: str) -> pq.ParquetFile:
    root, report = large
    file = next(file for file in report.files["llama"] if file.table == table)
    return pq.ParquetFile(root / table / file.path)


def test_row_groups_end_with_a_sequence_and_have_their_size(
    large: tuple[Path, ShardReport],
) -> None:
    file = parquet(large, "queries")
    sizes = [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)]
    assert sum(sizes) == large[1].counts.n_tokens > 2 * 16_384
    assert all(16_384 - 64 < size <= 16_384 for size in sizes[:-1])
    groups = [file.read_row_group(at)["sequence_id"].to_numpy() for at in range(len(sizes))]
    for before, after in pairwise(groups):
        assert after[0] == before[-1] + 1


@pytest.mark.parametrize("table", ["queries", "keys"])
def test_vectors_are_encoded_as_promised(table: str, large: tuple[Path, ShardReport]) -> None:
    file = parquet(large, table)
    group = file.metadata.row_group(0)
    columns = {group.column(at).path_in_schema: group.column(at) for at in range(group.num_columns)}
    vector = columns["vector.list.element"]
    assert "BYTE_STREAM_SPLIT" in vector.encodings
    assert not any("DICTIONARY" in name for name in vector.encodings)
    assert vector.compression == "ZSTD"
    assert vector.statistics is None
    ids = columns["sequence_id"].statistics
    first = file.read_row_group(0)["sequence_id"]
    assert (ids.min, ids.max) == (first[0].as_py(), first[-1].as_py())
    assert file.schema_arrow.field("vector").type == pa.list_(
        pa.field("element", pa.float32(), nullable=False)
    )
    assert file.schema_arrow.names[:3] == ["sequence_id", "position", "vector"]
    assert not file.schema_arrow.field("vector").nullable


def test_damaged_page_is_found_by_its_checksum(corpus: Path, tmp_path: Path) -> None:
    report = capture(tmp_path / "atlas", corpus)
    file = next(f for f in report.files["llama"] if f.table == "queries")
    path = tmp_path / "atlas" / "queries" / file.path
    column = pq.ParquetFile(path).metadata.row_group(0).column(2)
    data = bytearray(path.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 9] ^= 1
    path.write_bytes(data)
    with pytest.raises(OSError, match="CRC"):
        pq.ParquetFile(path, page_checksum_verification=True).read()


def test_files_are_reported_as_they_are(corpus: Path, tmp_path: Path) -> None:
    uri = tmp_path / "atlas"
    report = capture(uri, corpus)
    for file in report.files["llama"]:
        path = uri / file.table / file.path
        assert path.stat().st_size == file.size
        assert pq.read_metadata(path).num_rows == file.n_rows
        assert path.name.startswith(f"s-{report.work.shard_ids['llama']}-1-")
        if file.table != "rejects":
            assert (file.first_sequence_id, file.last_sequence_id) == (0, 9)
    assert set(all_files(uri)) == {uri / file.table / file.path for file in report.files["llama"]}


def test_subset_stores_just_its_heads_and_the_keys_they_read(corpus: Path, tmp_path: Path) -> None:
    uri = tmp_path / "atlas"
    spec = with_capture(layers=(1,), heads=(3, 2), precision="float32")
    some = read_rows(uri, capture(uri, corpus, spec))
    every = read_rows(tmp_path / "all", capture(tmp_path / "all", corpus, replace(
        spec, layers=None, heads=None
    )))  # fmt: skip
    vectors = {name for name in some if name.startswith(("queries", "keys"))}
    assert vectors == {"queries/llama/1/2", "queries/llama/1/3", "keys/llama/1/1"}
    assert_equal_rows(some, {name: every[name] for name in some}, off=0)


def test_subset_gives_the_models_attention(corpus: Path, tmp_path: Path) -> None:
    spec = with_capture(layers=(1,), heads=(0, 3))
    ready, _ = capture_corpus(tmp_path, tiny_model("qwen3"), "qwen3", corpus, spec)
    own = own_attention(ready, *load_eager(tiny_folder("qwen3"), "text"))
    assert largest_error(ready, own) < 5e-3


def count_calls(
    monkeypatch: pytest.MonkeyPatch, run: Callable[[], Any], modules: list[torch.nn.Module]
) -> int:
    seen = 0

    def count(*_: Any) -> None:
        nonlocal seen
        seen += 1

    hooks = [module.register_forward_pre_hook(count) for module in modules]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return seen


@pytest.mark.parametrize(("layers", "n_layers"), [((0,), 1), ((1,), 2), (None, 2)])
def test_pass_ends_with_the_last_layer_that_is_wanted(
    layers: tuple[int, ...] | None, n_layers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_lines(tmp_path / "one.txt", 4)
    loaded = tiny_model("llama")
    ready = prepare(tmp_path / "atlas", loaded, "llama", source, with_capture(layers=layers))
    run = lambda: ready.extractor.extract_shard(ready.work())  # noqa: E731
    attention = [layer.self_attn for layer in loaded.model.layers]
    mlp = [layer.mlp for layer in loaded.model.layers]
    assert count_calls(monkeypatch, run, attention) == n_layers
    assert count_calls(monkeypatch, run, mlp) == n_layers - 1


def test_layer_that_is_not_there_is_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"capture.layers: \[2\] not in the model"):
        prepare(tmp_path, tiny_model("llama"), "llama", corpus, with_capture(layers=(2,)))


def test_stack_that_needs_the_shard_alone_is_captured_alone(corpus: Path, tmp_path: Path) -> None:
    ready = prepare(tmp_path / "atlas", tiny_model("t5"), "t5", corpus)
    work = ready.work()
    whole = read_rows(tmp_path / "atlas", ready.extractor.extract_shard(work))
    only = replace(work, shard_ids={"t5--cross": work.shard_ids["t5--cross"]})
    report = ready.extractor.extract_shard(only)
    assert set(report.files) == {"t5--cross"}
    rows = read_rows(tmp_path / "atlas", report)
    assert {name.split("/")[0] for name in rows} == {"queries", "keys", "sequences"}
    assert_equal_rows(rows, {name: whole[name] for name in rows}, off=0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_model_in_half_precision_is_captured(dtype: str, corpus: Path, tmp_path: Path) -> None:
    loaded = load_model(tiny_spec("bert", dtype), "text")
    ready, _ = capture_corpus(tmp_path, loaded, "bert", corpus)
    own = own_attention(ready, *load_eager(tiny_folder("bert"), "text"))
    error = largest_error(ready, own)
    assert error < {"float16": 2e-2, "bfloat16": 2e-1}[dtype]  # the whole pass is in half precision


LINE = st.sampled_from(["good", "long", "broken", "column", "empty", "number", "unknown"])
LINES = {
    "good": '{"text": "the cat sat"}',
    "long": json.dumps({"text": make_text(40)}),
    "broken": '{"text": ',
    "column": '{"body": "the cat"}',
    "empty": '{"text": ""}',
    "number": '{"text": 7}',
    "unknown": '{"text": "zebra zebra"}',
}
READABLE = ("good", "long", "unknown")


@settings(max_examples=15, deadline=None)
@given(st.lists(LINE, min_size=1, max_size=12), st.sampled_from([0.4, 1.0]), st.integers(0, 9))
def test_every_row_is_counted_once(kinds: list[str], fraction: float, seed: int) -> None:
    with TemporaryDirectory() as folder:
        source = Path(folder) / "rows.jsonl"
        source.write_text("".join(LINES[kind] + "\n" for kind in kinds))
        spec = with_capture(layers=(0,), sample=SampleSpec(fraction, seed=seed))
        ready = prepare(Path(folder) / "atlas", tiny_model("bert"), "bert", source, spec)
        scan = ready.scan()
        report = ready.extractor.extract_shard(ready.work())
        tables = read_rows(Path(folder) / "atlas", report)
    counts = report.counts
    assert counts.n_rows == len(kinds)
    assert counts.n_rows == counts.n_sequences + counts.n_rejects + counts.n_unsampled
    assert counts.n_rejects == sum(kind not in READABLE for kind in kinds)
    assert (counts.n_unsampled == 0) >= (fraction == 1)
    if counts.n_rejects:
        assert tables["rejects"]["row"].to_pylist() == [
            row for row, kind in enumerate(kinds) if kind not in READABLE
        ]
    stored = tables["sequences/bert"].num_rows if counts.n_sequences else 0
    assert stored == counts.n_sequences
    planned = scan.shards
    for name in ("n_rows", "n_unsampled", "n_sequences", "n_rejects", "n_tokens"):
        assert sum(getattr(shard, name) for shard in planned) == getattr(counts, name)


def test_text_without_tokens_is_rejected(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"text": "the cat"}\n{"text": "\\u200b"}\n')
    spec = with_capture(special_tokens=False)
    ready = prepare(tmp_path / "atlas", tiny_model("bert"), "bert", source, spec)
    loaded = ready.loaded
    no_words = replace(loaded, tokenizer=_Wordless(loaded.tokenizer))
    extractor = Extractor(**_fields(ready.extractor) | {"loaded": no_words})
    report = extractor.extract_shard(ready.work())
    assert (report.counts.n_sequences, report.counts.n_rejects) == (1, 1)
    rejects = read_rows(tmp_path / "atlas", report)["rejects"].to_pylist()
    assert rejects[0]["row"] == 1
    assert "finds no tokens" in rejects[0]["reason"]


class _Wordless:
    """A tokenizer that drops what it does not know."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def __len__(self) -> int:
        return len(self.tokenizer)

    def __call__(self, texts: list[str], **options: Any) -> Any:
        return self.tokenizer(["" if "\u200b" in text else text for text in texts], **options)


def _fields(extractor: Extractor) -> dict[str, Any]:
    return {name: value for name, value in vars(extractor).items() if not name.startswith("_")}


def test_shard_of_rejects_alone_has_one_file(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text(LINES["broken"] + "\n")
    report = capture(tmp_path / "atlas", source)
    assert [file.table for file in report.files["llama"]] == ["rejects"]


def test_shard_without_any_row_has_no_file(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "one.txt", 3)
    spec = with_capture(sample=SampleSpec(1e-9))
    report = capture(tmp_path / "atlas", source, spec)
    assert report.files == {"llama": []}
    assert (report.counts.n_rows, report.counts.n_unsampled) == (1, 1)


def test_calls_that_the_probe_did_not_make_are_refused(corpus: Path, tmp_path: Path) -> None:
    ready = prepare(tmp_path / "atlas", tiny_model("llama"), "llama", corpus)
    sites = trace_calls(tiny_model("llama"))[:1]
    extractor = Extractor(**_fields(ready.extractor) | {"sites": sites})
    with pytest.raises(UnsupportedModelError, match=r"attention call \(1\) that its probe did not"):
        extractor.extract_shard(ready.work())


def test_memory_is_two_chunks_whatever_the_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "rows_per_group", lambda d_head: 50)
    source = write_lines(tmp_path / "many.txt", *[n % 20 + 1 for n in range(80)])
    spec = with_capture(layers=(0,), heads=(0,))
    ready = prepare(tmp_path / "atlas", tiny_model("llama"), "llama", source, spec)
    report = ready.extractor.extract_shard(ready.work())
    assert report.counts.n_tokens > 800
    for buffer in ready.extractor._buffers:
        assert all(block.queries.shape[1] <= 50 for block in buffer.blocks.values())


def make_record(n_tokens: int) -> SequenceRecord:
    encoded = Encoded(n_tokens, False, np.zeros(n_tokens, np.bool_))
    return SequenceRecord(0, "c", "s", Unit(0, 0, "", None, {}, 0, None), encoded)


@given(st.lists(st.integers(1, 30)), st.integers(1, 40))
def test_chunks_keep_order_and_size(lengths: list[int], tokens: int) -> None:
    records = [make_record(n) for n in lengths]
    chunks = list(make_chunks(records, tokens))
    assert [record for chunk in chunks for record in chunk] == records
    for chunk in chunks:
        size = sum(record.encoded.n_tokens for record in chunk)
        assert chunk and (size <= tokens or len(chunk) == 1)
    sizes = [sum(r.encoded.n_tokens for r in chunk) for chunk in chunks]
    following = [chunk[0].encoded.n_tokens for chunk in chunks[1:]]
    assert all(size + n > tokens for size, n in zip(sizes, following, strict=False))
