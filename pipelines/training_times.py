"""Whether the training events have the times that a model reads."""

from __future__ import annotations

from pipelines.run_keys import model_of
from pipelines.statistics import times_off
from recsys.config import ExperimentConfig, check_clock, check_times
from recsys.manifest import read_manifest


def check_training_times(
    config: ExperimentConfig, name: str, fold: str, *, refit: bool = False
) -> None:
    """Refuse what the data's clock, or the times that a fold's training events have, do not carry.

    Needs the features stage; called before anything is trained.

    Raises:
        ConfigError: it names every setting, the reason, and what to do.
    """
    model = {name: model_of(config, name)}
    check_clock(model, read_manifest(config.workspace / "prepared")["config"]["data"]["clock"])
    check_times(model, times_off(config, fold, refit))
