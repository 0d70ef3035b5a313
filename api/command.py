"""`qkatlas serve`, apart from the command line's other commands; heavy imports come late."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from api.settings import ServeSettings
from store.errors import ConfigError

if TYPE_CHECKING:
    from fastapi import FastAPI

TOKEN_VARIABLE = "QKATLAS_TOKEN"

AtlasOption = Annotated[
    str, typer.Option("--atlas", metavar="URI", envvar="QKATLAS_ATLAS", help="Folder or URI.")
]
DEFAULTS = ServeSettings("")


def serve(
    atlas: AtlasOption,
    host: Annotated[str, typer.Option(help="Address; beyond loopback needs a token.")] = (
        DEFAULTS.host
    ),
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = (
        DEFAULTS.port
    ),
    flight_port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, help="Port of Flight SQL, for ADBC and JDBC; else none."),
    ] = None,
    flight_host: Annotated[
        str,
        typer.Option(
            help="Address of Flight SQL, which --host does not move: it takes messages of any size "
            "before it sees the token. Beyond loopback needs one, and a network you trust."
        ),
    ] = DEFAULTS.flight_host,
    token_file: Annotated[
        Path | None, typer.Option(help=f"File with the token; or set {TOKEN_VARIABLE}.")
    ] = None,
    tls_cert: Annotated[str | None, typer.Option(help="Certificate file (PEM).")] = None,
    tls_key: Annotated[str | None, typer.Option(help="Key file (PEM).")] = None,
    root_path: Annotated[str, typer.Option(help="Path that a proxy cuts off.")] = "",
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Another name of this server; repeatable.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="Origin whose pages may ask; repeatable.")
    ] = None,
    refresh_s: Annotated[float, typer.Option(help="Seconds between looks for a new version.")] = (
        DEFAULTS.refresh_s
    ),
    workers: Annotated[int, typer.Option(help="Processes for SQL.")] = DEFAULTS.workers,
    worker_memory: Annotated[
        int, typer.Option(metavar="BYTES", help="Memory that one query may take.")
    ] = DEFAULTS.worker_memory_bytes,
    timeout_s: Annotated[float, typer.Option(help="Deadline of a query.")] = DEFAULTS.timeout_s,
    scan_bytes: Annotated[int, typer.Option(help="Most bytes that nearest-key reads scan.")] = (
        DEFAULTS.scan_bytes
    ),
    allow_weak_sandbox: Annotated[
        bool, typer.Option("--allow-weak-sandbox", help="Serve others without Landlock.")
    ] = False,
) -> None:
    """Answer questions about an atlas over HTTP: typed endpoints, and SQL in a sandbox.

    Example: `qkatlas serve --atlas build/demo-atlas`
    """
    settings = ServeSettings(
        atlas,
        host,
        port,
        _read_token(token_file),
        allowed_hosts=tuple(allow_host or ()),
        allowed_origins=tuple(allow_origin or ()),
        tls_cert=tls_cert,
        tls_key=tls_key,
        flight_port=flight_port,
        flight_host=flight_host,
        root_path=root_path,
        refresh_s=refresh_s,
        workers=workers,
        worker_memory_bytes=worker_memory,
        timeout_s=timeout_s,
        max_timeout_s=max(timeout_s, DEFAULTS.max_timeout_s),
        scan_bytes=scan_bytes,
        allow_weak_sandbox=allow_weak_sandbox,
    )
    from api.server import run_server

    run_server(settings, _announce)


def _read_token(file: Path | None) -> str | None:
    """The token of a file, else of the environment, which no child process shall see."""
    given = os.environ.pop(TOKEN_VARIABLE, None)
    if file is None:
        return given or None
    try:
        return file.read_text("utf-8").strip()
    except OSError as error:
        raise ConfigError(f"--token-file {file}: {error.strerror}") from error


def _announce(app: "FastAPI", urls: list[str]) -> None:
    """Say where the server answers and how well SQL is locked in."""
    layers = app.state.pool.describe()["layers"]
    holding = [name for name, holds in layers.items() if holds]
    lacking = [name for name, holds in layers.items() if not holds]
    typer.echo(f"serving {app.state.settings.atlas}, version {app.state.service.current[0]}")
    for url in urls:
        typer.echo(f"  {url}")
    typer.echo(f"SQL sandbox: {', '.join(holding) or 'none of its layers'}")
    if lacking:
        typer.echo(f"  this kernel does not give {', '.join(lacking)}: see docs/security.md")
