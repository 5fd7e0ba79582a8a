"""An experiment on the tiny log whose models are fitted, made without Ray: for the stages after it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from made_experiment import finish_training, fit, run_stages_here

from recsys.config import ExperimentConfig, load_config
from recsys.data.sequences import SequenceStore, Split


@pytest.fixture
def fitted_experiment(
    write_config: Callable[..., Path],
    tiny_store: SequenceStore,
    tiny_split: Split,
    tiny_items: pl.DataFrame,
) -> ExperimentConfig:
    """A configuration whose stages up to train are finished; SASRec has its seeded first weights."""
    config = load_config(write_config(tracking={"enabled": False}))
    finish_training(config, tiny_store, tiny_split, tiny_items)
    return config


@pytest.fixture
def fit_model() -> Callable[..., None]:
    """The function that writes the run of a model without Ray."""
    return fit


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Run tasks in this process; returns the tasks that were run."""
    return run_stages_here(monkeypatch)
