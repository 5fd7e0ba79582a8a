"""The tune command: one search per model on validation, all of the same budget, and its best setting.

A search is a directory `tune/<model>-<key>/` like that of any stage: `trials.parquet` (a row per trial),
`epochs.parquet` (a row per trial and epoch), `best.yaml` (to paste over the model in the configuration)
and a manifest. A search that was killed goes on when the same command runs again. Nothing but the
validation targets of the (first) fold decides: with several folds, those of the later ones are tested
by the earlier.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl
import yaml

from pipelines.progress import EPOCHS_FILE, read_epochs
from pipelines.ray_session import import_ray, ray_session
from pipelines.run_keys import run_key
from pipelines.runs import folds
from pipelines.search import (
    BEGUN,
    FAILED,
    STATE,
    TRIALS,
    Search,
    begun_trials,
    run_search,
)
from pipelines.tracking import Tracker, code_tags, tracker_settings
from pipelines.training_group import worker_resources
from pipelines.training_times import check_training_times
from recsys.config import ExperimentConfig, TuneConfig
from recsys.errors import ConfigError, RecsysError
from recsys.manifest import is_current, read_manifest, stable_hash, stage_directory

if TYPE_CHECKING:
    from rich.console import Console

STAGE_VERSION: Final = 1
DIRECTORY: Final = "tune"
BEST: Final = "best.yaml"
TRACKED: Final = "mlflow_run"


@dataclass(frozen=True)
class Trial:
    """What one trial tried and found; `ndcg` and `hr` are of its best epoch, None without a validation."""

    name: str
    settings: dict[str, Any]
    rows: list[dict[str, float]]
    failure: str | None

    @property
    def best(self) -> dict[str, float] | None:
        """The record of the epoch with the highest validation NDCG@10, the earlier of equal ones."""
        validated = [row for row in self.rows if "ndcg@10" in row]
        return max(validated, key=lambda row: row["ndcg@10"], default=None)

    def record(self, number: int) -> dict[str, Any]:
        """Return the trial as a row of the table."""
        best = self.best or {}
        seconds = sum(r["seconds"] + r.get("validation_seconds", 0.0) for r in self.rows)
        return {
            "trial": number,
            "ndcg@10": best.get("ndcg@10"),
            "hr@10": best.get("hr@10"),
            "best_epoch": None if not best else int(best["epoch"]) + 1,
            "epochs": len(self.rows),
            "seconds": seconds,
            "failure": self.failure,
            **self.settings,
        }


def tune_config(config: ExperimentConfig) -> TuneConfig:
    """Return the section `tune`, or say what it would look like."""
    if config.tune is None:
        raise ConfigError(
            "the configuration has no section tune; add one, such as\n"
            "  tune: {trials: 20, space: {sasrec: {training.lr: {log_uniform: [0.0001, 0.01]}}}}"
        )
    return config.tune


def search_directory(config: ExperimentConfig, name: str) -> Path:
    """Return where the search of a model lies, finished or not; needs the features stage."""
    return config.workspace / DIRECTORY / f"{name}-{search_key(config, name)[:8]}"


def search_key(config: ExperimentConfig, name: str) -> str:
    """Return the hash of everything that makes a search: what makes the model's run, space and budget."""
    tune = tune_config(config)
    budget = tune.model_dump(mode="json", exclude={"space", "models"})
    space = {key: values.model_dump(mode="json") for key, values in tune.space[name].items()}
    run = run_key(config, name, folds(config)[0])
    return stable_hash({"run": run, "space": space, "budget": budget, "version": STAGE_VERSION})


def tune_model(config: ExperimentConfig, name: str) -> Path:
    """Search the settings of a model and return the finished directory of the search."""
    tune = tune_config(config)
    config = config.anchored()
    directory, key = search_directory(config, name), search_key(config, name)
    if is_current(directory, key):
        return _without_state(directory)
    check_training_times(config, name, folds(config)[0])
    with stage_directory(directory, key) as (work, manifest):
        search = Search(config.model_dump(mode="json"), name, folds(config)[0], str(work))
        with ray_session(config.ray):
            one = config.ray.model_copy(update={"train_workers": 1})
            available = import_ray().cluster_resources()
            device = config.models[name].training.device  # type: ignore[union-attr]
            run_search(search, tune, worker_resources(one, device, available))
        trials = read_trials(work)
        best = best_of(trials, name)
        tables(trials, work)
        (work / BEST).write_text(best_yaml(config, name, trials[best].settings), encoding="utf-8")
        record_trials(config, name, trials, work)
        manifest.update(
            model=name,
            fold=folds(config)[0],
            seed=config.seed,
            budget=tune.model_dump(mode="json", exclude={"space", "models"}),
            best=trials[best].record(best),
            trials=len(trials),
            epochs=sum(len(trial.rows) for trial in trials),
        )
    return _without_state(directory)


def _without_state(directory: Path) -> Path:
    """Delete what a search goes on from; only when it is finished, for it may be killed at any time."""
    for left in (STATE, TRIALS):
        with suppress(FileNotFoundError):
            shutil.rmtree(directory / left)
    return directory


def read_trials(work: Path) -> list[Trial]:
    """Return the trials of an unfinished directory, in order of their numbers."""
    trials = []
    for path in begun_trials(work):
        failed = path / FAILED
        settings = json.loads((path / BEGUN).read_text(encoding="utf-8"))["settings"]
        reason = failed.read_text(encoding="utf-8") if failed.is_file() else None
        trials.append(Trial(path.name, settings, read_epochs(path / EPOCHS_FILE), reason))
    return trials


def best_of(trials: list[Trial], name: str) -> int:
    """Return the number of the trial with the highest validation NDCG@10, the earlier of equal ones.

    Raises:
        RecsysError: none gave a figure.
    """
    found = {i: best["ndcg@10"] for i, trial in enumerate(trials) if (best := trial.best)}
    if not found:
        reasons = dict.fromkeys(trial.failure for trial in trials if trial.failure)
        raise RecsysError(f"tune {name}: no trial gave a figure; " + "; ".join(reasons))
    return max(found, key=lambda i: (found[i], -i))


def tables(trials: list[Trial], work: Path) -> None:
    """Write `trials.parquet` and `epochs.parquet`."""
    rows = [trial.record(i) for i, trial in enumerate(trials)]
    types = {"failure": pl.String, "best_epoch": pl.Int64}
    table = pl.DataFrame(rows, infer_schema_length=None, schema_overrides=types)
    table.write_parquet(work / "trials.parquet")
    epochs = [{"trial": i, **row} for i, trial in enumerate(trials) for row in trial.rows]
    pl.DataFrame(epochs, infer_schema_length=None).write_parquet(work / "epochs.parquet")


def best_yaml(config: ExperimentConfig, name: str, settings: Mapping[str, Any]) -> str:
    """Return the best settings as YAML, with the epochs they were found with, and as overrides."""
    chosen = {**settings, "training.epochs": tune_config(config).epochs}
    nested: dict[str, Any] = {}
    for key, value in chosen.items():
        node = nested
        *parents, leaf = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    text: str = yaml.safe_dump({"models": {name: nested}}, sort_keys=False)
    overrides = " ".join(f"models.{name}.{key}={json.dumps(v)}" for key, v in chosen.items())
    return f"# As overrides: {overrides}\n{text}"


def record_trials(config: ExperimentConfig, name: str, trials: list[Trial], work: Path) -> None:
    """Record every trial in MLflow, once: what a killed recording has done already is left out."""
    tags = {"stage": "tune", "model": name, "search_key": search_key(config, name), **code_tags()}
    for i, trial in enumerate(trials):
        remembered = work / TRIALS / trial.name / TRACKED
        if remembered.is_file():
            continue
        tracker = Tracker(tracker_settings(config, f"tune {name} {i}"))
        tracker.start_run(trial.settings, tags | {"trial": str(i)})
        for row in trial.rows:
            tracker.log_epoch(row, int(row["epoch"]))
        if best := trial.best:
            tracker.log_metrics({"best_validation_ndcg@10": best["ndcg@10"]})
        tracker.finish("FAILED" if trial.failure else "FINISHED")
        remembered.write_text(tracker.run_id or "")


def print_searches(config: ExperimentConfig, console: Console) -> None:
    """Print the best setting of every searched model beside that of the configuration."""
    from rich.table import Table
    from rich.text import Text

    table = Table("model", "trials", "epochs", "NDCG@10", "settings", box=None, pad_edge=False)
    for name in tune_config(config).chosen:
        manifest = read_manifest(search_directory(config, name))
        found = manifest["best"]
        keys = tune_config(config).space[name]
        settings = " ".join(f"{key}={_short(found[key])}" for key in keys)
        counts = (str(manifest["trials"]), str(manifest["epochs"]))
        table.add_row(*map(Text, (name, *counts, f"{found['ndcg@10']:.4f}", settings)))
    console.print("\nvalidation, best trial of each model")
    console.print(table)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
