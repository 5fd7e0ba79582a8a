"""Who may do what: a key for writing, and for reading where that is asked for."""

from __future__ import annotations

from fastapi import Request
from starlette.exceptions import HTTPException

from serving.service import Service

HEADER = "authorization: Bearer KEY"


def service_of(request: Request) -> Service:
    """Return the running service; 503 before the start and after the end."""
    service: Service | None = request.app.state.service
    if service is None:
        raise HTTPException(503, "the model is not loaded")
    return service


def may_read(request: Request) -> None:
    """Let a request read, if that is free or it has a key."""
    service = service_of(request)
    if service.settings.closed_reads:
        _ask_for_key(request, service)


def may_write(request: Request) -> None:
    """Let a request write, if it has a key or writing was made free."""
    service = service_of(request)
    if not service.settings.open_writes:
        _ask_for_key(request, service)


def may_change_state(request: Request) -> None:
    """Let a request write what is kept in the state directory."""
    may_write(request)
    if service_of(request).ledger is None:
        raise HTTPException(409, "this endpoint keeps no state; start it with --state DIRECTORY")


def _ask_for_key(request: Request, service: Service) -> None:
    if service.keys is None or not len(service.keys):
        raise HTTPException(
            403,
            "this needs an API key, and the endpoint has none; add one with `recsys keys add NAME` and "
            "start with --keys FILE, or start with --open-writes",
        )
    scheme, _, presented = request.headers.get("authorization", "").partition(" ")
    key = presented.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
    if service.keys.owner(key) is None:
        service.metrics.denied.inc()
        said = "is not valid" if key else "is missing"
        problem = f"the API key {said}; send it as the header {HEADER}"
        raise HTTPException(401, problem, headers={"www-authenticate": "Bearer"})
