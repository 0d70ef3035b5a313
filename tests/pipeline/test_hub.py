"""Data sets of the hub are streamed like files; without the library the message says what to do."""

import json
import sys
from pathlib import Path

import pytest

from pipeline.corpus import SourceFile, fingerprint, list_sources
from pipeline.readers import Reject, Unit, read_units
from pipeline.settings import CorpusSpec, SplitSpec
from store.errors import ConfigError, CorpusFormatError, SourceNotFoundError

datasets = pytest.importorskip("datasets")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [{"text": f"Row {n}. End {n}." if n != 2 else None, "id": n} for n in range(6)]
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return data


def open_hub(source: str, **options: object) -> tuple[SourceFile, CorpusSpec]:
    spec = CorpusSpec("c", (source,), **options)  # type: ignore[arg-type]
    return list_sources(spec)[0], spec


def test_rows_of_a_data_set_are_numbered_from_any_start(folder: Path) -> None:
    file, spec = open_hub(f"hub://{folder}?split=train", split=SplitSpec("sentence"))
    assert file == SourceFile(f"hub://{folder}?split=train", "hub", 0)
    everything = list(read_units(file, spec))
    assert [row.text for row in everything[:2] if isinstance(row, Unit)] == ["Row 0.", "End 0."]
    assert everything[4] == Reject(4, "column 'text' is null, expected a string", 4, None)
    for start in range(len(everything)):
        assert list(read_units(file, spec, start_row=start)) == everything[start:]
    file, spec = open_hub(f"hub://{folder}")
    assert [row.row for row in read_units(file, spec, start_row=4)] == [4, 5]


def test_unknown_column_split_config_and_data_set_are_refused(folder: Path) -> None:
    file, spec = open_hub(f"hub://{folder}", text_column="txt")
    with pytest.raises(CorpusFormatError, match="no column 'txt'; it has 'text', 'id'; did you"):
        next(read_units(file, spec))
    file, spec = open_hub(f"hub://{folder}?split=val")
    with pytest.raises(ConfigError, match="Bad split: val"):
        next(read_units(file, spec))
    file, spec = open_hub(f"hub://{folder}?config=big")
    with pytest.raises(ConfigError, match="'big' not found"):
        next(read_units(file, spec))
    file, spec = open_hub(f"hub://{folder}/none")
    with pytest.raises(SourceNotFoundError, match="check its name, your connection"):
        next(read_units(file, spec))


def test_fingerprint_changes_with_the_files(folder: Path) -> None:
    file, _ = open_hub(f"hub://{folder}")
    stored = fingerprint(file)
    assert fingerprint(file) == fingerprint(file, "0:ab") == stored
    (folder / "train.jsonl").rename(folder / "train-1.jsonl")
    assert fingerprint(file) != stored


def test_missing_library_is_named_with_the_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    file, spec = open_hub(f"hub://{folder}")
    with pytest.raises(ConfigError, match=r"pip install 'qkatlas\[hub\]'"):
        next(read_units(file, spec))
    with pytest.raises(ConfigError, match=r"pip install 'qkatlas\[hub\]'"):
        fingerprint(file)
