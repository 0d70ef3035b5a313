"""What the server says of itself: its links, the schema, its health and its metrics."""

from importlib.metadata import version as version_of
from typing import Any

import pyarrow as pa
from fastapi import APIRouter, Request, Response

from api.parameters import VERSION, shown, shown_page
from api.reading import Whole
from store.discovery import describe

router = APIRouter(tags=["service"])

LINKS = {
    "schema": "v1/schema",
    "models": "v1/models",
    "heads": "v1/heads",
    "maps": "v1/maps",
    "sql": "v1/sql",
    "openapi": "openapi.json",
    "metrics": "metrics",
}
"""Relative to the server's base, with or without a token in it."""

SCHEMA_ROW = {
    "name": "heads",
    "about": "What is needed to recompute a head's attention from its stored vectors.",
    "columns": [
        {"name": "layer", "type": "INTEGER", "nullable": False, "meaning": "layer, from 0"}
    ],
    "partitions": [],
    "examples": ["SELECT layer, head, scaling FROM heads"],
}


@router.get(
    "/v1",
    response_class=Response,
    summary="This service",
    responses=shown({"version": VERSION, "service": "qkatlas 0.1.0", "links": LINKS}),
)
def show_service(reading: Whole) -> Response:
    """The version of the atlas and where to go from here."""
    return reading.reply({"service": f"qkatlas {version_of('qkatlas')}", "links": LINKS})


@router.get(
    "/v1/schema",
    response_class=Response,
    summary="Tables and views",
    responses=shown_page(SCHEMA_ROW),
)
def show_schema(reading: Whole) -> Response:
    """Each table and view with its columns, their meanings and units, and queries to try."""
    return reading.reply_rows(pa.Table.from_pylist(describe()))


@router.get("/healthz", summary="Is the process alive")
async def show_health() -> dict[str, bool]:
    """True as long as the server answers at all."""
    return {"alive": True}


@router.get("/readyz", summary="Can it answer")
async def show_readiness(request: Request, response: Response) -> dict[str, Any]:
    """The atlas's version, the workers for SQL and the layers of their sandbox that hold.

    Status 503 while there is no worker.
    """
    workers = request.app.state.pool.describe()
    layers = workers.pop("layers")
    ready = workers["idle"] + workers["running"] > 0
    response.status_code = 200 if ready else 503
    version, _ = request.app.state.service.current
    return {"ready": ready, "version": version, "workers": workers, "sandbox": layers}


@router.get("/metrics", response_class=Response, summary="Metrics for Prometheus")
def show_metrics(request: Request) -> Response:
    """Requests by route, latencies, outcomes of SQL and workers."""
    text = request.app.state.metrics.to_text()
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
