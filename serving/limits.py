"""The outermost layer of the application: bounds request bodies, counts and times requests."""

from __future__ import annotations

import json
import time

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.metrics import Metrics

MAX_BODY = 1 << 20
"""Bytes of a request body."""


class BodyTooLargeError(HTTPException):
    """A request body is larger than allowed, by its own word or while it was read."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, f"the request body is larger than {limit} bytes")


class Gate:
    """ASGI middleware: refuses bodies above `max_body` with 413 and records every request."""

    def __init__(self, app: ASGIApp, metrics: Metrics, max_body: int = MAX_BODY) -> None:
        self.app = app
        self.metrics = metrics
        self.max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, watched."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status, taken = time.perf_counter(), 500, 0

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
            await send(message)

        try:
            if _announced(scope) > self.max_body:
                raise BodyTooLargeError(self.max_body)
            await self.app(scope, limited, watched)
        except BodyTooLargeError as error:
            await _refuse(watched, error)
        finally:
            route = str(getattr(scope.get("route"), "path", "other"))
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.latency.labels(route).observe(time.perf_counter() - started)


def _announced(scope: Scope) -> int:
    """Return the content length that the client states, 0 if none or not a number."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


async def _refuse(send: Send, error: BodyTooLargeError) -> None:
    body = json.dumps({"error": error.detail, "problems": []}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": error.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": body})
