"""Playlists: how a list, or the history of a user, may go on, and which published ones are like it."""

from __future__ import annotations

import secrets
from dataclasses import asdict

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response

from recsys.errors import DataError
from recsys.recommender import (
    Continuation,
    Continue,
    FoundPlaylists,
    PlaylistsForSong,
    Query,
    Recommendation,
    SearchSettings,
    SimilarPlaylists,
)
from serving.access import may_read, service_of
from serving.continue_schemas import ContinueRequest, ContinueResponse
from serving.errors import READ
from serving.playlist_schemas import (
    PlaylistsForSongRequest,
    PlaylistSongsRequest,
    PlaylistSongsResponse,
    PlaylistsResponse,
    SimilarPlaylistsRequest,
)
from serving.routes.recommend import count, history_of, history_source
from serving.service import Answer, Service
from serving.users import Known

router = APIRouter(prefix="/v1/playlists", dependencies=[Depends(may_read)])


@router.post("/continue", response_model=ContinueResponse, responses=READ)
async def continue_list(body: ContinueRequest, request: Request) -> Response:
    """Return several lists that may follow a history, in order, within the rules that are asked for.

    Rules that no list can hold to are refused and named. If the model fails, `source` names what the lists
    were made by instead: one for each group, without probabilities.
    """
    service = service_of(request)
    known = None
    if body.user_id is not None:
        known = await service.users.history(body.user_id, service.model.base)
    answer = await service.ask(to_continue(body, known))
    found = answer.found
    if not isinstance(found, Continuation):
        raise TypeError(f"a continuation was answered by {type(found).__name__}")
    request.state.stages = answer.stages
    count(service, answer, found)
    request_id = secrets.token_hex(8)
    if service.answers is not None:
        service.answers.write(
            {
                "request": request_id,
                "user": body.user_id,
                "lists": [one.items for one in found.lists],
                "strategy": "continue",
                "model": answer.model.label,
            }
        )
    content = {
        "request_id": request_id,
        "model": answer.model.version,
        "source": answer.source,
        "history_source": history_source(body, known, found.fallback),
        "lists": lists_of(answer, found),
        "exact": found.exact,
        "unknown": found.unknown,
        "unknown_allowed": found.unknown_allowed,
        "unknown_excluded": found.unknown_excluded,
        "unknown_previous": found.unknown_previous,
        "dropped_previous": found.dropped_previous,
        "texts": [asdict(text) for text in found.texts],
        "fallback": found.fallback,
    }
    return JSONResponse(content)


@router.post("/similar", response_model=PlaylistsResponse, responses=READ)
async def similar(body: SimilarPlaylistsRequest, request: Request) -> Response:
    """Return the published playlists most like a list, by the cosine of their vectors.

    Those of users who were deleted are in no answer, which is then shorter. If the model fails, `source`
    names what the list was made by instead: the songs in common, then songs that are alike.
    """
    service = service_of(request)
    _refuse_deleted(service, body.playlist)
    answer = await service.ask(SimilarPlaylists(body.items, body.playlist, body.k))
    return _playlists(answer, request)


@router.post("/for-song", response_model=PlaylistsResponse, responses=READ)
async def for_song(body: PlaylistsForSongRequest, request: Request) -> Response:
    """Return the published playlists that a song may go into, by the score that it has for each.

    If the model fails, `source` names what the list was made by instead: songs like it, then the lists
    that it shares with others.
    """
    service = service_of(request)
    answer = await service.ask(PlaylistsForSong(body.item, body.holding, body.k))
    return _playlists(answer, request)


@router.post("/songs", response_model=PlaylistSongsResponse, responses=READ)
async def songs(body: PlaylistSongsRequest, request: Request) -> Response:
    """Return the songs that a list may go on with, none that it holds.

    A published list has the times and baskets that it was published with, `items` have none: a model
    that reads times is asked by `playlist`, or by `/v1/recommend`.

    If the model fails, `source` names what the list was made by instead.
    """
    service = service_of(request)
    _refuse_deleted(service, body.playlist)
    if body.playlist is not None:
        service.model.recommender.playlists.check(body.playlist)
    query = Query(
        history=body.items if body.playlist is None else None,
        user_id=body.playlist,
        k=body.k,
        exclude=body.exclude,
        exclude_seen=True,
    )
    answer = await service.ask(query)
    found = answer.found
    if not isinstance(found, Recommendation):
        raise TypeError(f"a query was answered by {type(found).__name__}")
    count(service, answer, found)
    request.state.stages = answer.stages
    content = {
        "request_id": secrets.token_hex(8),
        "model": answer.model.version,
        "source": answer.source,
        "items": answer.model.ranked(found.items, found.scores),
        "unknown": found.unknown,
        "unknown_excluded": found.unknown_excluded,
        "fallback": found.fallback,
    }
    return JSONResponse(content)


def _refuse_deleted(service: Service, playlist: str | None) -> None:
    if playlist is not None and service.is_deleted(playlist):
        raise DataError(f"playlist {playlist!r} was deleted; send items instead")


def _playlists(answer: Answer, request: Request) -> Response:
    """Return the answer with playlists, and count what was unusual about it."""
    found = answer.found
    if not isinstance(found, FoundPlaylists):
        raise TypeError(f"playlists were asked for, but {type(found).__name__} was found")
    service = service_of(request)
    metrics = service.metrics
    metrics.sources.labels(answer.source).inc()
    metrics.unknown.labels("items").inc(len(found.unknown))
    if found.fallback:
        metrics.fallbacks.labels(found.fallback).inc()
    holds: list[bool | None] = [*found.holds] or [None] * len(found.playlists)
    every = zip(found.playlists, found.scores, holds, strict=True)
    kept = [row for row in every if not service.is_deleted(row[0])]
    rows = [
        {"playlist": name, "score": score, "rank": rank, "holds": held}
        for rank, (name, score, held) in enumerate(kept, 1)
    ]
    request.state.stages = answer.stages
    content = {
        "request_id": secrets.token_hex(8),
        "model": answer.model.version,
        "source": answer.source,
        "playlists": rows,
        "unknown": found.unknown,
        "repeated": found.repeated,
        "dropped": found.dropped,
        "fallback": found.fallback,
    }
    return JSONResponse(content)


def to_continue(body: ContinueRequest, known: Known | None) -> Continue:
    """Return what the recommender is asked; `known` as in `to_query` of recommendations."""
    items, times = history_of(body.history or [])
    history, user, before = (None if body.history is None else items), body.user_id, list[str]()
    if known is not None:
        history, user, before, times = [*known.items], None, known.before, known.times or None
    return Continue(
        history=history,
        times=times,
        baskets=body.baskets,
        user_id=user,
        steps=body.steps,
        settings=SearchSettings(
            groups=body.groups,
            beams=body.beams,
            diversity=body.diversity,
            dissimilarity=body.dissimilarity,
            candidates=body.candidates,
        ),
        exclude=body.exclude,
        allow=body.allow,
        exclude_seen=body.exclude_seen,
        repeat_window=body.repeat_window,
        before=before,
        previous=body.previous,
        required=body.required,
        at_most=body.at_most,
        label=body.label,
        gap=body.gap,
    )


def lists_of(answer: Answer, found: Continuation) -> list[dict[str, object]]:
    """Return the lists as plain mappings."""
    return [
        {
            "items": answer.model.ranked(one.items, one.gains),
            "log_probability": one.log_probability,
            "score": one.score,
            "group": one.group,
        }
        for one in found.lists
    ]
