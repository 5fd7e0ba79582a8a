"""`recsys rolling`: what daily updates of a model gain over a stale one, and lose to training anew.

The folds of a rolling split are the days. Day 0's model is fitted on all events before its test window, with
as many epochs as were best on its validation window. On every later day three ways are tested:

    stale     day 0's model, for good
    update    the model of the day before, warm-started (see `recsys.training.warm_start`) and trained for
              a few epochs, on the histories that have grown since, or on all
    retrain   a new model, fitted on all events before the day, with day 0's epochs

All know the same events when they are asked: histories go up to the target, whichever day that is. Fits
and rankings are kept by content, so a run that was killed goes on, and other settings of the update do
not train the other ways again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pipelines.fitting import fit_model, open_data
from pipelines.run_keys import run_key
from pipelines.runs import folds, is_learned
from pipelines.tracking import code_tags
from pipelines.training_times import check_training_times
from recsys.config import ExperimentConfig, RollingSplit
from recsys.errors import ConfigError
from recsys.manifest import is_current, read_manifest, stable_hash, stage_directory

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from recsys.data.sequences import SequenceStore, Split, TrainingData
    from recsys.evaluation.ranked import RankedTargets
    from recsys.training.warm_start import Earlier

STAGE_VERSION: Final = 2
RESULT: Final = "rolling.json"
WEIGHTS: Final = "model.safetensors"
RANKS: Final = "ranks.npz"
UPDATE_SHARE: Final = 0.2
"""Of the learning rate, in an update: at the whole of it a trained model may first forget what it knew."""
WAYS: Final = ("stale", "update", "retrain")
Histories = Literal["grown", "all"]


@dataclass(frozen=True)
class RollingSettings:
    """What is compared, beyond the configuration of the experiment.

    Attributes:
        model: name of the model; the first learned one by default.
        epochs: of an update.
        histories: that an update trains on: those with events since the day before, or all.
        lr: learning rate of an update; by default `UPDATE_SHARE` of the model's own.
    """

    model: str | None = None
    epochs: int = 2
    histories: Histories = "all"
    lr: float | None = None


def rolling(
    config: ExperimentConfig, settings: RollingSettings, console: Console | None = None
) -> Path:
    """Fit and test all days and return the finished directory with `rolling.json`.

    Raises:
        ConfigError: the split is not rolling, has a single fold, or no model is learned.
    """
    settings = _resolved(config, settings)
    days = _Days(config, settings, console)
    key = stable_hash({"days": days.keys, **asdict(settings), "version": STAGE_VERSION})
    directory = config.workspace / "rolling" / f"{days.name}-{key[:8]}"
    if is_current(directory, key):
        return directory
    check_training_times(config, days.name, days.folds[0])
    with stage_directory(directory, key) as (work, manifest):
        result = days.measure()
        (work / RESULT).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        manifest.update(model=days.name, settings=asdict(settings))
    return directory


def rolling_table(result: dict[str, Any]) -> Table:
    """Return the result as a table: a way and slice a row, figures with intervals, training seconds."""
    from rich.table import Table

    metrics = list(dict.fromkeys(row["metric"] for row in result["rows"]))
    table = Table("way", "targets", *metrics, "training", box=None, pad_edge=False)
    for part in dict.fromkeys(row["slice"] for row in result["rows"]):
        for way in WAYS:
            own = {r["metric"]: r for r in result["rows"] if (r["way"], r["slice"]) == (way, part)}
            cells = [f"{r['value']:.4f} [{r['low']:.4f}, {r['high']:.4f}]" for r in own.values()]
            seconds = f"{result['seconds'][way]:.0f} s" if part == "all" else ""
            number = next(iter(own.values()))["targets"]
            table.add_row(way, f"{part} ({number})", *cells, seconds)
    return table


def difference_lines(result: dict[str, Any]) -> list[str]:
    """Return the paired differences over all targets, in words."""
    return [
        f"{row['model_a']} - {row['model_b']}: {row['metric']} {row['difference']:+.4f} "
        f"[{row['low']:+.4f}, {row['high']:+.4f}], p = {row['p_holm']:.2g}"
        for row in result["differences"]
        if row["slice"] == "all"
    ]


class _Days:
    """One call of `rolling`."""

    def __init__(
        self, config: ExperimentConfig, settings: RollingSettings, console: Console | None
    ) -> None:
        self.config, self.settings, self.console = config, settings, console
        self.name = str(settings.model)
        self.folds = folds(config)
        self.keys = [run_key(config, self.name, fold, refit=True) for fold in self.folds]

    @cached_property
    def store(self) -> SequenceStore:
        """All events."""
        return open_data(self.config, self.folds[0])[0]

    @cached_property
    def splits(self) -> list[Split]:
        """The folds, as a model sees them that learns from everything before the test."""
        return [open_data(self.config, fold, refit=True)[1] for fold in self.folds]

    def data(self, day: int) -> TrainingData:
        """Return what may be learned from before a day's test."""
        from recsys.data.sequences import TrainingData

        return TrainingData(self.store, self.splits[day].train_end)

    def measure(self) -> dict[str, Any]:
        """Fit what is not fitted yet, rank, compare."""
        from recsys.evaluation.rolling import compare_days, day_figures

        epochs = self.best_epochs()
        first = self.retrained(0, epochs)
        models = {"stale": [first], "update": [first], "retrain": [first]}
        for day in range(1, len(self.folds)):
            models["stale"].append(first)
            models["update"].append(self.updated(day, models["update"][-1]))
            models["retrain"].append(self.retrained(day, epochs))
        ranked = {
            way: [self.ranked(day, cell) for day, cell in enumerate(cells)]
            for way, cells in models.items()
        }
        known = self.data(0).item_counts() > 0
        later = {way: days[1:] for way, days in ranked.items()}
        seconds = {
            way: 0.0 if way == "stale" else sum(_seconds(cell) for cell in cells[1:])
            for way, cells in models.items()
        }
        return {
            **self.facts(epochs),
            "seconds": seconds,
            "days": [
                self.day_facts(day)
                | {
                    way: day_figures(ranked[way][day]) | {"seconds": _seconds(models[way][day])}
                    for way in WAYS
                }
                for day in range(len(self.folds))
            ],
            **compare_days(later, known, self.config.evaluation, self.config.seed),
        }

    def best_epochs(self) -> int:
        """Return how many epochs validation finds best on day 0."""
        key = stable_hash({"chosen": run_key(self.config, self.name, self.folds[0])})
        cell = self._cell("chosen", key)
        if not is_current(cell, key):
            self._say("epochs are chosen on day 0's validation window")
            with stage_directory(cell, key) as (work, manifest):
                rows = fit_model(self.config, self.name, self.folds[0], work / "fit")
                best = max((r for r in rows if "ndcg@10" in r), key=lambda row: row["ndcg@10"])
                manifest.update(epochs=int(best["epoch"]) + 1, seconds=_spent(rows))
        return int(read_manifest(cell)["epochs"])

    def retrained(self, day: int, epochs: int) -> Path:
        """Return a new model of everything before a day's test."""
        key = stable_hash({"retrain": self.keys[day], "epochs": epochs})
        return self._fitted(f"retrain-{day}", key, self.config, day, epochs, None, {})

    def updated(self, day: int, before: Path) -> Path:
        """Return the model of the day before, gone on with."""
        from safetensors.torch import load_file

        settings = self.settings
        old = read_manifest(before)["key"]
        key = stable_hash({"update": self.keys[day], "from": old, **asdict(settings)})
        users = None
        if settings.histories == "grown":
            users = self.splits[day].train_end > self.splits[day - 1].train_end
        earlier = self._earlier(load_file(before / WEIGHTS), day - 1)
        config = self._update_config()
        return self._fitted(
            f"update-{day}", key, config, day, settings.epochs, earlier, {"users": users}
        )

    def _earlier(self, state: Any, day: int) -> Earlier:
        import numpy as np

        from recsys.training.warm_start import Earlier

        rows = np.arange(self.store.n_items + 1, dtype=np.int64)
        return Earlier(state, rows, self.data(day).item_counts() > 0, self.store.n_items)

    def _update_config(self) -> ExperimentConfig:
        """Return the configuration with the training of an update: its epochs are all its schedule."""
        model: Any = self.config.models[self.name]
        changes = {"epochs": self.settings.epochs, "lr": self.settings.lr}
        training = model.training.model_copy(update=changes)
        changed = model.model_copy(update={"training": training})
        models = {**self.config.models, self.name: changed}
        return self.config.model_copy(update={"models": models})

    def _fitted(
        self,
        title: str,
        key: str,
        config: ExperimentConfig,
        day: int,
        epochs: int,
        earlier: Earlier | None,
        plan: dict[str, Any],
    ) -> Path:
        """Return the cell of one fit, made if it is not there."""
        cell = self._cell(title, key)
        if is_current(cell, key):
            return cell
        self._say(f"{title}: {epochs} epochs")
        with stage_directory(cell, key) as (work, manifest):
            rows = fit_model(
                config, self.name, self.folds[day], work / "fit",
                refit=True, earlier=earlier, epochs=epochs, **plan,
            )  # fmt: skip
            (work / "fit" / WEIGHTS).replace(work / WEIGHTS)
            manifest.update(epochs=epochs, seconds=_spent(rows), loss=rows[-1]["loss"])
        return cell

    def ranked(self, day: int, cell: Path) -> RankedTargets:
        """Return where a model puts the targets of a day, from a file if it was asked before."""
        import numpy as np
        from safetensors.torch import load_file

        from recsys.evaluation.ranked import RankedTargets
        from recsys.evaluation.ranking import rank_targets
        from recsys.models import build_model

        rule = self.config.evaluation.model_dump(mode="json", include={"exclude", "repeats"})
        key = stable_hash({"model": read_manifest(cell)["key"], "day": self.keys[day], **rule})
        found = self._cell(f"ranks-{day}", key)
        if not is_current(found, key):
            with stage_directory(found, key) as (work, _):
                model = build_model(self.config.models[self.name], self.store.n_items)
                model.load_state_dict(load_file(cell / WEIGHTS))
                targets = self.splits[day].test
                ranks = rank_targets(
                    model.eval(), self.store, targets, self.config.evaluation, list_length=10
                )
                known = {name: v for name, v in vars(ranks).items() if v is not None}
                np.savez(work / RANKS, **known)
        with np.load(found / RANKS, allow_pickle=False) as stored:
            values = {name: stored[name] for name in stored.files}
        counts = {name: int(v) for name, v in values.items() if v.ndim == 0}
        return RankedTargets(**{**values, **counts})

    def facts(self, epochs: int) -> dict[str, Any]:
        """Return what the figures stand on."""
        return {
            "dataset": self.config.name,
            "model": self.name,
            "model_config": self.config.models[self.name].model_dump(mode="json"),
            "split": self.config.split.model_dump(mode="json"),
            "settings": asdict(self.settings),
            "epochs_of_retraining": epochs,
            "seed": self.config.seed,
            "items": self.store.n_items,
            "code": code_tags()["code_version"],
        }

    def day_facts(self, day: int) -> dict[str, Any]:
        """Return how much a day knows, and how much of it is new since the day before."""
        counts = self.data(day).item_counts()
        facts = {"day": day, "events": int(counts.sum()), "targets": len(self.splits[day].test)}
        if day:
            before = self.data(day - 1).item_counts()
            grown = self.splits[day].train_end > self.splits[day - 1].train_end
            facts["new_events"] = int(counts.sum() - before.sum())
            facts["new_items"] = int(((counts > 0) & (before == 0)).sum())
            facts["grown_histories"] = int(grown.sum())
        return facts

    def _cell(self, title: str, key: str) -> Path:
        return self.config.workspace / "rolling" / "cells" / f"{self.name}-{title}-{key[:8]}"

    def _say(self, text: str) -> None:
        if self.console is not None:
            self.console.print(f"rolling {self.name}: {text}", highlight=False, markup=False)


def _resolved(config: ExperimentConfig, settings: RollingSettings) -> RollingSettings:
    """Return the settings with model and learning rate said: keys and record tell what is done."""
    name = _model(config, settings)
    model: Any = config.models[name]
    lr = UPDATE_SHARE * model.training.lr if settings.lr is None else settings.lr
    return replace(settings, model=name, lr=lr)


def _model(config: ExperimentConfig, settings: RollingSettings) -> str:
    """Return the model that is rolled, or say why there is none."""
    if not isinstance(config.split, RollingSplit) or config.split.folds < 2:
        raise ConfigError(
            "rolling compares days, which are the folds of a rolling split; set split.kind to rolling, "
            "split.folds to at least 2 and split.window to the share of the events of a day, as in "
            "`recsys rolling CONFIG split.kind=rolling split.folds=6 split.window=0.03`"
        )
    if config.warm_start is not None:
        raise ConfigError("rolling makes its own warm starts; leave warm_start out")
    learned = [name for name in config.models if is_learned(config, name)]
    name = settings.model or (learned[0] if learned else None)
    if name not in learned:
        known = ", ".join(learned) or "none"
        raise ConfigError(f"{name!r} is no learned model of {config.name}; it has {known}")
    return name


def _seconds(cell: Path) -> float:
    return float(read_manifest(cell)["seconds"])


def _spent(rows: list[dict[str, float]]) -> float:
    return sum(row["seconds"] + row.get("validation_seconds", 0.0) for row in rows)
