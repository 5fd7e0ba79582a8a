"""Finished runs, opened for the stages after training: the fitted model and the data it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.run_keys import run_directory, run_key
from recsys.config import ExperimentConfig, RollingSplit, TextVectorsConfig
from recsys.errors import ArtifactError
from recsys.manifest import is_current, read_manifest
from recsys.schema import SplitName

if TYPE_CHECKING:
    from recsys.data.sequences import SequenceStore, Split
    from recsys.models import Model


def folds(config: ExperimentConfig) -> list[str]:
    """Return the names of the split's folds in order; a plain split has one, `main`."""
    if isinstance(config.split, RollingSplit):
        return [f"fold{i}" for i in range(config.split.folds)]
    return ["main"]


def last_fold(config: ExperimentConfig) -> str:
    """Return the fold that has seen the most data; its runs are indexed and published."""
    return folds(config)[-1]


def dataset_name(config: ExperimentConfig, fold: str) -> str:
    """Return how rows of a report name the data: the experiment, with the fold if it has several."""
    return config.name if folds(config) == [fold] else f"{config.name}/{fold}"


def is_learned(config: ExperimentConfig, name: str) -> bool:
    """Tell whether a model is trained by gradient, and so has item vectors to index."""
    return hasattr(config.models[name], "training")


def has_vectors(config: ExperimentConfig, name: str) -> bool:
    """Tell whether a model's items have vectors, which one index can hold: learned ones, or frozen."""
    return is_learned(config, name) or isinstance(config.models[name], TextVectorsConfig)


@dataclass(frozen=True)
class Run:
    """A finished run; its parts are read when they are asked for."""

    config: ExperimentConfig
    name: str
    fold: str
    directory: Path
    refit: bool = False

    @property
    def key(self) -> str:
        """The hash of everything that made the run."""
        return str(self.manifest["key"])

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The run's manifest."""
        return read_manifest(self.directory)

    @cached_property
    def store(self) -> SequenceStore:
        """All events."""
        from recsys.data.sequences import SequenceStore

        return SequenceStore.load(self.config.workspace / "features" / "sequences")

    @cached_property
    def split(self) -> Split:
        """The run's fold; what trains in it is what the run learned from."""
        from recsys.data.sequences import Split

        split = Split.load(self.config.workspace / "prepared" / "splits" / self.fold)
        return split.refitted() if self.refit else split

    @cached_property
    def model(self) -> Model:
        """The fitted model, in evaluation mode, on the CPU."""
        from safetensors.torch import load_file

        from recsys.models import build_model

        model = build_model(self.config.models[self.name], self.store.n_items)
        model.load_state_dict(load_file(self.directory / "model.safetensors"))
        return model.eval()


def open_run(config: ExperimentConfig, name: str, fold: str, *, refit: bool = False) -> Run:
    """Return the finished run of a model; `ArtifactError` says to train it first."""
    directory = run_directory(config, name, fold, refit=refit)
    if not is_current(directory, run_key(config, name, fold, refit=refit)):
        raise ArtifactError(
            f"{name} is not trained with this configuration ({directory} is missing or of another); "
            "run `recsys train` first, or `recsys run` for all stages"
        )
    return Run(config, name, fold, directory, refit)


def asks_refitted(config: ExperimentConfig, split_name: SplitName) -> bool:
    """Tell whether a split's targets are asked of refitted runs, which have learned the validation's."""
    return config.refit and split_name == "test"


def asked_run(config: ExperimentConfig, name: str, fold: str, split_name: SplitName) -> Run:
    """Return the run of a model that a split's targets are asked of."""
    return open_run(config, name, fold, refit=asks_refitted(config, split_name))


def tested_run(config: ExperimentConfig, name: str, fold: str) -> Run:
    """Return the run that is tested, indexed and published: the refitted one, if there are such."""
    return asked_run(config, name, fold, "test")
