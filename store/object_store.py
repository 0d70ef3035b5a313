"""Where a URI lies: the pyarrow file system of its files and delta-rs's options for its log.

The only doors to an object store, so that retries, timeouts, wording of trouble and the care for
credentials are in one place. Data files go through pyarrow, Delta logs through delta-rs, corpora
through s3fs; each finds its credentials in the environment, a profile or the machine's role.
"""

import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs
from deltalake.fs import DeltaStorageHandler

from store.aborted_uploads import AbortedUpload as AbortedUpload
from store.aborted_uploads import abort_uploads as abort_uploads
from store.aborted_uploads import list_aborted_uploads as list_aborted_uploads
from store.errors import AccessDeniedError, AtlasError, ConfigError, ObjectStoreError
from store.object_errors import CREDENTIALS, explain, redact, trouble_of
from store.s3_place import ATTEMPTS, CONNECT_S, REQUEST_S, Place, find_place, has_keys
from store.s3_place import public_environment as public_environment

S3 = ("s3", "s3a")

CLOUDS = (*S3, "gs", "gcs", "az", "abfs", "abfss", "adl", "wasb", "wasbs")
"""Schemes of object stores; only `s3` is tested."""

_DELTA = {
    "connect_timeout": f"{CONNECT_S}s",
    "timeout": f"{REQUEST_S}s",
    "max_retries": str(ATTEMPTS),
    "retry_timeout": "180s",
    "backoff_config.init_backoff": "100ms",
    "backoff_config.max_backoff": "5s",
    "backoff_config.base": "2",
}

_AGAIN_PAUSES_S = (0.1, 0.2, 0.5, 1.0, 2.0, 4.0)

_AGAIN_S = 20.0
"""After so long a read is not begun again."""

_FIRST_PAUSES_S = (0.1, 0.3, 0.6, 1.0, 2.0)
"""Between the attempts to reach a bucket for the first time: who mistypes an endpoint waits 4 s."""

_FIRST_CONNECT_S, _FIRST_REQUEST_S, _FIRST_S = 3, 5, 10

_REFUSED_IN_KEYS = re.compile(r"[^\w!.*'()@=+,:~ /-]|//|(?:^|/)\.\.?(?:/|$)|^/")
"""delta-rs, pyarrow and s3fs do not all find what has these in its key."""

_PATTERN = re.compile(r"[*?\[]")


Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")


class Bucket(pafs.S3FileSystem):  # type: ignore[misc]
    """S3 as it is: without folders, which pyarrow would imitate by an empty object each."""

    def create_dir(self, path: str, *, recursive: bool = True) -> None:
        """Nothing: a key's folders are part of its name."""

    def delete_file(self, path: str) -> None:
        """Delete an object through delta-rs; pyarrow would put an empty one for its folder."""
        bucket, _, key = path.partition("/")
        if bucket not in self._deleters:  # each has connections and credentials of its own
            root = f"s3://{bucket}"
            self._deleters[bucket] = DeltaStorageHandler(root, storage_options(root))
        self._deleters[bucket].delete_file(key)

    @cached_property
    def _deleters(self) -> dict[str, DeltaStorageHandler]:
        """By bucket; as old as this file system, of which there is one a place."""
        return {}


def is_remote(uri: str) -> bool:
    """Whether a URI or path is on no local disk."""
    return "://" in uri and not uri.startswith("file://")


def is_s3(uri: str) -> bool:
    """Whether a URI names an S3 store, Amazon's or another."""
    scheme, found, _ = uri.partition("://")
    return bool(found) and scheme.lower() in S3


def filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The pyarrow filesystem of a URI or local path, and the path on it.

    Raises:
        ConfigError: the URI or the endpoint is malformed, or holds credentials.
        StoreAccessError: the store refuses: credentials, region or bucket are wrong.
        ObjectStoreError: it does not answer.
    """
    if "://" not in uri:
        return pafs.LocalFileSystem(), os.path.abspath(uri)
    if not is_remote(uri):
        return _from_uri(uri)
    check_uri(uri)
    if not is_s3(uri):
        return _from_uri(uri)
    reach(uri)
    return _bucket(find_place()), _split(uri)


def storage_options(uri: str) -> dict[str, str] | None:
    """Options for delta-rs; None for a local path. They hold no credential.

    Raises:
        ConfigError, StoreAccessError, ObjectStoreError: as `filesystem`.
    """
    if not is_remote(uri):
        return None
    check_uri(uri)
    if not is_s3(uri):
        return dict(_DELTA)
    reach(uri)
    where = find_place()
    options = _DELTA | {"aws_region": where.region, "aws_conditional_put": "etag"}
    if where.endpoint:
        options |= {"aws_endpoint": where.endpoint}
        options |= {"allow_http": str(where.endpoint.startswith("http://")).lower()}
    if not has_keys():
        options["aws_force_credential_load"] = "true"  # else no profile is read beside an endpoint
    return options


def check_uri(uri: str) -> None:
    """Refuse a URI that no atlas can lie at.

    Raises:
        ConfigError: its scheme is unknown, it holds credentials or names no bucket, or its key
            has a character that not all readers find.
    """
    check_no_credentials(uri)
    if uri.partition("://")[0].lower() not in CLOUDS:
        raise ConfigError(
            f"{redact(uri)}: expected a folder or s3://bucket/prefix; known are {', '.join(CLOUDS)}"
        )
    if is_s3(uri):
        _split(uri)


def check_no_credentials(uri: str) -> None:
    """Refuse a URI that holds credentials: it would be written into the atlas.

    Raises:
        ConfigError: it has a user, a password or a signature.
    """
    if found := CREDENTIALS.search(uri):
        scheme, _, rest = uri.partition("://")
        rest = uri[found.end() :] if found[0].endswith("@") else rest
        place = f"{scheme}://{re.split('[/?]', rest)[0]}"
        advice = "download the file first, or name one that needs none"
        if is_s3(uri):
            advice = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        raise ConfigError(
            f"the URI of {place} holds credentials, which would be written into the atlas: take "
            f"them out and {advice}"
        )


def _split(uri: str) -> str:
    """The bucket and key of an S3 URI as pyarrow names them: `bucket/key`."""
    bucket, _, key = uri.partition("://")[2].partition("/")
    key = key.rstrip("/")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}", bucket):
        said = redact(uri.partition(":")[0] + "://…" if ":" in bucket else uri)
        raise ConfigError(f"{said!r} names no bucket: expected such as s3://bucket/atlas")
    if found := _REFUSED_IN_KEYS.search(key):
        raise ConfigError(f"an atlas cannot lie in {uri}: choose a key without {found[0]!r}")
    return f"{bucket}/{key}" if key else bucket


@lru_cache(maxsize=8)
def _bucket(where: Place) -> Bucket:
    """The file system of S3; requests are tried again."""
    return Bucket(
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        connect_timeout=CONNECT_S,
        request_timeout=REQUEST_S,
        allow_delayed_open=True,  # a file below one part is one request, and never half there
        background_writes=False,  # which would take parts faster than they leave
        **_arguments(where),
    )


def _arguments(where: Place) -> dict[str, Any]:
    endpoint = {"endpoint_override": where.endpoint} if where.endpoint else {}
    return {"region": where.region, **endpoint}


def _from_uri(uri: str) -> tuple[pafs.FileSystem, str]:
    """What pyarrow itself makes of a URI.

    Raises:
        ConfigError: this pyarrow has nothing for the scheme.
    """
    try:
        found, path = pafs.FileSystem.from_uri(uri)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ConfigError(
            f"{redact(uri)} cannot be opened ({redact(str(error))}): "
            "name a folder, or s3://bucket/prefix"
        ) from None
    return found, path


def reach(uri: str, *, may_list: bool = True) -> None:
    """Make sure, once a process and bucket, that the store answers and lets us in.

    Without this, each library would find out by itself, after minutes and in its own words.

    Args:
        uri: of an S3 store; any other passes.
        may_list: an atlas cannot be without the right to list; files of a corpus that are
            named one by one can.

    Raises:
        StoreAccessError: credentials, region or bucket are wrong.
        ObjectStoreError: it does not answer.
    """
    if is_s3(uri):
        bucket, _, key = uri.partition("://")[2].partition("/")
        before = _PATTERN.split(key, maxsplit=1)[0]
        _reach(find_place(), bucket, before.rpartition("/")[0], may_list)


_reached: set[tuple[Place, str]] = set()


def _reach(where: Place, bucket: str, folder: str, may_list: bool) -> None:
    if (where, bucket) in _reached:
        return
    system = pafs.S3FileSystem(
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=1),
        connect_timeout=_FIRST_CONNECT_S,
        request_timeout=_FIRST_REQUEST_S,
        **_arguments(where),
    )
    looked = pafs.FileSelector("/".join(part for part in (bucket, folder, "_reach") if part))
    try:
        with explained(f"s3://{bucket}"):
            _persist(lambda: system.get_file_info(looked))
    except AccessDeniedError:
        if may_list:
            raise
    _reached.add((where, bucket))


def _persist(ask: Callable[[], object]) -> None:
    """Ask again where it was the network's fault."""
    end = time.monotonic() + _FIRST_S
    for pause in (*_FIRST_PAUSES_S, None):
        try:
            ask()
        except FileNotFoundError:
            return  # there is such a bucket, and nothing of that name in it
        except OSError as error:
            is_last = pause is None or time.monotonic() > end
            if is_last or trouble_of(error) not in ("network", None):
                raise
            time.sleep(pause or 0)
        else:
            return


def ask_again(read: Callable[[], Result]) -> Result:
    """What a read gives; it is done again where the store broke off in a way no library retries.

    Such are a reply that is cut in its middle and an error code that pyarrow does not know. A read
    that took long was repeated inside, request by request, so it has asked often enough.

    Raises:
        ObjectStoreError: the store does not answer.
    """
    end = time.monotonic() + _AGAIN_S
    for pause in _AGAIN_PAUSES_S:
        try:
            return read()
        except ObjectStoreError:
            if time.monotonic() > end:
                raise
            time.sleep(random.uniform(0.5, 1) * pause)
    return read()


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Say trouble with an object store in our words; anything else goes through.

    Raises:
        StoreAccessError: credentials, region or bucket are wrong.
        ObjectStoreError: the store does not answer.
    """
    try:
        yield
    except Exception as error:
        if better := explain_for(error, uri):
            raise better from None
        raise


def explains(
    work: Callable[Concatenate[str, Arguments], Result],
) -> Callable[Concatenate[str, Arguments], Result]:
    """Give a function whose first argument is an atlas's URI the words of `explained`."""

    @wraps(work)
    def told(uri: str, /, *args: Arguments.args, **options: Arguments.kwargs) -> Result:
        with explained(uri):
            return work(uri, *args, **options)

    return told


def asked_again(uri: str, read: Callable[[], Result]) -> Result:
    """What a read of an atlas gives, asked again and explained.

    Raises:
        StoreAccessError: credentials, region or bucket are wrong.
        ObjectStoreError: the store does not answer.
    """

    def once() -> Result:
        with explained(uri):
            return read()

    return ask_again(once)


def explain_for(error: BaseException, uri: str) -> AtlasError | None:
    """The error to raise in place of a library's; None where it is of another kind."""
    if isinstance(error, AtlasError) or uri.partition("://")[0].lower() not in CLOUDS:
        return None
    return explain(error, uri, find_place().shown if is_s3(uri) else "")
