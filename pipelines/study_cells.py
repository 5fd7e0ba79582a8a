"""The cells of a study: which there are, where they lie, and whether they are of what is configured now."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pipelines.evaluate import report_key
from pipelines.prepare import DIRECTORY as PREPARED
from pipelines.prepare import prepared_key
from pipelines.report_parts import write_rows
from pipelines.run_keys import run_key
from pipelines.upstream import stale_stage
from recsys.config import (
    ExperimentConfig,
    PublishConfig,
    StudyConfig,
    TrackingConfig,
    load_config,
)
from recsys.errors import ArtifactError, ConfigError, DataError, RecsysError
from recsys.manifest import file_hash, read_manifest, written_aside

CELLS, RUNS = "cells", "runs"
VERSION = 2
"""Of what a cell holds: its metrics, the metric of every target, the slices."""


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
    """A configured study and the experiments that it is made of.

    Attributes: stored: where finished cells are kept beside the study's own directory, if anywhere: read
        where it has none, and given each new one.
    """

    config: StudyConfig
    stored: Path | None = None
    _prepared_keys: dict[str, str] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def directory(self) -> Path:
        """Where everything of it is written."""
        return self.config.output / self.config.name

    @cached_property
    def experiments(self) -> dict[str, ExperimentConfig]:
        """The sets' experiments.

        Raises:
            ConfigError: one lacks the baseline, has several folds, a model is in none of them, or one
                under `once` learns.
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
        for model in self.config.once:
            for name, experiment in found.items():
                if hasattr(experiment.models.get(model), "training"):
                    raise ConfigError(
                        f"once: {model} learns in {name}, so one run does not stand for all seeds; put it "
                        "under models or against"
                    )
        for model in (*self.config.models, *self.config.once, *self.config.only_against):
            if not any(model in experiment.models for experiment in found.values()):
                raise ConfigError(f"model {model} is in none of the experiments of the sets")
        return found

    def compared(self) -> list[Cell]:
        """Return what is compared, in the order in which it is worth having.

        Of each seed the first two models on all sets, then the other ones; after the first seed's those
        of which one seed is enough.
        """
        names = self.config
        ordered: list[Cell] = []
        for seed in names.seeds:
            parts = [names.models[:2], names.models[2:]]
            if seed == names.seeds[0]:
                parts += [names.once, names.only_against]
            ordered += [Cell(s, m, seed) for some in parts for s in self.experiments for m in some]
        return [cell for cell in ordered if cell.model in self.experiments[cell.set].models]

    def cells(self) -> list[Cell]:
        """Return what is trained, in that order."""
        return list(dict.fromkeys(self.trained_for(cell) for cell in self.compared()))

    def trained_for(self, cell: Cell) -> Cell:
        """Return the cell that is trained for a compared one: its set's first model of equal settings."""
        models = self.experiments[cell.set].models
        first = next(name for name in models if models[name] == models[cell.model])
        return replace(cell, model=first)

    def aliases(self) -> dict[str, str]:
        """Return whose run it is, set/model by set/model, for the models that have no run of their own."""
        pairs = ((cell, self.trained_for(cell)) for cell in self.compared())
        return {
            f"{cell.set}/{cell.model}": f"{trained.set}/{trained.model}"
            for cell, trained in pairs
            if cell != trained
        }

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

    def prepared_key(self, cell: Cell) -> str:
        """Return the key of a cell's data as its set's configuration and files are; looked up once."""
        if cell.set not in self._prepared_keys:
            self._prepared_keys[cell.set] = prepared_key(self.experiment(cell))
        return self._prepared_keys[cell.set]

    def keys(self, cell: Cell) -> dict[str, Any]:
        """Return what a cell's figures are of.

        Raises:
            ArtifactError: its set is not prepared as it is configured.
            RecsysError: the input of the set, which is prepared, cannot be looked at any more.
        """
        config = self.experiment(cell)
        # Before the input is looked at, which a preset may have to fetch.
        read_manifest(config.workspace / PREPARED)
        if (stage := stale_stage(config, self.prepared_key(cell))) is not None:
            raise ArtifactError(
                f"{config.workspace / stage} is not of the configuration and the files as they are; "
                "run the study again for this set"
            )
        return {
            "k": self.config.k,
            "run": run_key(config, cell.model, refit=config.refit),
            "report": report_key(config),
            "version": VERSION,
        }

    def file(self, cell: Cell) -> Path:
        """Return where a cell's figures are written."""
        return self.directory / CELLS / f"{cell.name}.json"

    def found(self, cell: Cell) -> Path | None:
        """Return where there are figures of a cell as it is configured, its own or stored ones."""
        return next(
            (file for file in self._files(cell) if self._outdated(cell, file) is None), None
        )

    def has_figures(self, cell: Cell) -> bool:
        """Tell whether there are figures of a cell, whatever they are of."""
        return any(file.is_file() for file in self._files(cell))

    def outdated(self, cell: Cell) -> str | None:
        """Return why the figures that there are of a cell do not count; None without any."""
        return next((self._outdated(cell, f) for f in self._files(cell) if f.is_file()), None)

    def done(self) -> dict[Cell, Path]:
        """Return the trained cells that have figures as they are configured, in order, and their files."""
        found = ((cell, self.found(cell)) for cell in self.cells())
        return {cell: file for cell, file in found if file is not None}

    def keep(self, cell: Cell, file: Path) -> None:
        """Copy a finished cell's file and rows to where cells are stored, if they are not there."""
        if self.stored is None:
            return
        target = self._files(cell)[-1]
        # The figures come last: they tell that the other file is whole.
        for source, copy in ((rows_of(file), rows_of(target)), (file, target)):
            if copy.is_file() and file_hash(copy) == file_hash(source):
                continue
            copy.parent.mkdir(parents=True, exist_ok=True)
            with written_aside(copy) as aside:
                shutil.copy(source, aside)

    def _files(self, cell: Cell) -> list[Path]:
        others = [] if self.stored is None else [self.stored / CELLS / f"{cell.name}.json"]
        return [self.file(cell), *others]

    def _outdated(self, cell: Cell, file: Path) -> str | None:
        """Return why a file of figures does not count for a cell, in words."""
        if not file.is_file():
            return "there are no figures"
        figures = _read(file)
        try:
            if figures["keys"] != self.keys(cell):
                return "its data or settings have changed"
        except RecsysError as error:
            return f"its data are not there as configured ({error})"
        rows = rows_of(file)
        if not rows.is_file() or figures["rows"] != file_hash(rows):
            return f"{rows} is missing or not of these figures"
        return None


def rows_of(file: Path) -> Path:
    """Return where the targets are whose figures a file has."""
    return file.with_suffix(".parquet")


def _read(file: Path) -> dict[str, Any]:
    try:
        figures: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        known = {"keys", "rows", "metrics"} <= figures.keys()
    except (ValueError, AttributeError):
        known = False
    if not known:
        raise DataError(f"{file} holds no figures of a cell; delete it and run the study again")
    return figures


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(path) as aside:
        write_rows(aside, content)
