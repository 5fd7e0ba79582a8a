"""The server process: one bundle at a time, one port, loopback unless told otherwise."""

from __future__ import annotations

import gc
import logging
import socket
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

from recsys.bundle import load_bundle
from recsys.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from serving.reload import Find
    from serving.settings import ServingSettings

KEEP_ALIVE: Final = 75
"""Seconds an idle connection stays open: longer than the usual 60 of a load balancer in front."""
GRACE: Final = 10
"""Seconds that requests at work have to end after the last signal."""


def serve(
    bundle: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    settings: ServingSettings | None = None,
    find: Find | None = None,
) -> None:
    """Serve until interrupted.

    Args:
        bundle: directory of the first bundle; verified before the port is opened.
        host: address to listen on; 0.0.0.0 opens it to the network.
        port: TCP port; 0 takes a free one, which is printed.
        settings: how; see `ServingSettings`.
        find: returns the bundle that should be served later on.

    Raises:
        ArtifactError: the bundle is damaged or foreign.
        ConfigError: the address cannot be listened on.
    """
    try:
        import uvicorn

        from serving.app import create_app
        from serving.logs import log_json
        from serving.settings import ServingSettings
    except ImportError as error:
        raise MissingExtraError(error.name or "fastapi", "serve") from error
    settings = settings or ServingSettings()
    loaded = load_bundle(bundle)
    app = create_app(loaded, settings, find)
    listener = _listen(host, port)
    shown, taken = listener.getsockname()[:2]
    print(
        f"serving {loaded.name}@{loaded.version} on http://{shown}:{taken} (docs: /docs)",
        flush=True,
    )
    # The catalogue lives as long as the process: keep the collector from walking it again and again.
    gc.collect()
    gc.freeze()
    log_json()
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        lifespan="on",
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
    )
    _draining(uvicorn.Server, config, app, settings.drain).run(sockets=[listener])


def _draining(
    kind: type[uvicorn.Server], config: uvicorn.Config, app: FastAPI, seconds: float
) -> uvicorn.Server:
    """Return a server that says it is not ready for so many seconds before it ends at a signal."""

    class Draining(kind):  # type: ignore[valid-type, misc]
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            service = app.state.service
            if service is None or service.draining or seconds <= 0:
                super().handle_exit(sig, frame)  # the second signal waits for nothing
                return
            service.draining = True
            timer = threading.Timer(seconds, super().handle_exit, (sig, frame))
            timer.daemon = True
            timer.start()

    server: uvicorn.Server = Draining(config)
    return server


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; the error names the address and what to do."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error}); choose another port, or 0 for a free one"
        ) from error
    return listener
