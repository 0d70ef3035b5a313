"""How the service runs: addresses, limits and secrets, checked once."""

import os
import re
from dataclasses import dataclass, field, fields

from store.errors import ConfigError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAY_BE_0 = ("port", "keep_versions_s")
TOKEN = r"[A-Za-z0-9_-]{16,200}"


@dataclass(frozen=True)
class ServeSettings:
    """Settings of one server."""

    atlas: str
    """Folder or URI of the atlas."""
    host: str = "127.0.0.1"
    """Address to bind; other than loopback needs a token."""
    port: int = 8765
    """Port to bind; 0 takes a free one."""
    token: str | None = field(default=None, repr=False)
    """Secret that every request must carry; None lets every local process in."""
    allowed_hosts: tuple[str, ...] = ()
    """Names beside the loopback ones and `host` that a request's Host may have."""
    allowed_origins: tuple[str, ...] = ()
    """Origins beside the server's own whose pages may call it."""
    tls_cert: str | None = None
    """Certificate file (PEM)."""
    tls_key: str | None = None
    """Key file (PEM)."""
    flight_port: int | None = None
    """Port of the Flight SQL door; 0 takes a free one, None opens none."""
    flight_host: str = "127.0.0.1"
    """Address of the Flight SQL door, which takes messages of any size before it sees a token."""
    flight_memory_bytes: int = 1_000_000_000
    """Memory that the Flight SQL door's process may take beyond what it needs at rest."""
    root_path: str = ""
    """Path below which a proxy serves this server."""
    refresh_s: float = 5.0
    """Seconds between looks for a newer version of the atlas."""
    keep_versions_s: float = 600.0
    """Seconds that a superseded version still answers its page cursors."""
    scan_bytes: int = 4_000_000_000
    """Most bytes of Parquet that one typed request may scan."""
    file_cache_bytes: int = 20_000_000_000
    """Most bytes of disk for copies of an object store's files; local files are not copied."""
    request_bytes: int = 1_000_000
    """Largest body of a request."""
    slow_client_s: float = 15.0
    """Seconds that a client may take to send a request, or to take the next piece of a reply."""
    idle_socket_s: float = 900.0
    """Seconds after which a WebSocket that asks nothing is closed."""
    max_connections: int = 256
    """Connections at one time; more are answered 503."""
    max_connections_per_client: int = 100
    """Most connections of one address; not counted behind a proxy, which `root_path` tells of."""
    max_requests_per_client: int = 12
    """Most typed requests of one client that are answered at a time; SQL has limits of its own."""
    shutdown_s: float = 10.0
    """Seconds that running requests get to end when the server is told to stop."""
    threads: int = 16
    """Typed requests that are answered at one time; more wait."""
    workers: int = max(2, os.cpu_count() or 2)
    """Worker processes for SQL; a client holds at most all but one."""
    worker_threads: int = min(4, os.cpu_count() or 1)
    """DuckDB threads of a worker."""
    worker_memory_bytes: int = 2_000_000_000
    """Memory that a query may take beyond what its worker needs at rest."""
    timeout_s: float = 30.0
    """Deadline of a query that names none."""
    max_timeout_s: float = 300.0
    """Longest deadline that a query may ask for."""
    max_rows: int = 1_000_000
    """Rows of a SQL reply that names no limit."""
    max_bytes: int = 64_000_000
    """Bytes of a SQL reply that names no limit; filled before the first byte is sent."""
    max_waiting: int = 64
    """Queries that may wait for a worker."""
    max_waiting_per_client: int = 16
    """Queries of one client that may wait for a worker."""
    max_viewer_sessions: int = 8
    """Viewer sessions that may be open, each a process; a client has at most half."""
    viewer_idle_s: float = 900.0
    """Seconds after its last use at which a viewer session ends."""
    viewer_memory_bytes: int = 1_000_000_000
    """Memory that a viewer session may take beyond what its process needs at rest."""
    allow_weak_sandbox: bool = False
    """Bind beyond loopback even where the kernel lacks a layer of the sandbox."""

    def __post_init__(self) -> None:
        """Refuse combinations that would not be safe, or not run.

        Raises:
            ConfigError: what is wrong, and what to do.
        """
        if self.token is not None and not re.fullmatch(TOKEN, self.token):
            raise ConfigError(
                "a token has 16 to 200 letters, digits, '-' or '_'; "
                "`openssl rand -hex 16` makes one"
            )
        if not self.is_loopback and self.token is None:
            raise ConfigError(
                f"{self._open_option} is open to others: set a token with --token-file or "
                "QKATLAS_TOKEN, or bind 127.0.0.1"
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("TLS needs both --tls-cert and --tls-key")
        if self.root_path and not re.fullmatch(r"(/[\w.~-]+)+", self.root_path):
            raise ConfigError(f"--root-path {self.root_path}: write it as /some/path")
        self._check_numbers()
        if self.workers < 2:
            raise ConfigError(f"--workers {self.workers}: at least 2, so that no client holds all")

    def _check_numbers(self) -> None:
        """Refuse limits that nothing could keep."""
        for each in fields(self):
            value = getattr(self, each.name)
            if (
                each.type in ("int", "float", int, float)
                and value <= 0
                and each.name not in MAY_BE_0
            ):
                raise ConfigError(f"{each.name} is {value}: it must be above 0")
        if self.timeout_s > self.max_timeout_s:
            raise ConfigError(
                f"timeout_s is {self.timeout_s:g}, above max_timeout_s, {self.max_timeout_s:g}"
            )

    @property
    def needs_sandbox(self) -> bool:
        """True where others than this machine may ask, and nobody took the risk upon them."""
        return not self.is_loopback and not self.allow_weak_sandbox

    @property
    def is_loopback(self) -> bool:
        """True where only processes of this machine can connect."""
        return not self._open_option

    @property
    def _open_option(self) -> str:
        """The option that lets others than this machine connect; empty where none does."""
        if self.host not in LOOPBACK:
            return f"--host {self.host}"
        if self.flight_port is not None and self.flight_host not in LOOPBACK:
            return f"--flight-host {self.flight_host}"
        return ""
