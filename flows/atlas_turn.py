"""The queue of one atlas: runs that share a Prefect server work on it one after another.

It saves work, not data: two runs at once are safe (the ledger sees to that) but would capture the
same rows twice. So a laptop without a server needs no queue, and a run whose place is lost, as the
server was away for too long, goes on.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import xxhash
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import get_current_settings

from store.snapshot import local_path

LEASE_S = 60.0
"""After so long without a word from its holder a place is free again; Prefect's least."""


@contextmanager
def atlas_turn(uri: str, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold an atlas's only place for as long as the block runs; wait for it as long as it takes.

    The place is leased and the lease renewed: who dies holding it loses it within a minute.
    Without a Prefect server that others reach too there is nothing to wait for.

    Args:
        uri: of the atlas.
        tell: called with a sentence where another run has the place.
    """
    if not has_queue():
        yield
        return
    name = queue_name(uri)
    if is_taken(name):
        tell(f"another run works on this atlas; waiting for its turn in the queue {name}")
    # Not strict: a limit that its owner has disabled lets everybody through. And whose lease could
    # not be renewed goes on, as two runs at once are safe and an hour's capture is worth more.
    with concurrency(
        name, occupy=1, lease_duration=LEASE_S, strict=False, raise_on_lease_renewal_failure=False
    ):
        yield


def has_queue() -> bool:
    """Whether there is a Prefect server that other runs reach, too."""
    return get_current_settings().api.url is not None


def queue_name(uri: str) -> str:
    """The name of an atlas's global concurrency limit: the same for every spelling of its URI."""
    return f"qkatlas-{xxhash.xxh3_64_hexdigest(os.fsencode(normal_uri(uri)))}"


def normal_uri(uri: str) -> str:
    """One spelling for one place: real paths of this machine, or scheme, bucket and key."""
    path = local_path(uri)
    if path is not None:
        return os.path.realpath(path)
    parts = urlsplit(uri)
    scheme = {"s3a": "s3", "s3n": "s3"}.get(parts.scheme.lower(), parts.scheme.lower())
    keys = [key for key in parts.path.split("/") if key]
    return "/".join([f"{scheme}://{parts.netloc.rpartition('@')[2]}", *keys])


def is_taken(name: str) -> bool:
    """Whether somebody holds the only place; a queue that is not there is made, for one run.

    One that is there stays as its owner has set it.
    """
    with get_client(sync_client=True) as client:
        try:
            limit = client.read_global_concurrency_limit_by_name(name)
            return bool(limit.active and limit.active_slots >= limit.limit)
        except ObjectNotFound:
            wanted = GlobalConcurrencyLimitCreate(name=name, limit=1)
        with suppress(ObjectAlreadyExists):  # another run was faster
            client.create_global_concurrency_limit(wanted)
    return False
