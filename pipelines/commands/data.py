"""The commands to begin with: `describe` files, `data` for public sets, `doctor` for the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.commands.console import open_console

data_app = typer.Typer(help="Public data sets that have a preset.", no_args_is_help=True)


def describe(
    data: Annotated[list[str], typer.Argument(help="Parquet, CSV, TSV or JSON Lines; globs too.")],
) -> None:
    """Say what is in data files: columns, counts, time span, problems."""
    from recsys.data.describe import describe as describe_files

    open_console().print(describe_files(data).render())


def doctor(
    output: Annotated[Path, typer.Option(help="Where results will be written.")] = Path("out"),
) -> None:
    """Look at versions, cores, devices, memory and disk; say what is missing and how to get it."""
    from pipelines.doctor import examine, exit_code, render

    findings = examine(output)
    render(findings, open_console())
    raise typer.Exit(exit_code(findings))


@data_app.command("list")
def list_data() -> None:
    """List the presets and how each gets its files."""
    from rich.table import Table
    from rich.text import Text

    from recsys.data.catalogue import PRESETS

    table = Table("preset", "what", "how to get it", box=None, pad_edge=False)
    for preset in PRESETS.values():
        fetched = f"recsys data get {preset.name}" if preset.sources else preset.where
        table.add_row(*map(Text, (preset.name, preset.about, fetched)))
    open_console().print(table)


@data_app.command("get")
def get_data(name: Annotated[str, typer.Argument(help="A name of `recsys data list`.")]) -> None:
    """Get a data set, checksum verified, and print where it lies."""
    from recsys.data.download import get

    typer.echo(get(name))
