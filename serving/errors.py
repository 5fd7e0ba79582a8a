"""Answers to requests that cannot be answered: one form for all, with nothing of the inside in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from recsys.errors import DataError
from serving.continue_schemas import ContinueRequest
from serving.playlist_schemas import (
    PlaylistsForSongRequest,
    PlaylistSongsRequest,
    SimilarPlaylistsRequest,
)
from serving.problems import problems_of, unreadable
from serving.schemas import ErrorResponse, RecommendRequest, SimilarRequest
from serving.service import DeadlineError
from serving.worker import QueueFullError
from serving.write_schemas import EventsRequest, ItemRequest

MAX_PROBLEMS: Final = 20
"""Problems of one request that are told."""
RETRY: Final = (429, 503, 504)
"""Answers after which a client may try the same again."""

BODIES: Final[Mapping[str, type[BaseModel]]] = {
    "/v1/recommend": RecommendRequest,
    "/v1/similar": SimilarRequest,
    "/v1/playlists/continue": ContinueRequest,
    "/v1/playlists/similar": SimilarPlaylistsRequest,
    "/v1/playlists/songs": PlaylistSongsRequest,
    "/v1/playlists/for-song": PlaylistsForSongRequest,
    "/v1/events": EventsRequest,
    "/v1/items": ItemRequest,
}
"""Path -> what its body should be."""

DESCRIPTIONS: Final = {
    401: "The API key is missing or not valid.",
    403: "The endpoint takes no writes.",
    404: "There is no such thing.",
    409: "This contradicts what is there.",
    413: "The body is too large.",
    422: "The request breaks a rule; each one is named.",
    429: "Too many requests wait; try again shortly.",
    503: "The model is not loaded (yet).",
    504: "The answer took too long; try again.",
}


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the description of error answers for OpenAPI."""
    return {s: {"model": ErrorResponse, "description": DESCRIPTIONS[s]} for s in statuses}


READ: Final = described(401, 413, 422, 429, 503, 504)
WRITE: Final = described(401, 403, 409, 413, 422, 503)


def add_error_handlers(app: FastAPI) -> None:
    """Have the application answer its errors in one form."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(DataError, _bad_data)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(QueueFullError, _busy)
    app.add_exception_handler(DeadlineError, _late)


def error_answer(
    status: int,
    message: str,
    problems: Sequence[dict[str, Any]] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Return an answer that says what is wrong."""
    retry = {"Retry-After": "1"} if status in RETRY else {}
    content = {"error": message, "problems": list(problems)}
    return JSONResponse(content, status, headers={**retry, **(headers or {})})


async def _invalid(request: Request, error: Exception) -> Response:
    """Say what is wrong, where, what is allowed and what to do, without echoing a long request."""
    if not isinstance(error, RequestValidationError):
        raise TypeError(f"no error of validation: {type(error).__name__}") from error
    found = problems_of(error, BODIES.get(request.url.path, RecommendRequest))
    shown = found[:MAX_PROBLEMS]
    more = f"; the first {len(shown)} of {len(found)} problems" if len(found) > len(shown) else ""
    return error_answer(422, f"the request is not valid{more}", shown)


async def _bad_data(request: Request, error: Exception) -> Response:
    return error_answer(422, str(error))


async def _http_error(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    if status == 400:  # what the framework makes of a body it could not read
        return error_answer(422, "the request is not valid", [unreadable(error.__cause__)])
    headers = getattr(error, "headers", None)
    return error_answer(status, str(getattr(error, "detail", "error")), headers=headers)


async def _busy(request: Request, error: Exception) -> Response:
    request.app.state.metrics.refused.inc()
    return error_answer(429, "too many requests are waiting; try again shortly")


async def _late(request: Request, error: Exception) -> Response:
    request.app.state.metrics.late.inc()
    seconds = request.app.state.settings.deadline
    return error_answer(504, f"the answer took longer than {seconds:g} seconds; try again")
