"""The `recsys` command. Nothing heavy is imported before a command needs it, so `--help` is instant.

A `RecsysError` ends a command with its message on stderr and exit code 2, without a trace. Relative
paths, those inside configurations included, start at the current directory.
"""

from __future__ import annotations

import logging
import sys

import typer

from pipelines.commands import data, experiment, lists, serve, studies
from pipelines.commands.playlists import playlists_app
from pipelines.environment import set_environment
from recsys.errors import RecsysError

app = typer.Typer(
    help="Sequential and playlist recommendation, from raw event logs to a live endpoint.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data.data_app, name="data")
app.add_typer(serve.keys_app, name="keys")
app.add_typer(playlists_app, name="playlists")

app.command()(experiment.run)
app.command()(experiment.prepare)
app.command()(experiment.features)
app.command()(experiment.train)
app.command()(experiment.index)
app.command()(experiment.evaluate)
app.command()(experiment.publish)
app.command()(experiment.tune)
app.command()(experiment.rolling)
app.command()(experiment.pretrain)
app.command()(experiment.promote)
app.command()(studies.compare)
app.command()(studies.study)
app.command()(studies.probe)
app.command()(serve.serve)
app.command()(serve.dashboard)
app.command("events")(serve.export_events)
app.command()(lists.recommend)
app.command("continue")(lists.continue_list)
app.command()(studies.frontier)
app.command("order-test")(studies.order_test)
app.command()(data.describe)
app.command()(data.doctor)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; the arguments are the process's own by default."""
    set_environment()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        app(args=arguments)
    except RecsysError as error:
        # Ray wraps a task's error and writes its trace into the message; `cause` is the original.
        typer.echo(f"error: {getattr(error, 'cause', error)}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
