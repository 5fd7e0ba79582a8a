"""The server process: one bundle, one port, loopback unless told otherwise."""

from __future__ import annotations

import gc
import socket
from pathlib import Path

from recsys.bundle import load_bundle
from recsys.errors import ConfigError, MissingExtraError

KEEP_ALIVE = 75
"""Seconds an idle connection stays open: longer than the usual 60 of a load balancer in front."""


def serve(
    bundle: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    batch: int = 16,
    waiting: int = 256,
    threads: int = 1,
    access_log: bool = False,
) -> None:
    """Serve a bundle until interrupted.

    Args:
        bundle: its directory; verified before the port is opened.
        host: address to listen on; 0.0.0.0 opens it to the network.
        port: TCP port; 0 takes a free one, which is printed.
        batch, waiting, threads: see `create_app`.
        access_log: write a line for every request.

    Raises:
        ArtifactError: the bundle is damaged or foreign.
        ConfigError: the address cannot be listened on.
    """
    try:
        import uvicorn

        from serving.app import create_app
    except ImportError as error:
        raise MissingExtraError(error.name or "fastapi", "serve") from error
    loaded = load_bundle(bundle)
    app = create_app(loaded, batch=batch, waiting=waiting, threads=threads)
    listener = _listen(host, port)
    shown, taken = listener.getsockname()[:2]
    print(
        f"serving {loaded.name}@{loaded.version} on http://{shown}:{taken} (docs: /docs)",
        flush=True,
    )
    # The catalogue lives as long as the process: keep the collector from walking it again and again.
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(
        app,
        log_level="info" if access_log else "warning",
        access_log=access_log,
        lifespan="on",
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=10,
    )
    uvicorn.Server(config).run(sockets=[listener])


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
