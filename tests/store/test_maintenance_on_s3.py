"""Maintenance of an atlas on an object store: the same rows, through pyarrow and delta-rs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.object_store import run_object_store
from store.check import check
from store.checkpoint import checkpoint
from store.compaction import compact
from store.snapshot import Snapshot
from store.vacuum import vacuum
from tests.store.small_shards import contents, make_lake


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Any]]:
    """A bucket with a local atlas copied into it."""
    local = tmp_path / "atlas"
    make_lake(local, 3)
    with run_object_store(tmp_path) as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        store.make_bucket("lake")
        client = store.client()
        for path in sorted(local.rglob("*")):
            if path.is_file():
                key = f"atlas/{path.relative_to(local)}"
                client.put_object(Bucket="lake", Key=key, Body=path.read_bytes())
        yield "s3://lake/atlas", client


def test_atlas_in_a_bucket_is_merged_checked_and_vacuumed(bucket: tuple[str, Any]) -> None:
    uri, client = bucket
    tables = ("queries", "keys", "tokens", "sequences", "rejects")
    before = contents(uri, tables)
    assert {row.table for row in compact(uri)} >= {"queries", "keys", "tokens", "sequences"}
    assert contents(uri, tables) == before
    assert len(Snapshot.load(uri).files("queries")) == 2
    assert len(checkpoint(uri)) == 12
    report = check(uri)
    assert (report.problems, report.orphans) == ([], [])
    upload = client.create_multipart_upload(Bucket="lake", Key="atlas/queries/half.parquet")
    assert upload["UploadId"]  # begun in 2010, as this store says of every upload
    assert vacuum(uri, dry_run=True).uploads == ["lake/atlas/queries/half.parquet"]
    assert vacuum(uri).uploads == ["lake/atlas/queries/half.parquet"]
    assert vacuum(uri).uploads == []
    assert contents(uri, tables) == before
