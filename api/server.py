"""The process that listens: uvicorn with our protocol, our log and a shutdown that waits."""

import asyncio
import contextlib
import errno
import resource
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from api.access_log import start_logging
from api.app import make_app
from api.fair_reading import Allowances
from api.flight_bridge import open_flight
from api.settings import ServeSettings
from api.slow_clients import PatientProtocol
from store.errors import ConfigError

BACKLOG = 128

MANY_FILES = 65_536

SEND_BUFFER = 512 << 10
"""Bytes that the kernel holds of each reply; with its own megabytes, a client that reads slowly
would look like one that does not read at all."""


class Server(uvicorn.Server):
    """uvicorn that leaves it to us to end the lifespan after a signal."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGINT and SIGTERM; uvicorn's own would raise them again and kill us early."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, self.handle_exit, name, None)
        yield


def run_server(settings: ServeSettings, announce: Callable[[FastAPI, list[str]], None]) -> None:
    """Serve until a signal comes.

    Args:
        settings: of the server.
        announce: told the app and its URLs once both are ready.

    Raises:
        AtlasNotFoundError: there is no atlas.
        ConfigError: the address cannot be bound, TLS files are wrong, or the sandbox is too weak.
    """
    start_logging(settings.token)
    _allow_many_files()
    asyncio.run(_serve(settings, announce))


def _allow_many_files() -> None:
    """Let this process open more files than is usual: each connection is one."""
    usual, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY_FILES if most == resource.RLIM_INFINITY else min(MANY_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(usual, wanted), most))


async def _serve(settings: ServeSettings, announce: Callable[[FastAPI, list[str]], None]) -> None:
    app = make_app(settings)
    config = _configure(app, settings)
    # The lifespan is ours, so that its errors reach the user as one line.
    async with app.router.lifespan_context(app):
        with _bind(settings) as listener:
            async with _open_flight(app, settings) as more:
                announce(app, [*_list_urls(settings, listener.getsockname()[1]), *more])
                await Server(config).serve([listener])


@contextlib.asynccontextmanager
async def _open_flight(app: FastAPI, settings: ServeSettings) -> AsyncIterator[list[str]]:
    """The URL of the Flight SQL door, where one is wanted."""
    if settings.flight_port is None:
        yield []
        return
    async with open_flight(app) as url:
        yield [url]


def _configure(app: FastAPI, settings: ServeSettings) -> uvicorn.Config:
    """How uvicorn runs.

    Raises:
        ConfigError: a TLS file is not there or not valid.
    """
    protocol: Any = partial(
        PatientProtocol,
        slow_client_s=settings.slow_client_s,
        open_by_client=Counter(),
        allowances=Allowances(),
        most=(
            settings.max_connections if settings.root_path else settings.max_connections_per_client
        ),
    )
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="websockets-sansio",
        ws_max_size=settings.request_bytes,
        ws_per_message_deflate=False,  # it would run in the event loop
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.root_path),  # else any client could name another address
        root_path=settings.root_path,
        limit_concurrency=settings.max_connections,
        backlog=BACKLOG,
        timeout_graceful_shutdown=cast(int, settings.shutdown_s),
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError too
        raise ConfigError(f"--tls-cert and --tls-key: {error.strerror or error}") from error
    return config


def _bind(settings: ServeSettings) -> socket.socket:
    """A socket that listens.

    Raises:
        ConfigError: the address is taken, or not ours.
    """
    host, port = settings.host, settings.port
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        hint = (
            "choose another --port" if error.errno == errno.EADDRINUSE else "choose another --host"
        )
        raise ConfigError(f"cannot listen on {host}:{port} ({error.strerror}): {hint}") from error
    # asyncio leaves it out for such a socket; small replies would wait 40 ms for a delayed ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)  # connections inherit it
    return listener


def _list_urls(settings: ServeSettings, port: int) -> list[str]:
    """Where the server answers; the second URL holds the token, for browsers."""
    scheme = "https" if settings.tls_cert else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    base = f"{scheme}://{host}:{port}"
    return [f"{base}/", *([f"{base}/t/{settings.token}/"] if settings.token else [])]
