"""The commands that take an experiment from its files to a bundle, stage by stage or all at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.console import Config, Overrides, load, open_console

if TYPE_CHECKING:
    from pipelines.rolling import Histories


def run(config: Config, overrides: Overrides = None) -> None:
    """Run every stage that is not up to date; end with a table of the models and the bundle."""
    from recsys.config import is_study

    if is_study(config):
        from pipelines.commands.studies import study

        study(config, overrides)
        return
    from pipelines.stages import run_experiment

    run_experiment(load(config, overrides), open_console())


def prepare(config: Config, overrides: Overrides = None) -> None:
    """Read and check the raw files; write events, vocabularies and splits."""
    _run_stage("prepare", config, overrides)


def features(config: Config, overrides: Overrides = None) -> None:
    """Write packed sequences and the statistics of the training events."""
    _run_stage("features", config, overrides)


def train(config: Config, overrides: Overrides = None) -> None:
    """Fit every model; an interrupted training goes on where it was."""
    _run_stage("train", config, overrides)


def index(config: Config, overrides: Overrides = None) -> None:
    """Build the search index of every learned model and measure its recall."""
    _run_stage("index", config, overrides)


def evaluate(config: Config, overrides: Overrides = None) -> None:
    """Rank the full catalogue for every target of every model; write the report."""
    _run_stage("evaluate", config, overrides)


def publish(config: Config, overrides: Overrides = None) -> None:
    """Write the best model's bundle and register it."""
    _run_stage("publish", config, overrides)


def tune(config: Config, overrides: Overrides = None) -> None:
    """Search settings on validation, by the same budget for every model of the section `tune`."""
    from pipelines.stages import run_tune

    run_tune(load(config, overrides), open_console())


def rolling(
    config: Config,
    overrides: Overrides = None,
    model: Annotated[str | None, typer.Option(help="By default the first learned one.")] = None,
    epochs: Annotated[int, typer.Option(help="Of a daily update.", min=1)] = 2,
    histories: Annotated[
        str, typer.Option(help="That an update learns from: grown (since the day before) or all.")
    ] = "all",
    lr: Annotated[
        float | None, typer.Option(help="Of an update; else a fifth of the model's own.")
    ] = None,
) -> None:
    """Compare daily updates of a model with a stale one and with training anew, over a rolling split."""
    if histories not in ("grown", "all"):
        raise typer.BadParameter(f"--histories is {histories!r}; it is grown or all")
    from pipelines.rolling import RollingSettings
    from pipelines.stages import run_rolling

    which: Histories = "grown" if histories == "grown" else "all"
    run_rolling(load(config, overrides), RollingSettings(model, epochs, which, lr), open_console())


def pretrain(config: Config, overrides: Overrides = None) -> None:
    """Pre-train a text encoder over several data sets, for models of kind recformer."""
    from pipelines.pretrain import pretrain as pretrain_encoder
    from pipelines.summary import shown
    from recsys.config import load_pretrain_config

    console = open_console()
    directory = pretrain_encoder(load_pretrain_config(config, overrides or []), console)
    console.print(f"pre-trained  {shown(directory)}", highlight=False, markup=False)


def promote(config: Config, overrides: Overrides = None) -> None:
    """Make the candidate the champion if it is not worse on the guard metrics; exit code 1 if refused."""
    from pipelines.promote import promote as promote_candidate
    from pipelines.summary import print_promotion

    outcome = promote_candidate(load(config, overrides))
    print_promotion(outcome, open_console())
    if not outcome.promoted and outcome.guards:
        raise typer.Exit(1)


def _run_stage(stage: str, config: Path, overrides: list[str] | None) -> None:
    from pipelines.stages import run_stage

    run_stage(load(config, overrides), stage, open_console())
