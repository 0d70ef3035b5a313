"""The ASGI app: the routes behind the gateway, and what lives as long as they do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version as version_of

import anyio.to_thread
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from api import (
    atlas_page_routes,
    embedding_atlas_routes,
    head_routes,
    mosaic_routes,
    mosaic_socket,
    sequence_routes,
    service_routes,
    sql_routes,
    typed_routes,
    viewer_page,
)
from api.gateway import Gateway
from api.metrics import Metrics
from api.pool import Pool
from api.problems import to_reply
from api.sandbox import NEEDED
from api.service import Service
from api.settings import ServeSettings
from api.viewer_sessions import ViewerSessions
from store.errors import ConfigError

ROUTERS = (
    service_routes,
    typed_routes,
    sequence_routes,
    head_routes,
    sql_routes,
    mosaic_routes,
    mosaic_socket,
    atlas_page_routes,
    embedding_atlas_routes,
    viewer_page,
)


def make_app(settings: ServeSettings) -> FastAPI:
    """The app of one server; opens the atlas.

    Its `state` has `settings`, `service`, `pool` and `metrics`; the pool runs during its lifespan.

    Raises:
        AtlasNotFoundError: there is no atlas.
        AtlasFormatError: it is damaged, foreign or newer than this program.
    """
    app = FastAPI(
        title="QK Atlas",
        description="Queries, keys and maps of attention heads, by URL and by SQL.",
        version=version_of("qkatlas"),
        lifespan=_live,
        docs_url=None,  # its page needs scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        root_path_in_servers=False,  # a root path may hold the token
        servers=[{"url": "."}],
    )
    app.state.settings = settings
    app.state.service = Service(settings)
    app.state.metrics = Metrics()
    app.state.viewer_sessions = ViewerSessions(settings)
    app.state.mosaic_shares = mosaic_routes.Shares(settings)
    for routes in ROUTERS:
        app.include_router(routes.router)
    # Only these need a handler: all else goes up to the gateway, which answers by `to_reply` too.
    app.add_exception_handler(HTTPException, _reply_to)
    app.add_exception_handler(RequestValidationError, _reply_to)
    app.add_middleware(
        Gateway, settings=settings, metrics=app.state.metrics, hidden=app.state.service.uri
    )
    return app


async def _reply_to(request: Request, error: Exception) -> Response:
    kind, reply = to_reply(error, request.state.request_id)
    request.state.problem = kind
    return reply


@asynccontextmanager
async def _live(app: FastAPI) -> AsyncIterator[None]:
    """Run the workers, follow the atlas, and end both."""
    settings: ServeSettings = app.state.settings
    service: Service = app.state.service
    anyio.to_thread.current_default_thread_limiter().total_tokens = settings.threads
    pool = app.state.pool = Pool(settings)
    try:
        await pool.start(service.current[1].snapshot)
        check_layers(settings, pool.describe()["layers"])
        app.state.metrics.watch_workers(pool.describe)
        app.state.viewer_sessions.start()
        following = asyncio.create_task(service.follow(pool.replace))
        yield
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
    finally:
        await app.state.viewer_sessions.stop()
        await pool.stop()
        service.close()


def check_layers(settings: ServeSettings, layers: dict[str, bool]) -> None:
    """Refuse to serve others from a sandbox that lacks a layer.

    Raises:
        ConfigError: names the layers, and the option that takes the risk.
    """
    missing = [name for name in NEEDED if not layers.get(name)]
    if missing and settings.needs_sandbox:
        raise ConfigError(
            f"this kernel gives SQL workers no {' and no '.join(missing)}: bind 127.0.0.1, or take "
            "the risk with --allow-weak-sandbox"
        )
