"""Counters and histograms of one server, in Prometheus's text form."""

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

METHODS = {"GET", "HEAD", "POST", "DELETE", "OPTIONS", "SOCKET", "FLIGHT"}
SQL_ROUTES = ("/v1/sql", "/mosaic", "/mosaic/", "flight/do_get")
"""Each request of theirs is a statement; a socket counts its statements itself."""

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """What happened since the server started."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "qkatlas_requests",
            "Requests by route, method and status.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "qkatlas_request_seconds",
            "Time until the last byte was sent.",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.sql = Counter(
            "qkatlas_sql_queries",
            "SQL statements by outcome: ok, or the kind of the error.",
            ["outcome"],
            registry=self.registry,
        )
        self.workers = Gauge(
            "qkatlas_sql_workers",
            "SQL workers, those of them that are idle, and queries that wait for one.",
            ["state"],
            registry=self.registry,
        )

    def watch_workers(self, describe: Callable[[], Mapping[str, Any]]) -> None:
        """Read the gauges of the workers whenever the metrics are asked for."""
        for state in ("workers", "idle", "waiting"):
            self.workers.labels(state).set_function(
                lambda state=state: float(describe().get(state, 0))  # type: ignore[misc]
            )

    def count(self, route: str, method: str, status: int, kind: str, seconds: float) -> None:
        """Count one request.

        Args:
            route: the route's template; never a path, which would make as many series as paths.
            method: any text that a client sent.
            status: 0 where none was sent.
            kind: `ok`, or the kind of the error.
            seconds: until the last byte.
        """
        known = method if method in METHODS else "other"
        self.requests.labels(route, known, str(status)).inc()
        if method != "SOCKET":  # open for as long as its client likes
            self.seconds.labels(route).observe(seconds)
        if route in SQL_ROUTES and method != "SOCKET":
            self.sql.labels(kind).inc()

    def to_text(self) -> bytes:
        """Everything in Prometheus's text form 0.0.4."""
        return generate_latest(self.registry)
