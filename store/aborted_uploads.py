"""Uploads in parts that nobody finished: found and ended, as a store keeps and bills their parts.

A worker that was killed while it sent a large file leaves one, and no listing of files shows it.
pyarrow cannot list them, so this goes through s3fs, which corpora on S3 need too.
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from store.errors import ConfigError
from store.s3_place import s3fs_options


@dataclass(frozen=True)
class AbortedUpload:
    """An upload in parts that was begun and not ended."""

    key: str
    """Bucket and key, as `bucket/atlas/queries/….parquet`."""
    upload_id: str
    begun: datetime
    """With its time zone."""


def list_aborted_uploads(uri: str, older_than: datetime) -> list[AbortedUpload]:
    """Uploads of an atlas that were begun before a moment and not ended, the oldest first.

    Only below its tables and states: an atlas may lie at the root of a bucket that others use.

    Args:
        uri: of the atlas; on a local disk there are none.
        older_than: with its time zone; a running worker's uploads are younger than its shard.

    Raises:
        ConfigError: s3fs is not installed.
        StoreAccessError, ObjectStoreError: the store refuses or does not answer.
    """
    from store.files import join
    from store.object_store import explained, filesystem, is_s3
    from store.schema import TABLES
    from store.state import FOLDER

    if not is_s3(uri):
        return []
    with explained(uri):
        _, path = filesystem(uri)
        bucket, _, prefix = path.partition("/")
        found = _list_uploads(_open(), bucket, f"{prefix}/" if prefix else "")
    own = tuple(join(prefix, name, "").lstrip("/") for name in (*TABLES, FOLDER))
    chosen = [
        AbortedUpload(f"{bucket}/{each['Key']}", each["UploadId"], each["Initiated"])
        for each in found
        if each["Initiated"] < older_than and each["Key"].startswith(own)
    ]
    return sorted(chosen, key=lambda upload: upload.begun)


def abort_uploads(uri: str, uploads: list[AbortedUpload]) -> None:
    """End uploads, so that the store forgets their parts; one that is gone is no error.

    Args:
        uri: of the atlas.
        uploads: from `list_aborted_uploads`.

    Raises:
        ConfigError: s3fs is not installed.
        StoreAccessError, ObjectStoreError: the store refuses or does not answer.
    """
    from store.object_store import explained

    system = _open() if uploads else None
    with explained(uri):
        for upload in uploads:
            bucket, _, key = upload.key.partition("/")
            _abort(system, bucket, key, upload.upload_id)


def _list_uploads(system: Any, bucket: str, prefix: str) -> list[dict[str, Any]]:
    """Every page of the store's answer."""
    found: list[dict[str, Any]] = []
    at: dict[str, str] = {}
    while True:
        page = system.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix, **at)
        found += page.get("Uploads", [])
        if not page.get("IsTruncated"):
            return found
        at = {"KeyMarker": page["NextKeyMarker"]}
        if marker := page.get("NextUploadIdMarker"):  # some stores leave it out
            at["UploadIdMarker"] = marker


def _abort(system: Any, bucket: str, key: str, upload_id: str) -> None:
    with suppress(FileNotFoundError):  # it was finished or ended meanwhile
        system.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload_id)


def _open() -> Any:
    """A connection of s3fs.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        from s3fs import S3FileSystem  # type: ignore[import-untyped]
    except ImportError:
        raise ConfigError(
            "to list uploads that were not finished needs s3fs: pip install 'qkatlas[s3]', or set "
            "a rule in the bucket that ends them after a week"
        ) from None
    return S3FileSystem(**s3fs_options())
