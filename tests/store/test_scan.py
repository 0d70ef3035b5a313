"""Trouble with a file is told by its name, and nobody waits for long for it."""

from pathlib import Path

import pyarrow as pa
import pytest

from store import scan
from store.errors import AtlasFormatError
from store.scan import read_files
from store.snapshot import Snapshot
from tests.store.small_shards import make_lake


@pytest.fixture
def files(tmp_path: Path) -> pa.Table:
    lake = make_lake(tmp_path, 4)
    found = Snapshot.load(lake.uri).files("tokens")
    last = Path(found["path"].to_pylist()[-1])
    last.write_bytes(last.read_bytes()[:-20])
    return found


def test_the_damaged_one_of_several_is_named(files: pa.Table) -> None:
    name = Path(files["path"].to_pylist()[-1]).name
    with pytest.raises(AtlasFormatError, match=name):
        read_files("tokens", files)


@pytest.mark.parametrize(("limit", "most"), [("SEARCHED_FILES", 3), ("SEARCHED_BYTES", 1)])
def test_the_search_for_it_ends(
    files: pa.Table, monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    """Whoever asks gets an answer soon; who wants the name asks `check`."""
    monkeypatch.setattr(scan, limit, most)
    with (
        pytest.raises(AtlasFormatError, match="`qkatlas maintain check` names it"),
        scan.readable("tokens", files["path"].to_pylist()),
    ):
        raise pa.ArrowInvalid("Corrupt snappy compressed data.")
