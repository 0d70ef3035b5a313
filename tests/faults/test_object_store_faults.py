"""Commits to an atlas on an object store that fails, cuts off and dawdles: each shard once."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from infra.fault_proxy import Fault, spread_errors
from store.lake import Lake
from tests.faults.broken_store import (
    BUCKET,
    Site,
    check_each_once,
    commit_shard,
    reading,
    run_site,
)

pytestmark = pytest.mark.timeout(900)

LOG = r"/_delta_log/\d+\.json"
FILES = r"\.parquet"
CUTS = 10


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with run_site(tmp_path_factory.mktemp("site")) as site:
        yield site


def commit_until(site: Site, lake: Lake, faults: list[Fault]) -> int:
    """Commit shards until each fault has happened as often as it may; returns their number."""
    for ordinal in count():
        counts = site.proxy.counts()
        if all(counts.get(fault.name, 0) == fault.times for fault in faults):
            return ordinal
        commit_shard(lake, ordinal)
    raise AssertionError


def commit_under(
    site: Site, name: str, folder: Path, faults: list[Fault], n_shards: int = 0
) -> dict[str, int]:
    """Make an atlas while faults happen and somebody reads, then compare; returns the counts.

    Args:
        site: where.
        name: of the atlas.
        folder: for the undisturbed atlas.
        faults: what happens.
        n_shards: to be committed; 0 means until each fault has happened as often as it may.
    """
    lake = Lake(f"s3://{BUCKET}/{name}/atlas")
    site.proxy.set(*faults)
    lake.create()
    with reading(lake.uri) as looks:
        for ordinal in range(n_shards):
            commit_shard(lake, ordinal)
        n_shards = n_shards or commit_until(site, lake, faults)
        counts = site.proxy.counts()
    site.proxy.set()
    check_each_once(lake.uri, n_shards, folder)
    assert looks.bad == ""
    assert looks.whole > 0
    return counts


def cut_puts(site: Site, name: str, folder: Path, path: str) -> None:
    """Cut ten puts before the store acts and ten after, every second one."""
    site.proxy.set()
    faults = [
        Fault("cut_before", turn=(1, 4), times=CUTS, methods=("PUT",), path=path),
        Fault("cut_after", turn=(3, 4), times=CUTS, methods=("PUT",), path=path),
    ]
    Lake(f"s3://{BUCKET}/{name}/atlas").create()  # or most cuts would meet empty tables
    commit_under(site, name, folder, faults)


@pytest.mark.parametrize("path", [LOG, FILES], ids=["log", "files"])
def test_puts_cut_before_and_after_lose_and_double_nothing(
    site: Site, tmp_path: Path, path: str
) -> None:
    cut_puts(site, f"cut-{len(path)}", tmp_path, path)


@pytest.mark.chaos
@pytest.mark.parametrize("path", [LOG, FILES], ids=["log", "files"])
def test_two_hundred_puts_cut_each_way_lose_and_double_nothing(
    site: Site, tmp_path: Path, path: str
) -> None:
    for number in range(200 // CUTS):  # short logs: a commit reads its table's whole log
        cut_puts(site, f"cuts-{len(path)}-{number}", tmp_path / str(number), path)


def check_errors_happened(counts: dict[str, int]) -> None:
    broken = {name: n for name, n in counts.items() if name != "passed"}
    assert {"error 500", "error 503", "error 429", "silence"} == set(broken)
    assert sum(broken.values()) > 0.15 * counts["passed"]


def test_a_fifth_of_all_requests_may_fail(site: Site, tmp_path: Path) -> None:
    silence = Fault("silence", 0.02, times=4)
    faults = [*spread_errors(0.2, 0), silence]
    check_errors_happened(commit_under(site, "errors", tmp_path, faults, 2))


@pytest.mark.chaos
def test_a_fifth_of_all_requests_may_fail_for_long(site: Site, tmp_path: Path) -> None:
    check_errors_happened(commit_under(site, "long-errors", tmp_path, spread_errors(0.2), 30))


def test_replies_may_be_slow_or_end_in_their_middle(site: Site, tmp_path: Path) -> None:
    faults = [
        Fault("delay", 0.04, seconds=0.2),
        Fault("trickle", 0.04, seconds=0.2),
        Fault("cut_reply", 0.04, methods=("GET",)),
    ]
    counts = commit_under(site, "slow", tmp_path, faults, 2)
    assert all(counts[fault.name] > 5 for fault in faults)
