"""The application: routes, errors and the life of the worker around one bundle."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import polars as pl
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from recsys import __version__
from recsys.bundle import Bundle, load_bundle
from recsys.errors import DataError
from recsys.recommender import Query, Recommendation, Recommender
from serving.limits import Gate
from serving.metrics import Metrics
from serving.problems import problems_of, unreadable
from serving.schemas import (
    MAX_HISTORY,
    ErrorResponse,
    RecommendRequest,
    RecommendResponse,
    SimilarRequest,
    SimilarResponse,
)
from serving.worker import QueueFullError, Worker

log = logging.getLogger(__name__)

SIMILAR = "/v1/similar"
MAX_PROBLEMS = 20
"""Problems of one request that are told."""

Answer = Recommendation | dict[str, Recommendation]
ERRORS: dict[int | str, dict[str, Any]] = {
    413: {"model": ErrorResponse, "description": "The body is too large."},
    422: {"model": ErrorResponse, "description": "The request breaks a rule; each one is named."},
    503: {"model": ErrorResponse, "description": "Too many requests wait; try again shortly."},
}


class Service:
    """A loaded bundle with its worker: what the routes call."""

    def __init__(self, bundle: Bundle, metrics: Metrics, *, batch: int, waiting: int, threads: int):
        self.bundle = bundle
        self.metrics = metrics
        self.recommender = Recommender(bundle, metrics.observe_stage, max_history=MAX_HISTORY)
        self.model = {"name": bundle.name, "version": bundle.version}
        self.titles: dict[str, str | None] = {}
        if "title" in bundle.items.columns:
            titles = bundle.items["title"].cast(pl.String).to_list()
            self.titles = dict(zip(bundle.item_ids.ids.to_list(), titles, strict=True))
        self.worker: Worker[Query | SimilarRequest, Answer] = Worker(
            self.answer, batch=batch, waiting=waiting, threads=threads, observe=self._observe
        )
        metrics.model.labels(bundle.name, bundle.version).set(1)

    def answer(self, requests: Sequence[Query | SimilarRequest]) -> list[Answer]:
        """Answer what came together: the queries by one model call, likeness by one product."""
        lists = iter(self.recommender.recommend([r for r in requests if isinstance(r, Query)]))
        alike = [(r.items, r.k) for r in requests if not isinstance(r, Query)]
        found = iter(self.recommender.similar_batch(alike))
        return [next(lists) if isinstance(r, Query) else next(found) for r in requests]

    def ranked(self, found: Recommendation) -> list[dict[str, Any]]:
        """Return a list as plain mappings."""
        rows = found.rows()
        if self.titles:
            for row in rows:
                row["title"] = self.titles[row["item_id"]]
        return rows

    def _observe(self, size: int, waits: list[float]) -> None:
        self.metrics.batches.observe(size)
        for wait in waits:
            self.metrics.observe_stage("wait", wait)


def create_app(
    bundle: Path | str | Bundle, *, batch: int = 16, waiting: int = 256, threads: int = 1
) -> FastAPI:
    """Return the application for a bundle, which is loaded (if a path) when the server starts.

    Args:
        bundle: directory of a bundle, or a loaded one.
        batch: most requests that share one model call.
        waiting: most requests in the queue; beyond it the answer is 503.
        threads: compute threads of the model's worker.
    """
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loaded = bundle if isinstance(bundle, Bundle) else load_bundle(Path(bundle))
        service = Service(loaded, metrics, batch=batch, waiting=waiting, threads=threads)
        service.worker.start()
        app.state.service = service
        log.info("serving %s@%s", loaded.name, loaded.version)
        yield
        app.state.service = None
        service.worker.stop()

    app = FastAPI(title="recsys", version=__version__, lifespan=lifespan)
    app.state.service = None
    app.state.metrics = metrics
    app.add_middleware(Gate, metrics=metrics)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(DataError, _bad_data)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(QueueFullError, _busy)
    app.add_exception_handler(Exception, _unexpected)
    _add_recommendation(app)
    _add_operation(app)
    return app


def _add_recommendation(app: FastAPI) -> None:
    @app.post("/v1/recommend", response_model=RecommendResponse, responses=ERRORS)
    async def recommend(body: RecommendRequest, request: Request) -> Response:
        """Recommend for a history, known or new, or for a user in the bundle.

        An unknown user, or a history without any known item, gets the default list, and `fallback`
        says so.
        """
        service = _service(request)
        query, dropped = to_query(body)
        found = await service.worker.ask(query)
        if not isinstance(found, Recommendation):
            raise TypeError(f"a query was answered by {type(found).__name__}")
        if found.fallback:
            service.metrics.fallbacks.labels(found.fallback).inc()
        service.metrics.unknown.labels("history").inc(len(found.unknown))
        service.metrics.unknown.labels("allow").inc(len(found.unknown_allowed))
        service.metrics.unknown.labels("exclude").inc(len(found.unknown_excluded))
        content = {
            "model": service.model,
            "items": service.ranked(found),
            "unknown": found.unknown,
            "unknown_allowed": found.unknown_allowed,
            "unknown_excluded": found.unknown_excluded,
            "dropped_history": dropped,
            "fallback": found.fallback,
        }
        return JSONResponse(content)

    @app.post(SIMILAR, response_model=SimilarResponse, responses=ERRORS)
    async def similar(body: SimilarRequest, request: Request) -> Response:
        """Return the items most like each of the given ones, by the cosine of their vectors."""
        service = _service(request)
        found = await service.worker.ask(body)
        if isinstance(found, Recommendation):
            raise TypeError("a likeness was answered by a recommendation")
        unknown = service.recommender.unknown_items(body.items)
        service.metrics.unknown.labels("items").inc(len(unknown))
        lists = [{"item_id": item, "items": service.ranked(r)} for item, r in found.items()]
        return JSONResponse({"model": service.model, "lists": lists, "unknown": unknown})


def _add_operation(app: FastAPI) -> None:
    @app.get("/healthz")
    async def healthz() -> Response:
        """Say that the process is alive."""
        return JSONResponse({"status": "alive"})

    @app.get("/readyz", responses={503: {"model": ErrorResponse}})
    async def readyz(request: Request) -> Response:
        """Say whether requests are being answered."""
        service: Service | None = request.app.state.service
        if service is None or not service.worker.alive:
            return _error(503, "the model is not loaded")
        return JSONResponse({"status": "ready", "model": service.model})

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        """Return the counters in Prometheus' text format."""
        content: bytes = request.app.state.metrics.render()
        return Response(content, media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/model")
    async def model(request: Request) -> Response:
        """Return what is served: versions, sizes, metrics and how they were measured."""
        manifest = _service(request).bundle.manifest
        shown = ("name", "version", "created", "code_version", "model", "sizes", "index", "info")
        return JSONResponse({key: manifest[key] for key in shown})


def to_query(body: RecommendRequest) -> tuple[Query, int]:
    """Return the query of a request body and how many of its oldest events the model will not read.

    The query has them nevertheless: they are excluded as all of the history is.
    """
    events = body.history or []
    items = [event if isinstance(event, str) else event.item for event in events]
    times = [event.time for event in events if not isinstance(event, str)]
    query = Query(
        history=None if body.history is None else items,
        times=times or None,
        baskets=body.baskets,
        user_id=body.user_id,
        k=body.k,
        exclude=body.exclude,
        allow=body.allow,
        exclude_seen=body.exclude_seen,
        repeat_window=body.repeat_window,
    )
    return query, max(0, len(events) - MAX_HISTORY)


def _service(request: Request) -> Service:
    service: Service | None = request.app.state.service
    if service is None:
        raise HTTPException(503, "the model is not loaded")
    return service


def _error(status: int, message: str, problems: Sequence[dict[str, Any]] = ()) -> JSONResponse:
    headers = {"Retry-After": "1"} if status == 503 else None
    return JSONResponse({"error": message, "problems": list(problems)}, status, headers=headers)


async def _invalid(request: Request, error: Exception) -> Response:
    """Say what is wrong, where, what is allowed and what to do, without echoing a long request."""
    if not isinstance(error, RequestValidationError):
        raise TypeError(f"no error of validation: {type(error).__name__}") from error
    asked = SimilarRequest if request.url.path == SIMILAR else RecommendRequest
    found = problems_of(error, asked)
    shown = found[:MAX_PROBLEMS]
    more = f"; the first {len(shown)} of {len(found)} problems" if len(found) > len(shown) else ""
    return _error(422, f"the request is not valid{more}", shown)


async def _bad_data(request: Request, error: Exception) -> Response:
    return _error(422, str(error))


async def _http_error(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    if status == 400:  # what the framework makes of a body it could not read
        return _error(422, "the request is not valid", [unreadable(error.__cause__)])
    return _error(status, str(getattr(error, "detail", "error")))


async def _busy(request: Request, error: Exception) -> Response:
    request.app.state.metrics.refused.inc()
    return _error(503, "too many requests are waiting; try again shortly")


async def _unexpected(request: Request, error: Exception) -> Response:
    return _error(500, "internal error; the server's log has the details")
