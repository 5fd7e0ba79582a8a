"""An experiment on the tiny log whose models are fitted, made without Ray: for the stages after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

from pipelines import evaluate as stage
from pipelines.train import run_directory, run_key
from recsys.config import ExperimentConfig, load_config
from recsys.data.sequences import SequenceStore, Split, TrainingData
from recsys.manifest import write_manifest
from recsys.models import CountingModel, build_model


@pytest.fixture
def fitted_experiment(
    write_config: Callable[..., Path],
    tiny_store: SequenceStore,
    tiny_split: Split,
    tiny_items: pl.DataFrame,
) -> ExperimentConfig:
    """A configuration whose stages up to train are finished; SASRec has its seeded first weights."""
    config = load_config(write_config(tracking={"enabled": False}))
    prepared, features = config.workspace / "prepared", config.workspace / "features"
    tiny_split.save(prepared / "splits" / "main")
    index = pl.Series("item", np.arange(1, len(tiny_items) + 1, dtype=np.int32))
    tiny_items.with_columns(index).write_parquet(prepared / "items.parquet")
    users = [f"u{user:02d}" for user in range(tiny_store.n_users)]
    pl.DataFrame({"user_id": users}).write_parquet(prepared / "users.parquet")
    (prepared / "splits" / "main" / "leakage.json").write_text('{"test": {"events": 40}}')
    rows = {"events": tiny_store.n_events, "users": tiny_store.n_users, "items": len(tiny_items)}
    meaning = {"target": "next_event", "config": {"data": config.data.model_dump(mode="json")}}
    write_manifest(prepared, {"key": "prepared", "rows": rows, **meaning})
    tiny_store.save(features / "sequences")
    write_manifest(features, {"key": "features"})
    for name in config.models:
        fit(config, name, tiny_store, tiny_split)
    return config


@pytest.fixture
def fit_model() -> Callable[..., None]:
    """The function that writes the run of a model without Ray."""
    return fit


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


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Run tasks in this process; returns the tasks that were run."""
    ran: list[Any] = []

    @contextmanager
    def no_session(config: object) -> Iterator[None]:
        yield

    def run_here(
        function: Callable[[Any], Any], items: list[Any], workers: int, title: str
    ) -> list[Any]:
        ran.extend(items)
        return [function(item) for item in items]

    monkeypatch.setattr(stage, "ray_session", no_session)
    monkeypatch.setattr(stage, "worker_count", lambda config: 1)
    monkeypatch.setattr(stage, "map_partitions", run_here)
    return ran
