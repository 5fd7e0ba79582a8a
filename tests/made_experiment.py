"""An experiment on the tiny log whose models are fitted, made without Ray: for the stages after it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from features.clock import ClockFacts, judge, observe
from pipelines import evaluate, index
from pipelines.run_keys import run_directory, run_key
from pipelines.runs import folds
from pipelines.statistics import statistics_name
from recsys.config import ExperimentConfig
from recsys.data.sequences import SequenceStore, Split, TrainingData
from recsys.manifest import write_manifest
from recsys.models import CountingModel, build_model


def finish_training(
    config: ExperimentConfig, store: SequenceStore, split: Split, items: pl.DataFrame
) -> None:
    """Write what the stages up to train would; SASRec has its seeded first weights."""
    prepared, features = config.workspace / "prepared", config.workspace / "features"
    split.save(prepared / "splits" / "main")
    index = pl.Series("item", np.arange(1, len(items) + 1, dtype=np.int32))
    items.with_columns(index).write_parquet(prepared / "items.parquet")
    users = [f"u{user:02d}" for user in range(store.n_users)]
    pl.DataFrame({"user_id": users}).write_parquet(prepared / "users.parquet")
    (prepared / "splits" / "main" / "leakage.json").write_text('{"test": {"events": 40}}')
    rows = {"events": store.n_events, "users": store.n_users, "items": len(items)}
    meaning = {"target": "next_event", "config": {"data": config.data.model_dump(mode="json")}}
    write_manifest(prepared, {"key": "prepared", "rows": rows, **meaning})
    store.save(features / "sequences")
    write_manifest(features, {"key": "features", "clock": clock_of(config, store)})
    for name in config.models:
        fit(config, name, store, split)


def clock_of(config: ExperimentConfig, store: SequenceStore) -> dict[str, Any]:
    """Return what the features stage says of a store's times."""
    users = np.repeat(np.arange(store.n_users), np.diff(store.offsets))
    facts = ClockFacts() if store.timestamps is None else observe(users, store.timestamps)
    names = [statistics_name(fold, refit) for fold in folds(config) for refit in (False, True)]
    return dict.fromkeys(names, judge(config.data.clock, facts).to_dict())


def fit(
    config: ExperimentConfig, name: str, store: SequenceStore, split: Split, *, refit: bool = False
) -> None:
    """Write the run of a model as the train stage would."""
    split = split.refitted() if refit else split
    torch.manual_seed(0)
    model = build_model(config.models[name], store.n_items)
    if isinstance(model, CountingModel):
        model.fit(TrainingData(store, split.train_end))
    directory = run_directory(config, name, refit=refit)
    directory.mkdir(parents=True)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, directory / "model.safetensors")
    write_manifest(directory, {"key": run_key(config, name, refit=refit), "mlflow_run": None})


EPOCHS = [
    {"epoch": 0, "loss": 3.25, "seconds": 2.0, "events_per_second": 900.0, "ndcg@10": 0.125},
    {"epoch": 1, "loss": 2.75, "seconds": 1.5, "events_per_second": 1100.0, "ndcg@10": 0.25},
]


def write_history(directory: Path, run: str) -> None:
    """Give a run the record of a training of two epochs."""
    (directory / "history.json").write_text(json.dumps({"epochs": EPOCHS}))
    took = {"train_seconds": 3.5, "validation_seconds": 0.5, "padding_share": 0.25, "best_epoch": 1}
    manifest = json.loads((directory / "manifest.json").read_text())
    write_manifest(directory, {**manifest, "epochs": 2, "metrics": took, "mlflow_run": run})


@contextmanager
def no_session(config: object) -> Iterator[None]:
    """Stand in for a Ray session."""
    yield


def run_stages_here(patch: pytest.MonkeyPatch) -> list[Any]:
    """Run the tasks of the index and evaluate stages in this process; return those that were run."""
    ran: list[Any] = []

    def run_here(
        function: Callable[[Any], Any], items: list[Any], workers: int, title: str
    ) -> list[Any]:
        ran.extend(items)
        return [function(item) for item in items]

    for stage in (evaluate, index):
        patch.setattr(stage, "ray_session", no_session)
        patch.setattr(stage, "map_partitions", run_here)
    patch.setattr(evaluate, "worker_count", lambda config: 1)
    return ran
