"""Which file of a Delta log is to blame, where delta-rs does not say, or does not even notice.

Apart from `check_logs`, which names every damaged file: here one is enough, and it must be cheap.
"""

import os
from pathlib import Path

from store.errors import AtlasFormatError


def name_damage(uri: str, table: str) -> str:
    """The first damaged file of a table's log and what is wrong with it; empty if none is found."""
    from store.check_logs import check_log  # late: it loads tables itself

    for path, what in check_log(uri, table):
        return f"{path}: {what}; "
    return ""


def refuse_empty_entry(folder: Path, version: int) -> None:
    """Refuse a table on a local disk whose newest entry has no content.

    A disk that lost power leaves such files. delta-rs reads them as a commit of nothing, so that
    what it added would be gone without a word and the next commit would seal that.

    Raises:
        AtlasFormatError: the entry is empty.
    """
    entry = folder / "_delta_log" / f"{version:020}.json"
    if entry.exists() and os.path.getsize(entry) == 0:
        raise AtlasFormatError(
            f"the Delta log of {folder} is damaged ({entry} is empty, expected the commit of "
            f"version {version}): restore it from a copy, or build the atlas anew in an empty "
            "folder"
        )
