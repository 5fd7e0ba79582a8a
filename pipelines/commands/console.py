"""What commands share: their configuration or bundle, arguments of several, a console to print on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from recsys.config import ExperimentConfig

Config = Annotated[Path, typer.Argument(help="YAML file of the experiment, see configs/.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings that replace those of the file."),
]
BundlePath = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="A bundle, or a directory of bundles.")
]
Groups = Annotated[int, typer.Option(help="Groups that avoid one another's items.", min=1)]
Beams = Annotated[int, typer.Option(help="Lists of each group.", min=1)]


def load(path: Path, overrides: list[str] | None) -> ExperimentConfig:
    """Return the configuration of a file, with settings that replace those in it."""
    from recsys.config import load_config

    config = load_config(path, overrides or [])
    if config.data.preset is not None:
        from recsys.data.catalogue import find_preset

        find_preset(config.data.preset)  # before Ray is started for a name that is not known
    return config


def open_console() -> Console:
    """Return where a command prints: as wide as the terminal, or wide enough for a log."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = (
            120  # a log file has no width of its own, and tables should not be cut to 80
        )
    return console


Times = Annotated[
    str | None,
    typer.Option(
        help="Seconds of the history's items, as many, separated by commas; for models that read times."
    ),
]


def split_times(text: str | None) -> list[int] | None:
    """Split `1,2,3`; None stays None."""
    if text is None:
        return None
    try:
        return [int(part) for part in split_ids(text)]
    except ValueError as error:
        raise typer.BadParameter(
            f"--times is {text!r}; it is whole seconds separated by commas, as 1700000000,1700000060"
        ) from error


def split_ids(text: str) -> list[str]:
    """Split `a,b,c`; an empty text is an empty list."""
    return [part.strip() for part in text.split(",") if part.strip()]
