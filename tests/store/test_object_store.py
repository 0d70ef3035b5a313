"""One way to an object store for all readers, which says in one line what is wrong with it."""

import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pytest
import s3fs  # type: ignore[import-untyped]
from botocore.exceptions import ParamValidationError  # type: ignore[import-untyped]
from deltalake import DeltaTable
from deltalake.fs import DeltaStorageHandler

from infra.object_store import KEY, REGION, SECRET, ObjectStore, run_object_store
from store import creation, object_store, s3_place
from store.errors import (
    AccessDeniedError,
    AtlasError,
    AtlasNotFoundError,
    ConfigError,
    ObjectStoreError,
    StoreAccessError,
    UnsafeStoreError,
)
from store.lake import Lake
from store.object_errors import redact
from store.object_store import (
    abort_uploads,
    filesystem,
    list_aborted_uploads,
    public_environment,
    storage_options,
)
from store.outgoing import OutgoingFile
from store.snapshot import Snapshot

ATLAS = "s3://lab/my/atlas"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with run_object_store(tmp_path_factory.mktemp("store")) as running:
        running.make_bucket("lab")
        yield running


@pytest.fixture(autouse=True)
def environment(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's names and keys, nothing of the machine's own, and no bucket reached before."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(object_store, "_reached", set())


def has_leak(text: str) -> bool:
    return SECRET in text or KEY in text


# what the three libraries are told


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: ObjectStore) -> Iterator[Path]:
    """Endpoint, region and keys in a profile's files alone."""
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    config, credentials = tmp_path / "config", tmp_path / "credentials"
    config.write_text(
        f"[profile lab]\nregion = {REGION}\nendpoint_url = {store.endpoint}\n", "utf-8"
    )
    credentials.write_text(
        f"[lab]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n", "utf-8"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    yield config


@pytest.mark.parametrize("source", ["environment", "profile"])
def test_pyarrow_delta_and_s3fs_find_the_same_store(
    source: str, request: pytest.FixtureRequest
) -> None:
    if source == "profile":
        request.getfixturevalue("profile")
    where, root = filesystem(f"s3://lab/{source}")
    with where.open_output_stream(f"{root}/file") as stream:
        stream.write(b"whole")
    options = storage_options(f"s3://lab/{source}")
    assert DeltaTable.is_deltatable(f"s3://lab/{source}", options) is False
    assert s3fs.S3FileSystem(**s3_place.s3fs_options()).cat(f"lab/{source}/file") == b"whole"
    assert options is not None and not has_leak(repr((options, where, s3_place.find_place())))


def test_an_atlas_is_made_and_opened_without_empty_objects(store: ObjectStore) -> None:
    Lake(ATLAS).create()
    assert set(Snapshot.load(ATLAS).versions.values()) == {0}
    OutgoingFile(*filesystem(ATLAS), ATLAS).discard()
    where, root = filesystem(ATLAS)
    where.create_dir(f"{root}/queries/model=m", recursive=True)
    found = store.client().list_objects_v2(Bucket="lab", Prefix="my/")["Contents"]
    assert found and all(one["Key"].endswith(".json") and one["Size"] for one in found)


def test_a_store_without_conditional_puts_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_object_store(tmp_path, has_conditions=False) as careless:
        careless.make_bucket("lab")
        for name, value in careless.environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(UnsafeStoreError, match=r"s3://lab/my/atlas: .*ignores `If-None-Match"):
            Lake(ATLAS).create()
        left = careless.client().list_objects_v2(Bucket="lab").get("Contents", [])
        assert sum(one["Size"] for one in left) == 0


def test_a_deleted_file_leaves_no_empty_object(store: ObjectStore) -> None:
    where, root = filesystem("s3://lab/deleted")
    path = f"{root}/queries/model=m/layer=0/a.parquet"
    with where.open_output_stream(path) as stream:
        stream.write(b"x")
    where.delete_file(path)
    assert "Contents" not in store.client().list_objects_v2(Bucket="lab", Prefix="deleted/")


def test_a_local_atlas_needs_no_options(tmp_path: Path) -> None:
    assert storage_options(str(tmp_path)) is None
    where, root = filesystem(str(tmp_path))
    assert isinstance(where, pafs.LocalFileSystem) and root == str(tmp_path)


def test_what_workers_are_sent_is_no_secret() -> None:
    sent = public_environment()
    assert sent["AWS_REGION"] == REGION and not has_leak(repr(sent))


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_an_endpoint_with_credentials_is_sent_to_nobody(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, f"https://me:{SECRET}@lab:9000")
    sent = public_environment()
    assert name not in sent and not has_leak(repr(sent)) and sent["AWS_REGION"] == REGION


def test_http_is_allowed_where_it_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (storage_options(ATLAS) or {})["allow_http"] == "true"
    monkeypatch.setattr(object_store, "reach", lambda uri: None)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://minio.lab:9000/")
    options = storage_options(ATLAS) or {}
    assert (options["allow_http"], options["aws_endpoint"]) == ("false", "https://minio.lab:9000")


# trouble


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE"}, StoreAccessError, "not know the access"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, AccessDeniedError, "set AWS_ACC"),
        ({"AWS_REGION": "us-west-1"}, StoreAccessError, "region, eu-central-1: set AWS_REGION"),
        ({"AWS_PROFILE": "none"}, StoreAccessError, "AWS_PROFILE is 'none', which is in neither"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, ObjectStoreError, "127.0.0.1:1 does not"),
        ({"AWS_ENDPOINT_URL": "127.0.0.1:9000"}, ConfigError, "expected such as https://"),
        ({"AWS_ENDPOINT_URL": "http://me:hush@lab"}, ConfigError, r"'http://\*\*\*@lab'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], kind: type[AtlasError], said: str
) -> None:
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(kind, match=said) as caught:
        Snapshot.load(ATLAS)
    message = str(caught.value)
    assert "\n" not in message and "AKIA" not in message and "hush" not in message
    assert caught.value.exit_code == (1 if kind is ObjectStoreError else 2)
    assert caught.value.__cause__ is None, "the library's text would show in a traceback"


def test_a_missing_bucket_and_a_missing_atlas_differ() -> None:
    with pytest.raises(StoreAccessError, match="s3://no-lab: there is no such bucket: create it"):
        Snapshot.load("s3://no-lab/atlas")
    with pytest.raises(AtlasNotFoundError, match="no atlas at s3://lab/other"):
        Snapshot.load("s3://lab/other")


def test_a_store_that_is_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "_FIRST_S", 0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(ObjectStoreError, match="does not answer: check AWS_ENDPOINT_URL"):
            filesystem(ATLAS)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("s3://me:hush@lab/a", "s3://lab holds credentials"),
        ("s3://me:9/hush@lab/a", "s3://lab holds credentials|names no bucket"),
        ("s3://me:a/hush@hush@lab/a", "s3://lab holds credentials"),
        ("s3://me:hush/a", "names no bucket"),
        ("https://lab/a.txt?X-Amz-Signature=hush", "https://lab holds .*download the file first"),
        ("s3://lab/a?access_key=hush", "s3://lab holds credentials"),
        ("s3://lab/a%20b", "choose a key without '%'"),
        ("s3://lab/a/../b", "choose a key without"),
        ("s3:///a", "names no bucket"),
        ("ftp://lab/a", "known are s3, s3a, gs"),
    ],
)
def test_uris_that_no_atlas_can_have(uri: str, said: str) -> None:
    for ask in (filesystem, storage_options):
        with pytest.raises(ConfigError, match=said) as caught:
            ask(uri)
        assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        f"<Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>{KEY}</AWSAccessKeyId>"
        f"<CanonicalRequest>x-amz-security-token:{SECRET}</CanonicalRequest></Error>",
        f"<?xml version='1.0'?><Error><Code>ExpiredToken</Code><Token-0>{SECRET}x</Token-0>",
        f"GET http://x/a?X-Amz-Credential={KEY}%2F2026&X-Amz-Signature=abcdef0123",
        f"http://{KEY}:{SECRET}@minio.lab:9000 refused",
        "https://me:abcdef/0123@minio.lab:9000 refused",
        "secret_access_key='abcdef0123' session_token: abcdef0123",
        "key ASIAIOSFODNN7EXAMPLE",
        "<Error><AWSAccessKeyId>abcdef0123</AWSAccessKeyId></Error>",
    ],
)
def test_texts_of_stores_lose_their_secrets(text: str) -> None:
    shown = redact(text)
    assert not has_leak(shown) and "abcdef0123" not in shown and "ASIA" not in shown


# files on their way


def test_a_file_is_visible_when_it_is_whole(store: ObjectStore) -> None:
    where, root = filesystem(ATLAS)
    outgoing = OutgoingFile(where, f"{root}/large", ATLAS)
    piece = os.urandom(4 << 20)
    for _ in range(6):
        outgoing.stream.write(piece)
    assert where.get_file_info(f"{root}/large").type == pafs.FileType.NotFound
    assert not outgoing.is_visible
    assert outgoing.finish() == 24 << 20
    with where.open_input_file(f"{root}/large") as found:
        assert found.read() == 6 * piece
    head = store.client().head_object(Bucket="lab", Key="my/atlas/large")
    assert head["ETag"].strip('"').endswith("-3"), "sent in three parts"
    assert list_aborted_uploads(ATLAS, datetime.now(UTC) + timedelta(days=1)) == []


def test_a_discarded_file_never_was_there() -> None:
    where, root = filesystem(ATLAS)
    outgoing = OutgoingFile(where, f"{root}/given-up", ATLAS)
    outgoing.stream.write(b"x" * (24 << 20))
    outgoing.discard()
    assert where.get_file_info(f"{root}/given-up").type == pafs.FileType.NotFound
    assert list_aborted_uploads(ATLAS, datetime.now(UTC) + timedelta(days=1)) == []


def test_open_files_take_no_memory_each() -> None:
    where, root = filesystem(ATLAS)
    before = pa.total_allocated_bytes()
    waiting = [OutgoingFile(where, f"{root}/many-{n}", ATLAS) for n in range(16)]
    for outgoing in waiting:
        outgoing.stream.write(b"x" * (4 << 20))
    assert pa.total_allocated_bytes() - before < 4 << 20, "pyarrow's own would hold 64 MiB"
    for outgoing in waiting:
        outgoing.discard()


def test_uploads_of_killed_workers_are_found_and_ended(store: ObjectStore) -> None:
    client = store.client()
    keys = ["my/atlas/queries/a.parquet", "my/atlas/_state/b.npz"]
    keys += ["my/atlas-2/keys/c.parquet", "my/atlas/others.bin"]
    for key in keys:
        begun = client.create_multipart_upload(Bucket="lab", Key=key)
        client.upload_part(
            Bucket="lab", Key=key, UploadId=begun["UploadId"], PartNumber=1, Body=b"x" * 100
        )
    assert list_aborted_uploads(ATLAS, datetime(2010, 11, 1, tzinfo=UTC)) == []
    found = list_aborted_uploads(ATLAS, datetime(2010, 12, 1, tzinfo=UTC))  # moto's: 10 November
    assert {upload.key for upload in found} == {f"lab/{key}" for key in keys[:2]}
    assert list_aborted_uploads("s3://lab", datetime(2010, 12, 1, tzinfo=UTC)) == []
    abort_uploads(ATLAS, found)
    abort_uploads(ATLAS, found)  # another may have been faster
    left = client.list_multipart_uploads(Bucket="lab")["Uploads"]
    assert [upload["Key"] for upload in left] == keys[2:]


def test_one_client_deletes_all_files_of_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[str]()

    def make(root: str, options: dict[str, str] | None) -> DeltaStorageHandler:
        made.append(root)
        return DeltaStorageHandler(root, options)

    monkeypatch.setattr(object_store, "DeltaStorageHandler", make)
    for turn in range(2):
        object_store._bucket.cache_clear()
        for number in range(3):
            where, root = filesystem(ATLAS)
            with where.open_output_stream(f"{root}/gone-{number}") as stream:
                stream.write(b"x")
            where.delete_file(f"{root}/gone-{number}")
            assert where.get_file_info(f"{root}/gone-{number}").type == pafs.FileType.NotFound
        assert made == ["s3://lab"] * (turn + 1)


def test_trouble_with_tidying_up_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[object]()

    def refuse(**options: object) -> None:
        calls.append(options)
        raise ParamValidationError(report="wrong")

    monkeypatch.setattr(s3fs, "S3FileSystem", refuse)
    creation._delete(f"{ATLAS}/_probe-0")
    assert len(calls) == 1


def test_a_disk_has_no_uploads(tmp_path: Path) -> None:
    assert list_aborted_uploads(str(tmp_path), datetime.now(UTC)) == []
