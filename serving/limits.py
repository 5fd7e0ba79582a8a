"""The outermost layer of the application: bounds bodies, counts, times, logs, and lets nothing slip out.

Every answer gets headers that keep browsers from doing more with it than they should. An error nobody
foresaw becomes a plain 500; the log tells its class and place, and no more.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.logs import place_of
from serving.metrics import Metrics

log = logging.getLogger(__name__)

MAX_BODY: Final = 1 << 20
"""Bytes of a request body."""

HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
)


class BodyTooLargeError(HTTPException):
    """A request body is larger than allowed, by its own word or while it was read."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, f"the request body is larger than {limit} bytes")


class Gate:
    """ASGI middleware around everything else.

    Args:
        app: what it lets requests through to.
        metrics: where they are counted.
        max_body: bytes of a body above which the answer is 413.
        log_requests: write a line for every request.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, max_body: int = MAX_BODY, log_requests: bool = False
    ) -> None:
        self.app = app
        self.metrics = metrics
        self.max_body = max_body
        self.log_requests = log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, watched."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status, taken = time.perf_counter(), 0, 0

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.max_body:
                raise BodyTooLargeError(self.max_body)
            return message

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)

        try:
            if _announced(scope) > self.max_body:
                raise BodyTooLargeError(self.max_body)
            await self.app(scope, limited, watched)
        except BodyTooLargeError as error:
            await _refuse(watched, error.status_code, error.detail)
        except Exception as error:
            log.error(
                "an unforeseen error", extra={"error": type(error).__name__, "at": place_of(error)}
            )
            if status == 0:
                await _refuse(watched, 500, "internal error; the server's log has the details")
        finally:
            self._record(scope, status or 500, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = str(getattr(scope.get("route"), "path", "other"))
        self.metrics.requests.labels(route, str(status)).inc()
        self.metrics.latency.labels(route).observe(seconds)
        if self.log_requests:
            stages: dict[str, float] = scope.get("state", {}).get("stages", {})
            about: dict[str, Any] = {"route": route, "status": status, "ms": _ms(seconds)}
            if stages:
                about["stages_ms"] = {name: _ms(taken) for name, taken in stages.items()}
            log.info("request", extra=about)


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 2)


def _announced(scope: Scope) -> int:
    """Return the content length that the client states, 0 if none or not a number."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


async def _refuse(send: Send, status: int, message: str) -> None:
    body = json.dumps({"error": message, "problems": []}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
