"""The command `recsys pretrain`. Nothing heavy is imported before it runs."""

from __future__ import annotations

from pipelines.console import Config, Overrides, open_console


def pretrain(config: Config, overrides: Overrides = None) -> None:
    """Pre-train a text encoder over several data sets, for models of kind recformer."""
    from pipelines.pretrain import pretrain as pretrain_encoder
    from pipelines.summary import shown
    from recsys.config import load_pretrain_config

    console = open_console()
    directory = pretrain_encoder(load_pretrain_config(config, overrides or []), console)
    console.print(f"pre-trained  {shown(directory)}", highlight=False, markup=False)
