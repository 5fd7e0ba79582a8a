"""A server in this process, on loopback, and a client of it, for tests.

A real server and not the framework's test client, whose streams are closed by the threads of callers:
several of them can leave its event loop asleep for good.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from serving.app import create_app
from serving.service import Service
from serving.settings import ServingSettings

PATIENCE = 60
"""Seconds, far more than an answer takes."""


class Live:
    """An endpoint's client, and a look inside."""

    def __init__(self, client: httpx.Client, app: Any) -> None:
        self.client = client
        self._app = app

    @property
    def service(self) -> Service:
        service: Service = self._app.state.service
        return service

    def ask(self, **body: Any) -> dict[str, Any]:
        """Return the answer to a request for a list."""
        return self._good(self.client.post("/v1/recommend", json=body))

    def items(self, **body: Any) -> list[str]:
        """Return the items of the answer."""
        return [row["item_id"] for row in self.ask(**body)["items"]]

    def happen(self, *events: tuple[Any, ...], **more: Any) -> dict[str, Any]:
        """Send events `(user, item, time)`."""
        names = ("user_id", "item", "time")
        rows = [dict(zip(names, event, strict=False)) | more for event in events]
        return self._good(self.client.post("/v1/events", json={"events": rows}))

    def add(self, item: str, **body: Any) -> dict[str, Any]:
        """Add an item."""
        return self._good(self.client.post("/v1/items", json={"item_id": item, **body}), 201)

    def metric(self, name: str) -> float:
        """Return a line of the metrics as a number, 0 if it is not there."""
        for line in self.client.get("/metrics").text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def _good(self, response: Any, status: int = 200) -> Any:
        assert response.status_code == status, response.text
        return response.json()


@contextmanager
def live(bundle: Path, state: Path | None, find: Any = None, **settings: Any) -> Iterator[Live]:
    """Start an endpoint on a bundle, with open writes."""
    app = create_app(bundle, ServingSettings(state=state, open_writes=True, **settings), find)
    with served(app) as url, httpx.Client(base_url=url, timeout=PATIENCE) as client:
        yield Live(client, app)


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an application from a thread; yield its address when it is up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            app, lifespan="on", log_config=None, access_log=False, timeout_graceful_shutdown=5
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), name="server", daemon=True)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the server did not start"
                time.sleep(0.005)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive(), "the server does not end"
