"""RecTools' side of the training benchmark: `SASRecModel.fit`, its defaults but for our settings."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as lightning
import torch
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from side import Clock, Events, Settings, read_side, report


class Counting(lightning.Callback):  # type: ignore[misc]
    """Tells the clock of every step."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, _: int
    ) -> None:
        items = batch["x"]
        self.clock.step(len(items), int((items > 0).sum()), items.numel())


def main() -> None:
    """Train for so many steps and report."""
    settings, events = read_side()
    torch.set_num_threads(settings.threads)
    lightning.seed_everything(settings.seed)
    warnings.filterwarnings("ignore")
    clock = Clock(settings.warm_up)
    model = make_model(settings)
    model._trainer = Uncopied(
        accelerator="cpu",
        max_steps=settings.warm_up + settings.steps,
        callbacks=[Counting(clock)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model.fit(make_dataset(events))
    parameters = sum(weight.numel() for weight in model.torch_model.parameters())
    report(clock.measured(), parameters, ("rectools", "torch", "numpy", "pytorch-lightning"))


class Uncopied(lightning.Trainer):  # type: ignore[misc]
    """A trainer whose copy is itself: RecTools copies it, and with it the callback's clock."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Uncopied:
        return self


def make_model(settings: Settings) -> SASRecModel:
    """Return the untrained model; `n_negatives` matters to the sampled losses only."""
    return SASRecModel(
        n_factors=settings.width,
        n_blocks=settings.blocks,
        n_heads=settings.heads,
        session_max_len=settings.length,
        batch_size=settings.batch,
        dropout_rate=settings.dropout,
        loss=settings.loss,
        n_negatives=settings.negatives,
        lr=settings.lr,
    )


def make_dataset(events: Events) -> Dataset:
    """Return the training events, whose order is their place in the file."""
    users = np.repeat(np.arange(len(events.offsets) - 1), np.diff(events.offsets))
    frame = pd.DataFrame({Columns.User: users, Columns.Item: events.items, Columns.Weight: 1.0})
    order = pd.to_timedelta(np.arange(len(frame)), unit="s")
    frame[Columns.Datetime] = pd.Timestamp("2000-01-01") + order
    return Dataset.construct(frame)


if __name__ == "__main__":
    main()
