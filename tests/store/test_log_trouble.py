"""Looking for empty entries of a log costs no more for a long log than for a short one."""

from pathlib import Path

import pytest

from store import log_trouble
from store.snapshot import open_table
from tests.store.small_shards import describe, make_lake


def test_only_entries_above_the_last_checkpoint_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = make_lake(tmp_path, 0)
    for number in range(12):
        describe(tmp_path, f"m{number}")
    open_table(lake.uri, "heads").create_checkpoint()
    describe(tmp_path, "last")
    looked = list[str]()
    real = log_trouble._size_on_disk

    def look(path: str) -> int:
        looked.append(Path(path).name)
        return real(path)

    monkeypatch.setattr(log_trouble, "_size_on_disk", look)
    version = open_table(lake.uri, "heads").version()
    assert version >= 13
    assert looked == [f"{version:020}.json"]
