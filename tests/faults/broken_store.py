"""An object store behind a proxy that breaks requests, an atlas on it, and a reader who looks on.

Store, proxy, writer and reader are a process each.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen
from threading import Event, Thread

import pytest

import store.object_store
from infra.fault_proxy import FaultProxy, run_fault_proxy
from infra.object_store import run_object_store
from store.errors import ObjectStoreError
from store.lake import SHARDS, Lake, Unit
from store.snapshot import Snapshot, open_table
from tests.faults.small_shards import content, make_unit, torn

ROOT = Path(__file__).parents[2]
BUCKET = "lake"
REQUEST_S = 1
"""What a request may take in these tests, in place of a minute."""
ATTEMPTS = 3
"""Of writing a shard's files, as a run has them."""


_PAUSE_S = 0.3


@dataclass(frozen=True)
class Site:
    """A bucket that is reached through the proxy alone."""

    proxy: FaultProxy
    environment: dict[str, str]


@contextmanager
def run_site(folder: Path, seed: int = 0) -> Iterator[Site]:
    """A store, a proxy before it and a bucket, which this process's environment names."""
    with (
        run_object_store(folder) as held,
        run_fault_proxy(held.endpoint, folder, seed) as proxy,
        pytest.MonkeyPatch.context() as patch,
    ):
        held.make_bucket(BUCKET)
        environment = held.environment | {"AWS_ENDPOINT_URL": proxy.endpoint}
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(store.object_store, "REQUEST_S", REQUEST_S)
        patch.setitem(store.object_store._DELTA, "timeout", f"{REQUEST_S}s")
        yield Site(proxy, environment)


def write_unit(uri: str, ordinal: int) -> Unit:
    """A shard's files on the store; where it does not take them, all are written anew."""
    for attempt in range(1, ATTEMPTS):
        try:
            return make_unit(uri, ordinal, attempt)
        except OSError as error:
            print(f"shard {ordinal}, attempt {attempt}: {error}")
    return make_unit(uri, ordinal, ATTEMPTS)


def commit_shard(lake: Lake, ordinal: int) -> None:
    """Write a shard and commit it."""
    lake.commit(SHARDS, [write_unit(lake.uri, ordinal)])


def check_each_once(uri: str, n_shards: int, folder: Path) -> None:
    """Compare an atlas with one of the same shards that nobody disturbed."""
    plain = Lake(str(folder / "undisturbed"))
    plain.create()
    plain.commit(SHARDS, [make_unit(plain.uri, ordinal) for ordinal in range(n_shards)])
    found = Snapshot.load(uri)
    assert content(found) == content(Snapshot.load(plain.uri))
    rows = found.rows("shards")
    assert len(set(rows["shard_id"].to_pylist())) == len(rows) == n_shards
    for table in SHARDS.data_tables:
        assert len(open_table(uri, table).file_uris()) == n_shards


@dataclass
class Looks:
    """What a reader saw."""

    whole: int = 0
    unanswered: int = 0
    bad: str = ""


@contextmanager
def reading(uri: str) -> Iterator[Looks]:
    """Another process that loads and reads the whole atlas over and over while the block runs."""
    command = [sys.executable, "-m", "tests.faults.broken_store", uri]
    found = Looks()
    with Popen(command, cwd=ROOT, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield found
            said, trouble = process.communicate("", timeout=120)
        finally:
            process.kill()
    lines = said.split()
    found.whole, found.unanswered = lines.count("whole"), lines.count("unanswered")
    found.bad = trouble if process.returncode else ""


def _read_on(uri: str) -> None:
    """Look until standard input ends; anything but a whole atlas or a silent store is an error."""
    vars(store.object_store)["REQUEST_S"] = REQUEST_S
    store.object_store._DELTA["timeout"] = f"{REQUEST_S}s"
    ends = Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        ends.set()

    Thread(target=wait_for_the_end, daemon=True).start()
    print("ready", flush=True)
    while not ends.is_set():
        try:
            found = torn(uri)
        except ObjectStoreError as error:
            print("unanswered", flush=True)
            print(error, file=sys.stderr)
            continue
        if found:
            sys.exit(f"torn: {found}")
        print("whole", flush=True)
        ends.wait(_PAUSE_S)


if __name__ == "__main__":
    _read_on(sys.argv[1])
