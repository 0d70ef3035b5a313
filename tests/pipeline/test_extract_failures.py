"""A shard that fails leaves nothing behind, and one short of memory goes on in smaller batches."""

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import extract
from pipeline.settings import CaptureSpec
from pipeline.shards import ShardReport
from store.errors import RejectedRowError
from tests.pipeline.captured_lake import (
    CAPTURE,
    Capture,
    all_files,
    assert_equal_rows,
    prepare,
    read_rows,
    with_capture,
    write_lines,
)
from tests.pipeline.tiny_models import tiny_model


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "lines.txt", 3, 17, 1, 60, 9, 2, 19, 5, 5, 12)


def capture(
    uri: Path, source: Path, spec: CaptureSpec = CAPTURE, strict: bool = False
) -> ShardReport:
    ready = prepare(uri, tiny_model("llama"), "llama", source, spec, strict)
    return ready.extractor.extract_shard(ready.work())


def test_strict_run_stops_at_the_first_reject_and_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"text": "the cat sat"}\n' * 300 + '{"text": \n')
    with pytest.raises(RejectedRowError, match=r"rows.jsonl, row 300: .* without --strict"):
        capture(tmp_path / "atlas", source, strict=True)
    assert all_files(tmp_path / "atlas") == []


@pytest.mark.parametrize("where", ["_write_heads", "write_rows", "close"])
def test_shard_that_fails_leaves_nothing(
    where: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline import shard_writer

    monkeypatch.setattr(extract, "rows_per_group", lambda d_head: 30)
    owner = shard_writer._OpenFile if where == "close" else shard_writer.ShardWriter
    work, calls = getattr(owner, where), 0

    def fail_later(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 4:
            raise OSError(28, "No space left on device")
        return work(*arguments)

    monkeypatch.setattr(owner, where, fail_later)
    with pytest.raises(OSError, match="No space left"):
        capture(tmp_path / "atlas", corpus)
    assert calls > 4
    assert all_files(tmp_path / "atlas") == []


class _Limited:
    """Makes a model run out of memory in batches of more sequences than `n`."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.sizes: list[int] = []
        self.alive: weakref.ref[torch.Tensor] | None = None

    def __call__(self, module: Any, arguments: Any, options: Any) -> None:
        if self.alive is not None:
            gc.collect(0)
            assert self.alive() is None, "the failed pass still holds its memory"
        size = len(options["input_ids"])
        self.sizes.append(size)
        if size > self.n:
            activations = torch.zeros(10)
            self.alive = weakref.ref(activations)
            raise torch.OutOfMemoryError("out of memory")


@pytest.mark.parametrize("n", [1, 3])
def test_batch_out_of_memory_is_halved(n: int, corpus: Path, tmp_path: Path) -> None:
    exact = with_capture(precision="float32", batch_tokens=10_000)
    expected = read_rows(tmp_path / "one", capture(tmp_path / "one", corpus, exact))
    loaded = tiny_model("llama")
    limit = _Limited(n)
    hook = loaded.model.register_forward_pre_hook(limit, with_kwargs=True)
    try:
        ready = prepare_untraced(tmp_path / "two", corpus, exact, hook_off=limit)
        found = read_rows(tmp_path / "two", ready.extractor.extract_shard(ready.work()))
    finally:
        hook.remove()
    assert limit.sizes[0] == 10
    assert max(size for size in limit.sizes if size <= n) == (n if n == 1 else 3)
    assert_equal_rows(found, expected, off=2e-5)


def prepare_untraced(uri: Path, source: Path, spec: CaptureSpec, hook_off: _Limited) -> Capture:
    """Trace while memory is enough, then go back to its limit."""
    n, hook_off.n = hook_off.n, 1_000
    ready = prepare(uri, tiny_model("llama"), "llama", source, spec)
    hook_off.n = n
    hook_off.sizes.clear()
    return ready


def test_single_sequence_out_of_memory_is_an_error(corpus: Path, tmp_path: Path) -> None:
    loaded = tiny_model("llama")
    limit = _Limited(0)
    hook = loaded.model.register_forward_pre_hook(limit, with_kwargs=True)
    try:
        ready = prepare_untraced(tmp_path / "atlas", corpus, CAPTURE, limit)
        with pytest.raises(torch.OutOfMemoryError):
            ready.extractor.extract_shard(ready.work())
    finally:
        hook.remove()
    assert all_files(tmp_path / "atlas") == []
