"""What one process does for a run: count a model, or train it with others; and the record it leaves."""

from __future__ import annotations

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

from pipelines.fitting import fit_model, open_data, training_data
from pipelines.progress import record_epoch
from pipelines.tracking import Tracker, TrackerSettings
from pipelines.training_group import data_parallel
from pipelines.warm_start import FACTS
from recsys.config import parse_config

CHECKPOINTS = "checkpoints"
WEIGHTS = "model.safetensors"
HISTORY = "history.json"
RECORD = "run.json"


def count_model(settings: dict[str, Any]) -> None:
    """Fit a counting model and write its weights (a Ray task)."""
    import time

    from safetensors.torch import save_file

    from recsys.models import CountingModel, build_model

    config, work = parse_config(settings["config"]), Path(settings["directory"])
    store, split = open_data(config, settings["fold"], refit=settings["refit"])
    model = build_model(config.models[settings["name"]], store.n_items)
    if not isinstance(model, CountingModel):
        raise TypeError(f"{type(model).__name__} is not fitted by counting")
    began = time.perf_counter()
    model.fit(training_data(config, settings["name"], settings["fold"], store, split))
    metrics = {"train_seconds": time.perf_counter() - began}
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, work / WEIGHTS)
    (work / RECORD).write_text(json.dumps({"metrics": metrics, "epochs": 0}))


def train_worker(settings: dict[str, Any]) -> None:
    """Train a learned model in one process of a Ray Train group."""
    import ray.train

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    context = ray.train.get_context()
    train_process(settings, context.get_world_rank(), context.get_world_size())


def train_process(settings: dict[str, Any], rank: int = 0, world_size: int = 1) -> None:
    """Do what one of the processes that train together does; the first one leaves the result."""
    work = Path(settings["directory"])
    tracker = join_tracking(settings) if rank == 0 else None
    rows = fit_model(
        parse_config(settings["config"]),
        settings["name"],
        settings["fold"],
        work / CHECKPOINTS,
        refit=settings["refit"],
        epochs=settings["epochs"],
        stage_epochs=settings["stage_epochs"],
        on_epoch=partial(tell_epoch, work, tracker),
        trainer=data_parallel() if world_size > 1 else None,
        rank=rank,
        world_size=world_size,
    )
    if rank == 0:
        for name in (WEIGHTS, HISTORY):
            (work / CHECKPOINTS / name).replace(work / name)
        if (work / CHECKPOINTS / FACTS).is_file():
            (work / CHECKPOINTS / FACTS).replace(work / FACTS)
        _write_record(work, rows)


def tell_epoch(work: Path, tracker: Tracker | None, row: dict[str, float]) -> None:
    """Tell whoever waits for this training, and the tracking server, about an epoch."""
    record_epoch(work, row)
    if tracker is not None:
        tracker.log_epoch(row, int(row["epoch"]))


def join_tracking(settings: dict[str, Any]) -> Tracker | None:
    """Return a tracker that goes on with the stage's run, or None."""
    if settings["tracking"] is None:
        return None
    tracker = Tracker(TrackerSettings(**settings["tracking"]))
    tracker.start_run({}, {})
    return tracker


def _write_record(work: Path, rows: list[dict[str, float]]) -> None:
    """Write what the manifest says of a training: epochs, time, throughput, padding, best."""
    seconds = sum(row["seconds"] for row in rows)
    metrics = {
        "train_seconds": seconds,
        "validation_seconds": sum(row.get("validation_seconds", 0.0) for row in rows),
    }
    if learned := [
        row for row in rows if "loss" in row
    ]:  # none in a model that is used as it comes
        events = sum(row["events_per_second"] * row["seconds"] for row in learned)
        metrics |= {"events_per_second": events / seconds}
        metrics |= {"padding_share": learned[-1]["padding_share"]}
    if "texts_encoded" in rows[0]:
        metrics |= {"texts_encoded": rows[0]["texts_encoded"]}
    if validated := [row for row in rows if "ndcg@10" in row]:  # none in a refit
        best = max(validated, key=lambda row: row["ndcg@10"])
        metrics |= {"best_epoch": best["epoch"], "best_validation_ndcg@10": best["ndcg@10"]}
        metrics |= _stage_epochs(rows, best)
    (work / RECORD).write_text(json.dumps({"metrics": metrics, "epochs": len(learned)}))


def _stage_epochs(rows: list[dict[str, float]], best: dict[str, float]) -> dict[str, float]:
    """Return how many epochs of each stage led to the best one; nothing for a training without stages.

    Stage two begins from the best epoch of stage one, whose later epochs led nowhere.
    """
    if "stage" not in best:
        return {}
    first = [row for row in rows if row["stage"] == 1]
    judged = [row for row in first if "ndcg@10" in row]
    led = max(judged, key=lambda row: row["ndcg@10"])["epoch"] + 1 if judged else 0.0
    second = best["epoch"] - len(first) + 1 if best["stage"] == 2 else 0.0
    return {"stage_1_epochs": led, "stage_2_epochs": second}
