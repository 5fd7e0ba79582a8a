"""The commands that open a page or an endpoint: `serve`, `dashboard`, and `keys` for API keys."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from serving.settings import ServingSettings

keys_app = typer.Typer(help="API keys of the endpoint.", no_args_is_help=True)
KeyFile = Annotated[Path, typer.Argument(metavar="FILE", help="File of keys, see serve --keys.")]


def serve(
    bundle: Annotated[
        str,
        typer.Argument(
            metavar="BUNDLE",
            help="A bundle, a directory of bundles (the newest counts), or models:/NAME@ALIAS.",
        ),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8000,
    watch: Annotated[
        float, typer.Option(help="Look for a newer bundle every so many seconds; 0: never.", min=0)
    ] = 0.0,
    state: Annotated[
        Path | None,
        typer.Option(help="Where events, new items and answers are kept; beside the bundles."),
    ] = None,
    features: Annotated[
        Path | None, typer.Option(help="Feature store to read from; the one beside the bundles.")
    ] = None,
    no_features: Annotated[
        bool, typer.Option("--no-features", help="Go by the bundle's histories.")
    ] = False,
    keys: Annotated[
        Path | None, typer.Option(help="File of API keys; keys.json in the state directory.")
    ] = None,
    open_writes: Annotated[
        bool, typer.Option("--open-writes", help="Let anybody write, without a key.")
    ] = False,
    closed_reads: Annotated[
        bool, typer.Option("--closed-reads", help="Ask for a key for reading, too.")
    ] = False,
    cors: Annotated[
        list[str] | None, typer.Option(help="Origin of web pages that may call; may be repeated.")
    ] = None,
    deadline: Annotated[
        float, typer.Option(help="Seconds after which a request is given up.", min=0.001)
    ] = 2.0,
    waiting: Annotated[int, typer.Option(help="Most requests in the queue.", min=1)] = 256,
    drain: Annotated[
        float, typer.Option(help="Seconds to be not ready before the end.", min=0)
    ] = 0.0,
    log_requests: Annotated[
        bool, typer.Option("--log-requests", help="Write a line for every request.")
    ] = False,
    ray: Annotated[
        bool, typer.Option("--ray", help="Under Ray Serve: more processes as the load asks.")
    ] = False,
    ray_address: Annotated[
        str | None, typer.Option(help="A Ray cluster for --ray; a local Ray without.")
    ] = None,
    replicas: Annotated[int, typer.Option(help="Most processes of --ray.", min=1)] = 2,
) -> None:
    """Answer POST /v1/recommend from a bundle until interrupted; / is a page to try it."""
    from serving.server import serve as run
    from serving.settings import ServingSettings

    find = finder(bundle)
    first = find()
    state = state or beside(first, "serving", writable=True)
    found = None if no_features else features or beside(first, "feast")
    settings = ServingSettings(
        waiting=waiting,
        deadline=deadline,
        state=state,
        features=found,
        keys=keys or (None if state is None else state / "keys.json"),
        open_writes=open_writes,
        closed_reads=closed_reads,
        cors=tuple(cors or ()),
        watch=watch,
        log_requests=log_requests,
        drain=drain,
    )
    tell(settings)
    if ray or ray_address is not None:
        from pipelines.serve_on_ray import serve_on_ray

        serve_on_ray(bundle, host, port, settings, replicas, ray_address)
        return
    run(first, host=host, port=port, settings=settings, find=find)


def finder(bundle: str) -> Callable[[], Path]:
    """Return a function that returns the bundle which a text means at the moment."""
    from pipelines.registry import alias_of, bundle_of_alias
    from recsys.published import find_bundle

    alias = alias_of(bundle)
    if alias is None:
        return lambda: find_bundle(Path(bundle))
    cache = Path(".cache") / "bundles"
    return lambda: bundle_of_alias(*alias, cache)


def beside(bundle: Path, name: str, *, writable: bool = False) -> Path | None:
    """Return a directory beside the directory of bundles, None if there is none.

    With `writable` it is made if that can be done.
    """
    import os

    from recsys.manifest import MANIFEST

    if bundle.parent.name != "bundles":
        return None
    workspace = bundle.parent.parent
    if writable:
        return workspace / name if os.access(workspace, os.W_OK) else None
    return workspace / name if (workspace / name / MANIFEST).is_file() else None


def tell(settings: ServingSettings) -> None:
    """Print what was found to stderr, so that nobody has to guess."""
    say = partial(typer.echo, err=True)
    if settings.state is None:
        say("state      none: events and new items are refused (--state DIRECTORY)")
    else:
        say(f"state      {settings.state}")
    say(f"features   {settings.features or 'of the bundle'}")
    if settings.open_writes:
        say("writes     open to everybody")
    else:
        say(f"writes     with a key of {settings.keys or 'no file'} (recsys keys add)")


def export_events(
    state: Annotated[Path, typer.Argument(help="State directory of an endpoint.")],
    output: Annotated[Path, typer.Option(help="Parquet file to write.")],
    impressions: Annotated[
        Path | None, typer.Option(help="Another, of what users were shown and what they clicked.")
    ] = None,
) -> None:
    """Write the live events of an endpoint as a file that `data.events` can list."""
    from serving.export import write_events, write_impressions

    count = write_events(state, output)
    typer.echo(f"{count} events  {output}")
    if impressions is not None:
        typer.echo(f"{write_impressions(state, impressions)} impressions  {impressions}")


@keys_app.command("add")
def add(file: KeyFile, name: Annotated[str, typer.Argument(help="Whose it is.")]) -> None:
    """Make a key and print it, this once; what is kept is its hash."""
    from serving.keys import add_key

    typer.echo(add_key(file, name))


@keys_app.command("list")
def show(file: KeyFile) -> None:
    """List the keys: id, when it was made, whose it is."""
    from serving.keys import read_keys

    for key in read_keys(file):
        typer.echo(f"{key.id}  {key.created}  {key.name}")


@keys_app.command("revoke")
def revoke(
    file: KeyFile, id: Annotated[str, typer.Argument(help="Of `recsys keys list`.")]
) -> None:
    """Take a key back; a running endpoint refuses it from its next request on."""
    from serving.keys import revoke_key

    revoke_key(file, id)


def dashboard(
    output: Annotated[Path, typer.Option(help="The directory of the experiments.")] = Path("out"),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8501,
    tracking: Annotated[
        str | None,
        typer.Option(help="MLflow's address; by default the database in the output directory."),
    ] = None,
) -> None:
    """Show what was measured in a browser until interrupted; it reads and changes nothing."""
    from serving.dashboard.server import serve_dashboard

    serve_dashboard(output, host, port, tracking)
