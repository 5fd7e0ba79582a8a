"""The command `recsys pretrain`. Nothing heavy is imported before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[Path, typer.Argument(help="YAML file of the pre-training, see configs/.")]
Settings = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Settings that replace those of the file."),
]


def pretrain(config: ConfigFile, overrides: Settings = None) -> None:
    """Pre-train a text encoder over several data sets, for models of kind recformer."""
    from rich.console import Console

    from pipelines.pretrain import pretrain as pretrain_encoder
    from pipelines.summary import shown
    from recsys.config import load_pretrain_config

    console = Console()
    directory = pretrain_encoder(load_pretrain_config(config, overrides or []), console)
    console.print(f"pre-trained  {shown(directory)}", highlight=False, markup=False, soft_wrap=True)
