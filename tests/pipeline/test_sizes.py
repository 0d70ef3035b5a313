"""The bytes that a plan expects are those that capture writes."""

from pathlib import Path

import pytest

from pipeline.sizes import Sizes, measure_sizes
from tests.pipeline.captured_lake import prepare, with_capture
from tests.pipeline.tiny_models import make_text, tiny_model


def test_estimate_is_a_line_in_the_tokens() -> None:
    sizes = Sizes(per_token=2.5, per_file=100, n_files=4)
    assert [sizes.estimate(n) for n in (0, 10, 20)] == [400, 425, 450]


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_estimate_is_within_a_tenth_of_what_is_written(name: str, tmp_path: Path) -> None:
    lines = [make_text((7 * n) % 20 + 1, n) for n in range(600)]
    (tmp_path / "lines.txt").write_text("\n".join(lines) + "\n")
    spec = with_capture(layers=(1,), batch_tokens=1024)
    ready = prepare(tmp_path / "atlas", tiny_model(name), name, tmp_path / "lines.txt", spec)
    found = measure_sizes(ready.extractor, list(ready.units().values())[:256])
    report = ready.extractor.extract_shard(ready.work())
    assert set(found) == set(report.files)
    for model, files in report.files.items():
        written = sum(file.size for file in files)
        assert found[model].n_files == len(files)
        assert found[model].estimate(report.counts.n_tokens) == pytest.approx(written, rel=0.1)


def test_one_sequence_gives_an_estimate(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("the cat\n")
    ready = prepare(tmp_path / "atlas", tiny_model("llama"), "llama", tmp_path / "one.txt")
    sizes = measure_sizes(ready.extractor, list(ready.units().values()))["llama"]
    report = ready.extractor.extract_shard(ready.work())
    written = sum(file.size for file in report.files["llama"])
    assert sizes.estimate(3) == pytest.approx(written, rel=0.05)


def test_no_unit_gives_no_estimate(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("the cat\n")
    ready = prepare(tmp_path / "atlas", tiny_model("llama"), "llama", tmp_path / "one.txt")
    assert measure_sizes(ready.extractor, []) == {}
    assert not (tmp_path / "atlas").exists()
