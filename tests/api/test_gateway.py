import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from starlette.routing import Mount
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from api.access_log import JsonLines
from api.gateway import Gateway
from api.metrics import Metrics
from api.settings import ServeSettings
from store.errors import BusyError
from tests.api.small_app import TOKEN, NoWorkers, error_of, running_app
from tests.store.lake_fixture import build_atlas

BEARER = {"Authorization": f"Bearer {TOKEN}"}
PAGE = "https://page.example"


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_atlas(tmp_path_factory.mktemp("secret-folder"))


@pytest.fixture(scope="module")
def client(atlas: Path) -> Iterator[TestClient]:
    chosen: dict[str, Any] = {
        "token": TOKEN,
        "allowed_hosts": ("Atlas.Example",),
        "allowed_origins": (PAGE,),
        "request_bytes": 1_000,
    }
    with running_app(atlas, **chosen) as client:
        yield client


def test_header_and_path_admit_to_the_same_routes(client: TestClient) -> None:
    by_header = client.get("/v1/models", headers=BEARER)
    by_path = client.get(f"/t/{TOKEN}/v1/models")
    assert by_header.status_code == 200
    assert by_path.content == by_header.content


@pytest.mark.parametrize(
    ("path", "header"),
    [
        ("/v1/models", None),
        ("/v1/models", "Bearer"),
        ("/v1/models", f"Bearer {TOKEN}x"),
        ("/v1/models", f"Basic {TOKEN}"),
        ("/v1/models", "Bearer größer"),
        ("/metrics", None),
        ("/openapi.json", None),
        ("/t/", None),
        ("/t/wrong/v1/models", None),
        ("/t/wrong/v1/models", f"Bearer {TOKEN}"),
        (f"/t/{TOKEN}x/v1/models", None),
        ("/no/such/path", None),
        ("/index.html", None),
        ("/assets", None),
        ("/t//", None),
    ],
)
def test_a_request_without_the_token_is_refused(
    client: TestClient, path: str, header: str | None
) -> None:
    reply = client.get(path, headers={b"Authorization": header.encode()} if header else {})
    assert error_of(reply)[:2] == (401, "unauthorized")
    assert reply.headers["www-authenticate"] == "Bearer"


def test_tokens_are_compared_in_constant_time(client: TestClient) -> None:
    with patch("api.gateway.hmac.compare_digest", return_value=True) as compare:
        assert client.get("/t/whatever/v1/models").status_code == 200
    compare.assert_called_once_with(b"whatever", TOKEN.encode())


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_need_no_token(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/", "/assets/x.js", "/favicon.svg", "/assets/..%2fv1/models"])
def test_the_page_needs_no_token_and_opens_no_other_path(client: TestClient, path: str) -> None:
    reply = client.get(path, follow_redirects=False)
    assert reply.status_code in (200, 307, 404, 501)
    assert "rows" not in reply.text
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect(path, headers={"Host": "localhost"}),
    ):
        pass


def test_readiness_says_what_holds_and_no_secret(
    client: TestClient, atlas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NoWorkers, "layers", {"landlock": False})
    reply = client.get("/readyz")
    version = client.get("/v1", headers=BEARER).json()["version"]
    assert reply.json() == {
        "ready": True,
        "version": version,
        "workers": {"workers": 2, "idle": 2, "running": 0, "waiting": 0},
        "sandbox": {"landlock": False},
    }
    monkeypatch.setattr(NoWorkers, "idle", 0)
    assert client.get("/readyz").status_code == 503


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "192.0.2.7",
        "[::1",
        "",
    ],
)
def test_another_host_is_refused(client: TestClient, host: str) -> None:
    reply = client.get("/healthz", headers={"Host": host})
    assert error_of(reply) == (
        400,
        "bad_request",
        "this server does not answer to that Host; --allow-host NAME adds it",
    )


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "[::1]:8765", "ATLAS.example:443"])
def test_our_own_hosts_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


def test_a_server_of_all_addresses_answers_to_addresses_only(atlas: Path) -> None:
    open_to_all = {"host": "0.0.0.0", "token": TOKEN, "allow_weak_sandbox": True}
    with running_app(atlas, **open_to_all) as client:
        assert client.get("/healthz", headers={"Host": "192.0.2.7:80"}).status_code == 200
        assert client.get("/healthz", headers={"Host": "evil.example"}).status_code == 400


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://[", "http://localhost:3000"]
)
def test_another_origin_is_refused(client: TestClient, origin: str) -> None:
    for headers in ({**BEARER, "Origin": origin}, {"Origin": origin}):
        reply = client.get("/v1/models", headers=headers)
        assert error_of(reply)[:2] == (403, "forbidden")
        assert not [name for name in reply.headers if name.startswith("access-control")]


def test_our_own_origin_is_answered_without_cors(client: TestClient) -> None:
    reply = client.get("/v1/models", headers={**BEARER, "Origin": "http://localhost:8765"})
    assert reply.status_code == 200
    assert "access-control-allow-origin" not in reply.headers


def test_an_allowed_origin_may_read_replies_and_errors(client: TestClient) -> None:
    for headers, status in ((BEARER, 200), ({}, 401)):
        reply = client.get("/v1/models", headers={**headers, "Origin": PAGE})
        assert reply.status_code == status
        assert reply.headers["access-control-allow-origin"] == PAGE
        assert "Origin" in reply.headers["vary"]


def test_only_an_allowed_origin_gets_a_preflight(client: TestClient) -> None:
    asked = {"Access-Control-Request-Method": "POST"}
    reply = client.options("/v1/sql", headers={**asked, "Origin": PAGE})
    assert (reply.status_code, reply.content) == (204, b"")
    assert "Authorization" in reply.headers["access-control-allow-headers"]
    refused = client.options("/v1/sql", headers={**asked, "Origin": "https://evil.example"})
    assert refused.status_code == 403


def test_a_foreign_page_cannot_embed_a_reply(client: TestClient) -> None:
    embedded = {**BEARER, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert client.get("/v1/models", headers=embedded).status_code == 403
    followed = {**BEARER, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/v1/models", headers=followed).status_code == 200


def test_a_long_body_is_refused(client: TestClient) -> None:
    stated = client.post("/v1/sql", headers=BEARER, content=b"x" * 1_001)
    chunked = client.post(
        "/v1/sql",
        headers={**BEARER, "Content-Type": "application/json"},
        content=iter([b"x" * 600] * 2),
    )
    for reply in (stated, chunked):
        status, kind, message = error_of(reply)
        assert (status, kind) == (413, "request_entity_too_large")
        assert "1,000 bytes" in message
        assert reply.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("path", "status"),
    [("/v1/models", 200), ("/nope", 404), ("/v1/heads?limit=x", 400), ("/v1/schema", 500)],
)
def test_every_reply_carries_the_headers_of_safety(
    client: TestClient, path: str, status: int
) -> None:
    with patch("api.service_routes.describe", side_effect=OSError("broken")):
        reply = client.get(path, headers=BEARER)
    assert reply.status_code == status
    expected = {
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cache-control": "private, no-cache",
        "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    }
    assert expected.items() <= dict(reply.headers).items()
    assert "server" not in reply.headers


def test_an_internal_error_shows_its_text_in_the_log_alone(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with patch("api.service_routes.describe", side_effect=OSError("no /secret/path")):
        reply = client.get("/v1/schema", headers=BEARER)
    request_id = reply.headers["x-request-id"]
    message = f"internal error; the server's log has it under {request_id}"
    assert error_of(reply) == (500, "internal", message)
    (record,) = [record for record in caplog.records if record.name == "qkatlas.problems"]
    assert record.__dict__["fields"] == {"request_id": request_id}
    assert record.exc_info is not None and "/secret/path" in str(record.exc_info[1])


@pytest.mark.parametrize(
    "path", ["/v1/models/nope/sequences", "/v1/heads?model=nope", "/v1/maps/nope/points"]
)
def test_no_message_shows_the_atlas_folder(client: TestClient, atlas: Path, path: str) -> None:
    reply = client.get(path, headers=BEARER)
    assert error_of(reply)[:2] == (404, "not_found")
    assert "secret-folder" not in reply.text
    assert "nope" in reply.text


def test_an_error_after_the_first_byte_aborts_the_reply(client: TestClient) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise OSError("the disk is gone")

    app: Any = client.app
    app.router.routes.append(Mount("/broken", broken))
    with pytest.raises(OSError, match="the disk is gone"):
        client.get("/broken/", headers=BEARER)


def test_a_request_is_one_line_of_log_without_the_token(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "qkatlas.access")
    url = f"http://localhost:8765/t/{TOKEN}/"
    reply = client.get(f"{url}v1/models?q={TOKEN}%0a", headers={"Referer": f"{url}index.html"})
    client.get("/t/mistyped-token/v1/models")
    lines = [JsonLines(TOKEN).format(record) for record in caplog.records]
    assert TOKEN not in "".join(lines) and "mistyped" not in "".join(lines)
    line = json.loads(lines[0])
    assert line["path"] == "/t/***/v1/models"
    assert line["referer"] == "http://localhost:8765/t/***/index.html"
    assert line["query"].startswith("q=***")
    assert (line["status"], line["bytes"]) == (200, int(reply.headers["content-length"]))
    assert line["request_id"] == reply.headers["x-request-id"]
    assert {"time", "level", "event", "client", "method", "seconds"} <= line.keys()


def test_metrics_count_by_route_and_not_by_path(client: TestClient) -> None:
    client.get("/v1/models/tiny/sequences/0", headers=BEARER)
    client.get("/some/random/path", headers=BEARER)
    client.get("/v1/sql", headers=BEARER)
    text = client.get(f"/t/{TOKEN}/metrics").text
    route = "/v1/models/{model}/sequences/{sequence_id}"
    assert f'qkatlas_requests_total{{method="GET",route="{route}",status="200"}} 1.0' in text
    assert f'qkatlas_request_seconds_count{{route="{route}"}} 1.0' in text
    assert 'qkatlas_sql_queries_total{outcome="bad_request"} 1.0' in text
    assert 'qkatlas_sql_workers{state="idle"} 2.0' in text
    assert "random" not in text


def knock(client: TestClient, path: str, **headers: str) -> tuple[int, str]:
    """Status and kind with which a WebSocket is refused; 101 where it opens."""
    sent = {"Host": "localhost:8765", **headers}
    as_bytes: Any = {name.encode(): value.encode() for name, value in sent.items()}
    try:
        with client.websocket_connect(path, headers=as_bytes) as ws:
            ws.send_text("?")
            assert "Invalid JSON" in ws.receive_json()["error"]
            return 101, ""
    except WebSocketDenialResponse as refusal:
        assert refusal.headers["x-request-id"]
        return error_of(refusal)[:2]


@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        (f"/t/{TOKEN}/mosaic", {}, (101, "")),
        (f"/t/{TOKEN}/mosaic/", {"Origin": PAGE}, (101, "")),
        ("/mosaic", {**BEARER, "Origin": "http://localhost:8765"}, (101, "")),
        ("/mosaic", {}, (401, "unauthorized")),
        ("/t/wrong/mosaic", BEARER, (401, "unauthorized")),
        ("/mosaic", {"Authorization": "Bearer größer"}, (401, "unauthorized")),
        ("/mosaic", {**BEARER, "Origin": "null"}, (403, "forbidden")),
        ("/mosaic", {**BEARER, "Origin": "http://localhost:3000"}, (403, "forbidden")),
        ("/mosaic", {**BEARER, "Sec-Fetch-Site": "cross-site"}, (403, "forbidden")),
        ("/mosaic", {**BEARER, "Host": "evil.example"}, (400, "bad_request")),
    ],
)
def test_a_socket_passes_the_same_gate(
    client: TestClient, path: str, headers: dict[str, str], expected: tuple[int, str]
) -> None:
    assert knock(client, path, **headers) == expected


def test_sockets_compare_tokens_in_constant_time(client: TestClient) -> None:
    with patch("api.gateway.hmac.compare_digest", return_value=True) as compare:
        assert knock(client, "/t/whatever/mosaic") == (101, "")
    compare.assert_called_once_with(b"whatever", TOKEN.encode())


@pytest.mark.parametrize("path", ["/v1/sql", "/healthz", "/", "/mosaic/x"])
def test_other_paths_take_no_socket(client: TestClient, path: str) -> None:
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect(f"/t/{TOKEN}{path}", headers={"Host": "localhost"}),
    ):
        pass


def test_a_socket_is_one_line_of_log_without_the_token(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "qkatlas.access")
    assert knock(client, f"/t/{TOKEN}/mosaic") == (101, "")
    (line,) = [JsonLines(TOKEN).format(record) for record in caplog.records]
    assert TOKEN not in line
    said = json.loads(line)
    assert (said["path"], said["method"]) == ("/t/***/mosaic", "SOCKET")
    assert (said["status"], said["code"]) == (101, 1000)
    assert said["bytes"] > 0
    text = client.get(f"/t/{TOKEN}/metrics").text
    assert 'method="SOCKET",route="/mosaic",status="101"' in text


def test_an_internal_error_closes_a_socket_and_shows_its_text_in_the_log_alone(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    broken = patch("api.mosaic_socket.client_of", side_effect=OSError("no /secret/path"))
    with (
        broken,
        client.websocket_connect(f"/t/{TOKEN}/mosaic", headers={"Host": "localhost"}) as ws,
        pytest.raises(WebSocketDisconnect) as caught,
    ):
        ws.receive_text()
    assert caught.value.code == 1011
    assert "secret" not in caught.value.reason
    (record,) = [record for record in caplog.records if record.name == "qkatlas.problems"]
    assert record.exc_info is not None and "/secret/path" in str(record.exc_info[1])


def test_a_client_has_a_share_of_the_threads(tmp_path: Path) -> None:
    async def app(*_: object) -> None: ...

    settings = ServeSettings(str(tmp_path), max_requests_per_client=2)
    gate = Gateway(app, settings, Metrics(), "")
    mine, sql, other, socket, session = (
        {"path": path, "client": (address, 1)}
        for path, address in [
            ("/v1/heads", "a"),
            ("/v1/sql", "a"),
            ("/v1/heads", "b"),
            ("/mosaic", "a"),
            (f"/atlas/s/{'0' * 32}/data/query", "a"),
        ]
    )
    with gate._counted(mine), gate._counted(mine):
        with pytest.raises(BusyError, match="wait for one"), gate._counted(mine):
            pass
        with gate._counted(sql), gate._counted(other):
            pass
        with gate._counted(socket), gate._counted(session), gate._counted(session):
            pass
    assert not gate.under_way
