"""The cells of a study: which there are, where they lie, and whether they are of what is configured now."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pipelines.evaluate import report_key
from pipelines.report_parts import write_rows
from pipelines.run_keys import run_key
from recsys.config import (
    ExperimentConfig,
    PublishConfig,
    StudyConfig,
    TrackingConfig,
    load_config,
)
from recsys.errors import ArtifactError, ConfigError
from recsys.manifest import file_hash, written_aside

CELLS, RUNS = "cells", "runs"


@dataclass(frozen=True)
class Cell:
    """What is trained and evaluated at once."""

    set: str
    model: str
    seed: int

    @property
    def name(self) -> str:
        """How it is called, and its file."""
        return f"{self.set}/{self.model}/{self.seed}"


@dataclass(frozen=True)
class Study:
    """A configured study and the experiments that it is made of."""

    config: StudyConfig

    @property
    def directory(self) -> Path:
        """Where everything of it is written."""
        return self.config.output / self.config.name

    @cached_property
    def experiments(self) -> dict[str, ExperimentConfig]:
        """The sets' experiments.

        Raises:
            ConfigError: one lacks the baseline, has several folds, or a model is in none of them.
        """
        found = {name: load_config(path) for name, path in self.config.sets.items()}
        for name, experiment in found.items():
            path = self.config.sets[name]
            if self.config.baseline not in experiment.models:
                raise ConfigError(
                    f"sets.{name}: {path} has no model {self.config.baseline}, which is the baseline; "
                    f"its models are {', '.join(experiment.models)}"
                )
            if experiment.split.kind == "rolling":
                raise ConfigError(
                    f"sets.{name}: {path} has a rolling split, but a study compares the targets of one "
                    "split; use another kind"
                )
            if self.config.k not in experiment.evaluation.ks:
                raise ConfigError(
                    f"sets.{name}: {path} does not measure at k = {self.config.k}; add it to its "
                    "evaluation.ks"
                )
        for model in (*self.config.models, *self.config.once):
            if not any(model in experiment.models for experiment in found.values()):
                raise ConfigError(f"model {model} is in none of the experiments of the sets")
        return found

    def asked(self) -> list[Cell]:
        """Return what is compared, in the order in which it is worth having.

        Of each seed the first two models on all sets, then the other ones; after the first seed's the
        models without chance and the ablations.
        """
        names, first = self.config, self.config.seeds[0]
        ordered: list[Cell] = []
        for seed in names.seeds:
            for some in (names.models[:2], names.models[2:]):
                ordered += [Cell(s, m, seed) for s in self.experiments for m in some]
            if seed == first:
                ordered += [Cell(s, m, seed) for s in self.experiments for m in names.once]
                ordered += [Cell(s, m, seed) for s in names.ablations for m in self.ablated(s)]
        return [cell for cell in ordered if cell.model in self.experiments[cell.set].models]

    def cells(self) -> list[Cell]:
        """Return what is trained, in that order."""
        return list(dict.fromkeys(self.trained(cell) for cell in self.asked()))

    def trained(self, cell: Cell) -> Cell:
        """Return the cell that is trained for one: its set's first model with the same settings."""
        models = self.experiments[cell.set].models
        first = next(name for name in models if models[name] == models[cell.model])
        return replace(cell, model=first)

    def same(self) -> dict[str, str]:
        """Return whose run it is, set/model by set/model, for the models that have no run of their own."""
        pairs = ((cell, self.trained(cell)) for cell in self.asked())
        return {
            f"{cell.set}/{cell.model}": f"{trained.set}/{trained.model}"
            for cell, trained in pairs
            if cell != trained
        }

    def ablated(self, name: str) -> list[str]:
        """Return the models of a set's experiment that lack a part, or have one more."""
        others = (*self.config.models, *self.config.once)
        return [model for model in self.experiments[name].models if model not in others]

    def experiment(self, cell: Cell) -> ExperimentConfig:
        """Return a cell's experiment: one model of its set's."""
        whole = self.experiments[cell.set]
        return whole.model_copy(
            update={
                "name": cell.set,
                "seed": cell.seed,
                "data_seed": whole.drawn_by,  # all seeds have the same targets, so they can be paired
                "output": self.directory / RUNS,
                "models": {cell.model: whole.models[cell.model]},
                "evaluation": whole.evaluation.model_copy(
                    update={"baseline": None, "splits": ["test"]}
                ),
                "publish": PublishConfig(model=cell.model),  # so validation need not choose one
                "tracking": TrackingConfig(enabled=False),
                "order_test": None,
                "tune": None,
            }
        )

    def file(self, cell: Cell) -> Path:
        """Return where a cell's figures are."""
        return self.directory / CELLS / f"{cell.name}.json"

    def rows(self, cell: Cell) -> Path:
        """Return where a cell's targets are."""
        return self.file(cell).with_suffix(".parquet")

    def done(self) -> list[Cell]:
        """Return the trained cells whose figures are those of the configuration, in their order."""
        return [cell for cell in self.cells() if is_done(self, cell)]


def is_done(study: Study, cell: Cell) -> bool:
    """Tell whether a cell's figures are of the prepared data and the settings as they are."""
    file, rows = study.file(cell), study.rows(cell)
    if not (file.is_file() and rows.is_file()):
        return False
    figures = json.loads(file.read_text(encoding="utf-8"))
    try:
        current = figures["keys"] == keys_of(study, cell)
    except ArtifactError:  # the set is not prepared
        return False
    return bool(current and figures["rows"] == file_hash(rows))


def keys_of(study: Study, cell: Cell) -> dict[str, Any]:
    """Return what a cell's figures are of; `ArtifactError` if the set's data are not prepared."""
    config = study.experiment(cell)
    return {
        "k": study.config.k,
        "run": run_key(config, cell.model, refit=config.refit),
        "report": report_key(config),
    }


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        write_rows(aside, content)
