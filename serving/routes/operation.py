"""Running it: is it alive, is it ready, what does it count, which model is it, is there another."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from serving.access import may_read, may_write, service_of
from serving.errors import described, error_answer
from serving.reload import Reloader
from serving.schemas import MAX_HISTORY
from serving.service import Service
from serving.write_schemas import ReloadResponse

router = APIRouter()


@router.get("/healthz")
async def healthz() -> Response:
    """Say that the process is alive."""
    return JSONResponse({"status": "alive"})


@router.get("/readyz", responses=described(503))
async def readyz(request: Request) -> Response:
    """Say whether requests are being answered, and will be for a while."""
    service: Service | None = request.app.state.service
    if service is None or not service.worker.alive:
        return error_answer(503, "the model is not loaded")
    if service.draining:
        return error_answer(503, "the endpoint is about to end")
    return JSONResponse({"status": "ready", "model": service.model.version})


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Return the counters in Prometheus' text format."""
    service: Service | None = request.app.state.service
    counted = request.app.state.metrics
    if service is not None and service.writer is not None and service.ledger is not None:
        counted.unpushed.set(service.ledger.waiting())
    if service is not None and service.answers is not None:
        counted.unlogged.set(service.answers.dropped)
    content: bytes = counted.render()
    return Response(content, media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/model", dependencies=[Depends(may_read)], responses=described(401, 503))
async def model(request: Request) -> Response:
    """Return what is served: versions, sizes, metrics, how they were measured, what clients changed.

    `reads` says how many events of a history and how many lists before it (`previous`) the model reads,
    whether it reads `times`, which a history then must have, and which attributes of a text (`texts`;
    none of a model that reads no texts, or has failed to).
    """
    served = service_of(request).model
    manifest = served.base.manifest
    shown = ("name", "version", "created", "code_version", "model", "sizes", "index", "info")
    living = {
        "added": len(served.grown.placed),
        "waiting_for_a_model": len(served.grown.unplaced),
        "removed": len(served.living.removed),
    }
    reads = {
        "history": min(served.base.model.max_length, MAX_HISTORY),
        "times": served.base.model.reads_times,
        "previous": served.base.model.reads_previous,
        "texts": served.texts.attributes,
    }
    facts = {key: manifest[key] for key in shown}
    return JSONResponse({**facts, "reads": reads, "catalogue": living})


@router.post(
    "/v1/model/reload",
    response_model=ReloadResponse,
    dependencies=[Depends(may_write)],
    responses=described(401, 403, 503),
)
async def reload(request: Request) -> Response:
    """Look for another model now. It answers from when this returns; a damaged one never does."""
    service = service_of(request)
    reloader: Reloader = request.app.state.reloader
    came = await run_in_threadpool(reloader.reload)
    content = {"result": came.result, **service.model.version, "reason": came.reason}
    return JSONResponse(content)
