"""The same endpoint under Ray Serve: as many processes of it as the load asks for, behind one address.

Every replica is the whole application with a model of its own. They share the state directory, so an event
or a new item that one takes is known to all (the directory must be on one machine, or on a file system
that SQLite can lock). Each looks for new bundles by itself. One process alone answers several times
faster than Ray's proxy lets through, so this is for more load than one has room for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pipelines.ray_session import ray_session
from recsys.config import RayConfig

if TYPE_CHECKING:
    from serving.settings import ServingSettings

WATCH: Final = 5.0
"""Seconds between two looks for a bundle, where none are set: a request to look reaches one replica."""
BUSY: Final = 32
"""Requests at work in a replica at which another one is wanted."""


@contextmanager
def running_on_ray(
    bundle: str, host: str, port: int, settings: ServingSettings, replicas: int, address: str | None
) -> Iterator[None]:
    """Keep the endpoint running on a local Ray, or on the cluster at `address`.

    Args:
        bundle: as in `recsys serve`.
        host: address to listen on.
        port: port to listen on.
        settings: of every replica.
        replicas: most of them.
        address: of a Ray cluster.
    """
    with ray_session(RayConfig(address=address, workers=replicas + 1)):
        from ray import serve

        application = _application(bundle, replace(settings, watch=settings.watch or WATCH))
        deployment = serve.deployment(
            serve.ingress(application)(),
            name="recsys",
            autoscaling_config={
                "min_replicas": 1,
                "max_replicas": replicas,
                "target_ongoing_requests": BUSY,
            },
            max_ongoing_requests=settings.waiting,
            ray_actor_options={"num_cpus": 1},
            graceful_shutdown_timeout_s=10,
        )
        serve.start(http_options={"host": host, "port": port})
        try:
            serve.run(deployment.bind(), name="recsys", route_prefix="/")
            yield
        finally:
            serve.shutdown()


def serve_on_ray(
    bundle: str, host: str, port: int, settings: ServingSettings, replicas: int, address: str | None
) -> None:
    """Serve until interrupted."""
    with running_on_ray(bundle, host, port, settings, replicas, address):
        print(f"serving on http://{host}:{port}, up to {replicas} replicas", flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            return


def _application(bundle: str, settings: ServingSettings) -> Any:
    """Return a function that makes the application, called in every replica."""

    def build() -> Any:
        from pipelines.commands.serve import finder
        from serving.app import create_app
        from serving.logs import log_json

        log_json()
        find = finder(bundle)
        return create_app(find(), settings, find)

    return build
