"""An S3 service of moto's in a process of its own, for tests of what lies on an object store.

Stricter than moto: it knows one key and one region, as real stores do, and answers conditional
puts one at a time, because moto looks and writes in two steps. Its process ends with its parent.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE, Popen
from threading import Lock, Thread
from typing import Any

REGION = "eu-central-1"
KEY = "TESTKEYOFQKATLAS"
SECRET = "test-secret-of-qkatlas"

_ROOT = Path(__file__).parents[1]

_Start = Callable[..., Any]


@dataclass(frozen=True)
class ObjectStore:
    """A running object store."""

    endpoint: str
    environment: dict[str, str] = field(repr=False)
    """Endpoint, region and credentials, as every reader of S3 takes them."""
    pid: int

    def client(self) -> Any:
        """A boto3 client of the store."""
        import boto3  # type: ignore[import-untyped]

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )

    def make_bucket(self, name: str) -> None:
        """Create a bucket."""
        self.client().create_bucket(
            Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION}
        )


@contextmanager
def run_object_store(folder: Path, *, has_conditions: bool = True) -> Iterator[ObjectStore]:
    """An empty object store for as long as the block runs.

    Args:
        folder: takes its log, and what does not fit into its memory.
        has_conditions: whether it honours conditional puts; some stores ignore them.

    Raises:
        RuntimeError: the process ended at once; its log says why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "infra.object_store", str(folder), str(has_conditions)]
    log = folder / "object-store.log"
    with (
        log.open("wb") as said,
        Popen(command, cwd=_ROOT, stdin=PIPE, stdout=PIPE, stderr=said) as process,
    ):
        assert process.stdout is not None
        try:
            port = process.stdout.readline().decode().strip()
            if not port:
                raise RuntimeError(f"the object store did not start: {log.read_text()[-2000:]}")
            endpoint = f"http://127.0.0.1:{port}"
            yield ObjectStore(endpoint, _environment(endpoint, folder), process.pid)
        finally:
            process.kill()


def _environment(endpoint: str, folder: Path) -> dict[str, str]:
    """What names the store; the files keep a user's own profiles out of tests."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_CONFIG_FILE": str(folder / "aws-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "aws-credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _serve(folder: str, has_conditions: bool) -> None:
    """Answer requests until the parent's end of standard input closes."""
    import tempfile

    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import make_server

    tempfile.tempdir = folder
    service = _strict(DomainDispatcherApplication(create_backend_app), has_conditions)
    server = make_server("127.0.0.1", 0, service, threaded=True, request_handler=MotoRequestHandler)
    Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


def _strict(
    service: Any, has_conditions: bool
) -> Callable[[dict[str, Any], _Start], Iterable[bytes]]:
    """A WSGI service that refuses other keys and regions, and puts conditions in a row."""
    in_a_row = Lock()

    def answer(request: dict[str, Any], start: _Start) -> Iterable[bytes]:
        signed = str(request.get("HTTP_AUTHORIZATION", ""))
        scope = [*signed.partition("Credential=")[2].split("/"), "", ""]
        key, region = scope[0], scope[2]
        if not key:
            return _refuse(start, "403 Forbidden", "AccessDenied", "the request is not signed")
        if key != KEY:
            reason = f"no such key</Message><AWSAccessKeyId>{key}</AWSAccessKeyId><Message>"
            return _refuse(start, "403 Forbidden", "InvalidAccessKeyId", reason)
        if region != REGION:
            reason = f"the region '{region}' is wrong; expecting '{REGION}'"
            return _refuse(start, "400 Bad Request", "AuthorizationHeaderMalformed", reason)
        if "HTTP_IF_NONE_MATCH" not in request or request["REQUEST_METHOD"] == "GET":
            return service(request, start)  # type: ignore[no-any-return]
        if not has_conditions:
            del request["HTTP_IF_NONE_MATCH"]
        with in_a_row:
            return service(request, start)  # type: ignore[no-any-return]

    return answer


def _refuse(start: _Start, status: str, code: str, reason: str) -> list[bytes]:
    """An error as S3 says it."""
    body = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{reason}</Message></Error>"
    ).encode()
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2] == str(True))
