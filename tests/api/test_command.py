import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from api.command import serve
from api.settings import ServeSettings
from store.errors import ConfigError
from tests.api.small_app import TOKEN


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[ServeSettings]:
    """The settings with which the server would run."""
    found: list[ServeSettings] = []
    layers = {"landlock": False, "network_namespace": True, "limits": True}

    def run_server(settings: ServeSettings, announce: Any) -> None:
        found.append(settings)
        service = SimpleNamespace(current=("c67797e6929abe82", None))
        pool = SimpleNamespace(describe=lambda: {"layers": layers})
        state = SimpleNamespace(settings=settings, service=service, pool=pool)
        announce(SimpleNamespace(state=state), ["http://127.0.0.1:8765/"])

    monkeypatch.setattr("api.server.run_server", run_server)
    return found


def call(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(serve)
    result = CliRunner().invoke(app, arguments, catch_exceptions=False, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.output


def test_it_says_where_it_answers_and_which_layers_hold(started: list[ServeSettings]) -> None:
    output = call("--atlas", "some/atlas")
    assert output.splitlines() == [
        "serving some/atlas, version c67797e6929abe82",
        "  http://127.0.0.1:8765/",
        "SQL sandbox: network_namespace, limits",
        "  this kernel does not give landlock: see docs/security.md",
    ]
    assert started == [ServeSettings("some/atlas")]


def test_every_option_reaches_the_settings(started: list[ServeSettings], tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    options = (
        f"--host 0.0.0.0 --port 1 --token-file {file} --tls-cert c --tls-key k --root-path /p "
        "--allow-host a --allow-host b --allow-origin https://o --refresh-s 1.5 --workers 3 "
        "--worker-memory 4 --timeout-s 5 --scan-bytes 6 --allow-weak-sandbox "
        "--flight-port 7 --flight-host 0.0.0.0"
    )
    call("--atlas", "x", *options.split())
    assert started == [
        ServeSettings(
            "x",
            "0.0.0.0",
            1,
            TOKEN,
            allowed_hosts=("a", "b"),
            allowed_origins=("https://o",),
            tls_cert="c",
            tls_key="k",
            root_path="/p",
            refresh_s=1.5,
            workers=3,
            worker_memory_bytes=4,
            timeout_s=5,
            scan_bytes=6,
            allow_weak_sandbox=True,
            flight_port=7,
            flight_host="0.0.0.0",
        )
    ]


def test_the_token_of_the_environment_goes_to_no_child(
    started: list[ServeSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QKATLAS_TOKEN", TOKEN)
    call("--atlas", "x")
    assert started[0].token == TOKEN
    assert "QKATLAS_TOKEN" not in os.environ
    assert TOKEN not in repr(started[0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--host 0.0.0.0", "--host 0.0.0.0 is open to others: set a token"),
        ("--flight-port 1 --flight-host ::", "--flight-host :: is open to others: set a token"),
        ("--token-file nowhere", "--token-file nowhere: No such file"),
        ("--tls-cert c", "TLS needs both"),
        ("--root-path p", "write it as /some/path"),
        ("--workers 1", "at least 2"),
    ],
)
def test_what_is_unsafe_or_wrong_is_refused(
    started: list[ServeSettings], options: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        call("--atlas", "x", *options.split())
    assert not started


@pytest.mark.parametrize(
    "token", ["short", "with spaces in the middle", "a/token/of/20/letters!", ""]
)
def test_a_weak_token_is_refused_with_a_way_to_make_one(tmp_path: Path, token: str) -> None:
    file = tmp_path / "token"
    file.write_text(token)
    with pytest.raises(ConfigError, match="openssl rand -hex 16"):
        call("--atlas", "x", "--token-file", str(file))


def test_flight_stays_on_this_machine_wherever_http_listens() -> None:
    assert ServeSettings("x", "0.0.0.0", token=TOKEN, flight_port=1).flight_host == "127.0.0.1"
    assert ServeSettings("x", flight_host="0.0.0.0").is_loopback  # no port: it is not opened
    open_to_others = ServeSettings("x", token=TOKEN, flight_port=1, flight_host="0.0.0.0")
    assert not open_to_others.is_loopback and open_to_others.needs_sandbox
