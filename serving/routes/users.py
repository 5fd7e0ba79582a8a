"""Users: what just happened to them, and that nothing is to be known of them any more."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response

from serving.access import may_change_state, service_of
from serving.errors import WRITE
from serving.ledger import Happening
from serving.rules import MAX_ID
from serving.write_schemas import DeletedResponse, EventsRequest, EventsResponse

router = APIRouter(prefix="/v1", dependencies=[Depends(may_change_state)])
UserId = Annotated[str, Path(min_length=1, max_length=MAX_ID, description="External user id.")]


@router.post("/events", response_model=EventsResponse, responses=WRITE)
async def add_events(body: EventsRequest, request: Request) -> Response:
    """Say what happened. It is on the disk when this is answered, and in the users' next lists.

    The same event sent again counts once.
    """
    service = service_of(request)
    if service.ledger is None:
        raise RuntimeError("no ledger")
    now = int(time.time())
    happenings = [
        Happening(
            event.user_id,
            event.item,
            now if event.time is None else event.time,
            event.event_id,
            event.request_id,
        )
        for event in body.events
    ]
    accepted = await run_in_threadpool(service.ledger.append, happenings)
    if service.writer is not None:
        service.writer.wake()
    service.metrics.events.labels("accepted").inc(accepted)
    service.metrics.events.labels("repeated").inc(len(happenings) - accepted)
    items = list(dict.fromkeys(event.item for event in body.events))
    unknown = service.model.recommender.unknown_items(items)
    content = {"accepted": accepted, "repeated": len(happenings) - accepted, "unknown": unknown}
    return JSONResponse(content)


@router.delete("/users/{user_id:path}", response_model=DeletedResponse, responses=WRITE)
async def delete_user(user_id: UserId, request: Request) -> Response:
    """Delete the live events of a user, its row in the feature store and its lines in the log.

    What a bundle knows of the user is not used any more; events from now on are those of a stranger.
    """
    service = service_of(request)
    if service.ledger is None:
        raise RuntimeError("no ledger")
    await run_in_threadpool(service.ledger.delete_user, user_id)
    if service.writer is not None:
        service.writer.delete(user_id)
    if service.answers is not None:
        await run_in_threadpool(service.answers.forget, user_id)
    return JSONResponse({"user_id": user_id, "deleted": True})
