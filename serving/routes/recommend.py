"""Lists: recommendations for a history or a user, and items that are like others."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from recsys.recommender import Continuation, ItemText, Query, Recommendation, SearchSettings
from recsys.recommender.requests import UNKNOWN_USER
from serving.access import may_read, service_of
from serving.errors import READ
from serving.schemas import (
    MAX_HISTORY,
    Described,
    Event,
    HistoryBody,
    HistoryEvent,
    RecommendRequest,
    RecommendResponse,
    SimilarRequest,
    SimilarResponse,
)
from serving.service import Answer, Service
from serving.users import BUNDLE, Known

REQUEST, NOWHERE = "request", "none"
router = APIRouter(prefix="/v1", dependencies=[Depends(may_read)])


@router.post("/recommend", response_model=RecommendResponse, responses=READ)
async def recommend(body: RecommendRequest, request: Request) -> Response:
    """Recommend for a history, known or new, or for a user of the bundle or of live events.

    An unknown user, or a history without any known item, gets the default list, and `fallback` says so.
    If the model fails, `source` names what the list was made by instead.
    """
    service = service_of(request)
    began = time.perf_counter()
    known = None
    if body.user_id is not None:
        known = await service.users.history(body.user_id, service.model.base)
    looked_up = time.perf_counter()
    query, dropped = to_query(body, known)
    answer = await service.ask(query)
    found = answer.found
    if not isinstance(found, Recommendation):
        raise TypeError(f"a query was answered by {type(found).__name__}")
    count(service, answer, found)
    service.metrics.observe_stage("features", looked_up - began)
    request.state.stages = {"features": looked_up - began, **answer.stages}
    request_id = secrets.token_hex(8)
    if service.answers is not None:
        service.answers.write(logged(request_id, body, answer, found))
    content = {
        "request_id": request_id,
        "model": answer.model.version,
        "strategy": body.strategy,
        "source": answer.source,
        "history_source": history_source(body, known, found.fallback),
        "items": answer.model.ranked(found.items, found.scores),
        "unknown": found.unknown,
        "unknown_allowed": found.unknown_allowed,
        "unknown_excluded": found.unknown_excluded,
        "unknown_previous": found.unknown_previous,
        "dropped_history": dropped,
        "dropped_previous": found.dropped_previous,
        "texts": [asdict(text) for text in found.texts],
        "fallback": found.fallback,
    }
    return JSONResponse(content)


@router.post("/similar", response_model=SimilarResponse, responses=READ)
async def similar(body: SimilarRequest, request: Request) -> Response:
    """Return the items most like each of the given ones, by the cosine of their vectors.

    If the model fails, `source` names what the lists were made by instead.
    """
    service = service_of(request)
    answer = await service.ask(body)
    if not isinstance(answer.found, dict):
        raise TypeError(f"a likeness was answered by {type(answer.found).__name__}")
    model = answer.model
    unknown = model.recommender.unknown_items(body.items)
    service.metrics.unknown.labels("items").inc(len(unknown))
    lists = [
        {"item_id": item, "items": model.ranked(found.items, found.scores)}
        for item, found in answer.found.items()
    ]
    request.state.stages = answer.stages
    service.metrics.sources.labels(answer.source).inc()
    head = {"request_id": secrets.token_hex(8), "model": model.version, "source": answer.source}
    return JSONResponse({**head, "lists": lists, "unknown": unknown})


def to_query(body: RecommendRequest, known: Known | None = None) -> tuple[Query, int]:
    """Return the query of a request body and how many of its oldest events the model will not read.

    The query has them nevertheless: they are excluded as all of the history is. `known` is the user's
    history where it goes beyond the bundle's.
    """
    events = body.history or []
    items, times = history_of(events)
    query = Query(
        history=None if body.history is None else items,
        times=times,
        baskets=body.baskets,
        user_id=body.user_id,
        k=body.k,
        exclude=body.exclude,
        allow=body.allow,
        exclude_seen=body.exclude_seen,
        repeat_window=body.repeat_window,
        previous=body.previous,
        strategy=body.strategy,
        settings=SearchSettings(
            groups=body.groups,
            beams=body.beams,
            diversity=body.diversity,
            candidates=body.candidates,
        ),
        steps=body.steps,
    )
    if known is None:
        return query, max(0, len(events) - MAX_HISTORY)
    own = replace(
        query, user_id=None, history=known.items, times=known.times or None, before=known.before
    )
    return own, max(0, len(known.items) - MAX_HISTORY)


def history_of(events: Sequence[HistoryEvent]) -> tuple[list[str | ItemText], list[int] | None]:
    """Return the items of a history as the recommender takes them, and their times if they have any."""
    items: list[str | ItemText] = []
    times: list[int] = []
    for event in events:
        match event:
            case Event():
                items.append(event.item)
                times.append(event.time)
            case Described():
                items.append(ItemText(event.text))
                times += [] if event.time is None else [event.time]
            case _:
                items.append(event)
    return items, times or None


def history_source(body: HistoryBody, known: Known | None, fallback: str | None = None) -> str:
    """Return the name of where the history of an answer comes from, `none` where nobody knows the user."""
    if body.user_id is None:
        return REQUEST
    if fallback == UNKNOWN_USER:
        return NOWHERE
    return BUNDLE if known is None else known.source


def count(service: Service, answer: Answer, found: Recommendation | Continuation) -> None:
    """Count what was unusual about an answer."""
    metrics = service.metrics
    metrics.sources.labels(answer.source).inc()
    if found.fallback:
        metrics.fallbacks.labels(found.fallback).inc()
    metrics.unknown.labels("history").inc(len(found.unknown))
    metrics.unknown.labels("allow").inc(len(found.unknown_allowed))
    metrics.unknown.labels("exclude").inc(len(found.unknown_excluded))
    metrics.unknown.labels("previous").inc(len(found.unknown_previous))
    for text in found.texts:
        metrics.texts.labels("unreadable" if text.taken_as == "nothing" else "read").inc()
    metrics.unread.inc(found.dropped_previous)


def logged(
    request_id: str, body: RecommendRequest, answer: Answer, found: Recommendation
) -> dict[str, Any]:
    """Return the line of the log of answers."""
    history = None if body.history is None else history_of(body.history[-100:])[0]
    return {
        "request": request_id,
        "user": body.user_id,
        "history": None if history is None else [one for one in history if isinstance(one, str)],
        "items": found.items,
        "strategy": body.strategy,
        "source": answer.source,
        "model": answer.model.label,
    }
