import signal
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from api.server import _bind, _configure, _list_urls
from api.settings import ServeSettings
from store.errors import ConfigError
from tests.api.own_certificate import make_certificate
from tests.api.own_server import RunningServer, running_server
from tests.api.small_app import TOKEN, NoWorkers, running_app
from tests.store.lake_fixture import build_atlas

SLOW_S = 1.0
WAIT_S = 30.0
LONG = "SELECT repeat('x', 1000) AS x FROM range(30000)"
"""30 MB: more than the sockets between two processes hold."""


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_atlas(tmp_path_factory.mktemp("atlas"))


@pytest.fixture(scope="module")
def server(atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("server")
    with running_server(atlas, folder, slow_client_s=SLOW_S, max_connections=8) as running:
        yield running


def connect(server: RunningServer) -> socket.socket:
    return socket.create_connection(server.address, timeout=WAIT_S)


def read_to_end(connection: socket.socket) -> bytes:
    """All that still comes; a reset ends it as well."""
    found = bytearray()
    try:
        while piece := connection.recv(1 << 16):
            found += piece
    except ConnectionResetError:
        pass
    return bytes(found)


def dribble(connection: socket.socket, text: bytes) -> bool:
    """Send a byte every tenth of the time allowed; True if the server ends it before."""
    for byte in text:
        try:
            connection.sendall(bytes([byte]))
        except OSError:
            return True
        time.sleep(SLOW_S / 10)
    return False


HEAD = (
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
)
POST = b"POST /v1/sql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_a_request_head_that_dribbles_in_is_cut_off(server: RunningServer) -> None:
    with connect(server) as connection:
        assert dribble(connection, HEAD)
        assert read_to_end(connection) == b""


def test_a_body_that_dribbles_in_is_cut_off(server: RunningServer) -> None:
    with connect(server) as connection:
        connection.sendall(POST + b"Content-Length: 500\r\n\r\n")
        assert dribble(connection, b'{"sql": "SELECT 1"' + b" " * 200)
        assert read_to_end(connection) == b""


def test_a_body_that_nobody_reads_is_cut_off_too(server: RunningServer) -> None:
    with connect(server) as connection:
        connection.sendall(HEAD.split(b"X-Filler")[0] + b"Content-Length: 500\r\n\r\n")
        assert dribble(connection, b" " * 200)


def test_a_connection_that_asks_nothing_is_closed(server: RunningServer) -> None:
    with connect(server) as connection:
        assert read_to_end(connection) == b""


def ask_long(connection: socket.socket) -> None:
    body = b'{"sql": "%s", "format": "csv"}' % LONG.encode()
    connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)


def test_a_client_that_does_not_read_is_cut_off_and_others_do_not_wait(
    server: RunningServer,
) -> None:
    with connect(server) as connection:
        ask_long(connection)
        for _ in range(20):
            time.sleep(SLOW_S / 5)
            assert httpx2.get(f"{server.urls[0]}healthz").status_code == 200
        assert len(read_to_end(connection)) < 20_000_000


def test_a_client_that_reads_slowly_gets_everything(server: RunningServer) -> None:
    with connect(server) as connection:
        ask_long(connection)
        found, began = 0, time.monotonic()
        while found < 30_000_000:
            piece = connection.recv(1 << 18)
            assert piece, f"cut off after {found:,} bytes"
            found += len(piece)
            if time.monotonic() - began < 3 * SLOW_S:
                time.sleep(SLOW_S / 20)
        assert time.monotonic() - began > 3 * SLOW_S


def test_a_connection_is_used_for_many_requests(server: RunningServer) -> None:
    ports = set()
    with httpx2.Client(base_url=server.urls[0]) as client:
        for _ in range(5):
            stream = client.get("healthz").extensions["network_stream"]
            ports.add(stream.get_extra_info("client_addr"))
            time.sleep(SLOW_S / 3)
    assert len(ports) == 1


def test_more_connections_than_allowed_are_told_so(server: RunningServer) -> None:
    open_ones = [connect(server) for _ in range(8)]
    try:
        time.sleep(0.2)
        assert httpx2.get(f"{server.urls[0]}healthz").status_code == 503
    finally:
        for connection in open_ones:
            connection.close()


def test_no_reply_of_the_process_names_its_software(server: RunningServer) -> None:
    assert "server" not in httpx2.get(f"{server.urls[0]}healthz").headers


@pytest.mark.parametrize("line", [b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n", b"A" * 70_000])
def test_what_is_not_http_is_refused_and_closed(server: RunningServer, line: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(line)
        assert read_to_end(connection).startswith(b"HTTP/1.1 400 ")


def test_a_signal_ends_the_server_after_its_running_requests(atlas: Path, tmp_path: Path) -> None:
    with running_server(atlas, tmp_path) as server, ThreadPoolExecutor() as threads:
        busy = "SELECT count(*) FROM range(20_000) a, range(10_000) b WHERE a.range % b.range = 3"
        asked = threads.submit(
            httpx2.post, f"{server.urls[0]}v1/sql", json={"sql": busy}, timeout=WAIT_S
        )
        while httpx2.get(f"{server.urls[0]}readyz").json()["workers"]["running"] == 0:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        assert asked.result().status_code == 200
        assert server.process.wait(WAIT_S) == 0


def test_a_request_that_does_not_end_holds_the_shutdown_only_so_long(
    atlas: Path, tmp_path: Path
) -> None:
    with (
        running_server(atlas, tmp_path, shutdown_s=0.5) as server,
        ThreadPoolExecutor() as threads,
    ):
        endless = "SELECT count(*) FROM range(1_000_000_000) a, range(1_000_000_000) b"
        asked = threads.submit(
            httpx2.post, f"{server.urls[0]}v1/sql", json={"sql": endless}, timeout=WAIT_S
        )
        while httpx2.get(f"{server.urls[0]}readyz").json()["workers"]["running"] == 0:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(WAIT_S) == 0
        assert isinstance(asked.exception(), httpx2.TransportError) or asked.result().is_error


def test_the_token_is_in_no_log(atlas: Path, tmp_path: Path) -> None:
    with running_server(atlas, tmp_path, token=TOKEN) as server:
        root, own = server.urls
        assert own == f"{root}t/{TOKEN}/"
        headers = {"Referer": f"{own}page", "Authorization": f"Bearer {TOKEN}"}
        assert httpx2.get(f"{own}v1/models?q={TOKEN}", headers=headers).status_code == 200
        assert httpx2.get(f"{own}{TOKEN}", headers=headers).status_code == 404
        assert httpx2.get(f"{root}v1/models").status_code == 401
        with connect(server) as connection:
            connection.sendall(f"GET /t/{TOKEN}/\x01 HTTP/1.1\r\n\r\n".encode())
            read_to_end(connection)
        server.process.terminate()
        server.process.wait(WAIT_S)
        logged = server.log.read_text()
    assert logged.count('"event": "request"') == 3
    assert '"path": "/t/***/v1/models"' in logged
    assert TOKEN not in logged


def test_a_proxy_may_serve_it_below_a_path(atlas: Path, tmp_path: Path) -> None:
    chosen = {"root_path": "/below", "token": TOKEN, "allowed_hosts": ["atlas.example"]}
    with running_server(atlas, tmp_path, **chosen) as server:
        headers = {"Host": "atlas.example", "X-Forwarded-For": "192.0.2.7"}
        reply = httpx2.get(f"{server.urls[1]}v1/heads?limit=2", headers=headers)
        assert reply.status_code == 200
        assert reply.headers["link"].startswith("<?limit=2&cursor=")
        bearer = {**headers, "Authorization": f"Bearer {TOKEN}"}
        assert httpx2.get(f"{server.urls[0]}v1", headers=bearer).status_code == 200
        assert '"client": "192.0.2.7"' in server.log.read_text()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


def test_tls_files_make_it_https(atlas: Path, tmp_path: Path, certificate: tuple[str, str]) -> None:
    cert, key = certificate
    chosen = {"tls_cert": cert, "tls_key": key, "slow_client_s": SLOW_S}
    with running_server(atlas, tmp_path, **chosen) as server:
        trusted = ssl.create_default_context(cafile=cert)
        with httpx2.Client(base_url=server.urls[0], verify=trusted) as client:
            assert server.urls[0].startswith("https://127.0.0.1:")
            assert client.get("v1/models").status_code == 200
            body = {"sql": LONG, "format": "csv"}
            assert len(client.post("v1/sql", json=body, timeout=WAIT_S).content) > 30_000_000
        with trusted.wrap_socket(connect(server), server_hostname="127.0.0.1") as connection:
            assert read_to_end(connection) == b""


def test_a_wrong_certificate_is_told_before_the_start(certificate: tuple[str, str]) -> None:
    cert, _ = certificate
    for bad in (str(Path(cert).with_name("missing.pem")), cert):
        settings = ServeSettings("x", tls_cert=cert, tls_key=bad)
        with pytest.raises(ConfigError, match="--tls-cert and --tls-key"):
            _configure(None, settings)  # type: ignore[arg-type]


def test_a_taken_port_is_told_with_what_to_do() -> None:
    with _bind(ServeSettings("x", port=0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}.*--port"):
            _bind(ServeSettings("x", port=port))


def test_an_address_of_another_machine_is_told_with_what_to_do() -> None:
    settings = ServeSettings("x", host="192.0.2.7", token=TOKEN)
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.7.*--host"):
        _bind(settings)


def test_urls_say_scheme_brackets_and_token() -> None:
    settings = ServeSettings("x", host="::1", token=TOKEN, tls_cert="c", tls_key="k")
    base = "https://[::1]:80/"
    assert _list_urls(settings, 80) == [base, f"{base}t/{TOKEN}/"]


def test_a_weak_sandbox_is_not_opened_to_others(
    atlas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def try_to_serve(**settings: object) -> None:
        with running_app(atlas, **{"host": "0.0.0.0", "token": TOKEN, **settings}):
            pass

    with pytest.raises(ConfigError, match="no landlock and no network_namespace"):
        try_to_serve()
    try_to_serve(allow_weak_sandbox=True)
    try_to_serve(host="127.0.0.1")
    monkeypatch.setattr(NoWorkers, "layers", {"landlock": True, "network_namespace": False})
    with pytest.raises(ConfigError, match="gives SQL workers no network_namespace: bind"):
        try_to_serve()
    monkeypatch.setattr(NoWorkers, "layers", {"landlock": True, "network_namespace": True})
    try_to_serve()
