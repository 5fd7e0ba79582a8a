"""The train stage: one run directory per model, counted in a Ray task or trained by Ray Train.

A learned model is trained by Lightning inside Ray Train, data-parallel when `ray.train_workers` says
so. The workers write checkpoints into the stage's unfinished directory; a stage that was killed finds
them there and goes on.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pipelines.ray_session import map_partitions, ray_session
from pipelines.run_keys import model_of, run_directory, run_key
from pipelines.tracking import Tracker, code_tags, tracker_settings
from pipelines.training_group import run_workers
from pipelines.training_process import HISTORY, RECORD, count_model, train_worker
from pipelines.training_times import check_training_times
from pipelines.warm_start import check_warm_start, read_facts
from recsys.config import ExperimentConfig, dump_config
from recsys.errors import ArtifactError
from recsys.manifest import is_current, read_manifest, stage_directory


def train(config: ExperimentConfig, name: str, fold: str = "main", *, refit: bool = False) -> Path:
    """Fit the model `name` of the configuration and return its finished run directory.

    With `refit` it learns from the validation window as well, for as many epochs as were best in the
    run without, which must be finished.
    """
    config = config.anchored()
    directory = run_directory(config, name, fold, refit=refit)
    key = run_key(config, name, fold, refit=refit)
    if is_current(directory, key):
        return directory
    check_training_times(config, name, fold, refit=refit)
    check_warm_start(config, name, fold, refit=refit)
    with stage_directory(directory, key) as (work, manifest):
        (work / "config.yaml").write_text(dump_config(config), encoding="utf-8")
        tracker = _start_tracking(config, f"{name} refit" if refit else name, key, work)
        joined = replace(tracker.settings, run_id=tracker.run_id)
        settings = {
            "config": config.model_dump(mode="json"),
            "name": name,
            "fold": fold,
            "refit": refit,
            "epochs": best_epochs(config, name, fold) if refit else None,
            "stage_epochs": best_stage_epochs(config, name, fold) if refit else None,
            "directory": str(work),
            "tracking": None if tracker.run_id is None else asdict(joined),
        }
        with ray_session(config.ray):
            if hasattr(model_of(config, name), "training"):
                _train_learned(settings, config)
            else:
                list(map_partitions(count_model, [settings], workers=1, title=f"train {name}"))
        record = json.loads((work / RECORD).read_text())
        tracker.log_metrics(record["metrics"])
        for path in (work / "config.yaml", work / HISTORY):
            if path.is_file():
                tracker.log_artifact(path)
        tracker.finish()
        shutil.rmtree(work / "ray", ignore_errors=True)
        manifest.update(
            model=name,
            fold=fold,
            refit=refit,
            seed=config.seed,
            model_config=model_of(config, name).model_dump(mode="json"),
            mlflow_run=tracker.run_id,
            warm_start=read_facts(work),
            **record,
        )
    return directory


def best_epochs(config: ExperimentConfig, name: str, fold: str) -> int | None:
    """Return how many epochs a model's validated run found best; None if it is not learned."""
    directory = run_directory(config, name, fold)
    if not is_current(directory, run_key(config, name, fold)):
        raise ArtifactError(
            f"{name} must be trained and validated before it is fitted again ({directory} is missing "
            "or of another configuration); run `recsys train`"
        )
    best = read_manifest(directory)["metrics"].get("best_epoch")
    return None if best is None else int(best) + 1


def best_stage_epochs(config: ExperimentConfig, name: str, fold: str) -> list[int] | None:
    """Return the same for each stage of a training in stages; None for one without."""
    metrics = read_manifest(run_directory(config, name, fold))["metrics"]
    found = [metrics.get(f"stage_{stage}_epochs") for stage in (1, 2)]
    return None if None in found else [int(epochs) for epochs in found]


def _start_tracking(config: ExperimentConfig, title: str, key: str, work: Path) -> Tracker:
    """Start the run's record, or go on with the one that an interrupted stage began."""
    remembered = work / "mlflow_run"
    name = title.removesuffix(" refit")
    settings = tracker_settings(config, title)
    if remembered.is_file():
        settings = replace(settings, run_id=remembered.read_text())
    tracker = Tracker(settings)
    prepared = read_manifest(config.workspace / "prepared")
    tags = {"run_key": key, "data_hash": prepared["key"], "stage": "train", **code_tags()}
    tracker.start_run(config.models[name].model_dump(mode="json"), tags)
    if tracker.run_id is not None:
        remembered.write_text(tracker.run_id)
    return tracker


def _train_learned(settings: dict[str, Any], config: ExperimentConfig) -> None:
    model = model_of(config, settings["name"])
    epochs = settings["epochs"] or planned_epochs(model)
    run_workers(
        train_worker, settings, config.ray, model.training, epochs, f"train {settings['name']}"
    )


def planned_epochs(model: Any) -> int:
    """Return how many epochs a model's training has, if nothing stops it early."""
    stages = {"two": 2, "second": 1, "none": 0}[getattr(model, "stages", "second")]
    return stages * int(model.training.epochs)
