"""The application: its routes, its errors, and the life of the service around the first model."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from recsys import __version__
from recsys.bundle import Bundle, load_bundle
from serving.errors import add_error_handlers
from serving.limits import Gate
from serving.metrics import Metrics
from serving.reload import Find, Reloader
from serving.routes import items, operation, page, playlists, recommend, users
from serving.service import Service
from serving.settings import ServingSettings

log = logging.getLogger(__name__)


def create_app(
    bundle: Path | str | Bundle,
    settings: ServingSettings | None = None,
    find: Find | None = None,
    **changes: Any,
) -> FastAPI:
    """Return the application for a bundle, which is loaded (if a path) when the server starts.

    Args:
        bundle: directory of a bundle, or a loaded one: the first model.
        settings: see `ServingSettings`.
        find: returns the bundle that should be served later on; the first one, if left out.
        changes: single settings, instead of `settings`.
    """
    settings = settings or ServingSettings(**changes)
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loaded = bundle if isinstance(bundle, Bundle) else load_bundle(Path(bundle))
        service = Service(loaded, settings, metrics)
        service.start()
        reloader = Reloader(service, find or (lambda: loaded.path), settings.watch)
        reloader.start()
        app.state.service, app.state.reloader = service, reloader
        log.info("serving", extra={"model": service.model.label})
        yield
        app.state.service = None
        reloader.stop()
        service.stop()

    # The framework's own pages load their scripts from the network; `/docs` is a page of ours.
    app = FastAPI(
        title="recsys", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.service, app.state.metrics, app.state.settings = None, metrics, settings
    app.add_middleware(Gate, metrics=metrics, log_requests=settings.log_requests)
    if settings.cors:
        _allow_origins(app, settings.cors)
    add_error_handlers(app)
    for routes in (recommend, playlists, users, items, operation, page):
        app.include_router(routes.router)
    return app


def _allow_origins(app: FastAPI, origins: tuple[str, ...]) -> None:
    """Let web pages of these origins call the endpoint; no cookies are involved."""
    from fastapi.middleware.cors import CORSMiddleware

    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["authorization", "content-type", "x-api-key"],
    )
