"""A process that commits its shards to an atlas many others commit to, for `test_many_writers`."""

from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from multiprocessing.queues import Queue

from store.errors import AtlasError
from store.lake import SHARDS, Lake
from tests.faults.small_shards import make_unit

Written = tuple[int, list[str], str]
"""Number of the process, shards whose ledger row it wrote, and the error that stopped it."""


def warm_processes() -> ForkServerContext:
    """Processes that start in milliseconds: they are forked from one that has imported this."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def commit_shards(
    uri: str, number: int, ordinals: Sequence[int], per_commit: int, written: "Queue[Written]"
) -> None:
    """Capture and commit shards, several at once, and tell which ones became ours."""
    lake, own, error = Lake(uri), [], ""
    try:
        for start in range(0, len(ordinals), per_commit):
            group = ordinals[start : start + per_commit]
            units = [make_unit(uri, ordinal, number, rejects=False) for ordinal in group]
            own += [str(unit.row["shard_id"]) for unit in lake.commit(SHARDS, units)]
    except AtlasError as failure:
        error = str(failure)
    written.put((number, own, error))
