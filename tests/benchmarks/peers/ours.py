"""Our side of the training benchmark: the training module under Lightning, without validation."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
from side import Clock, Events, Settings, read_side, report

from recsys.config import LossConfig, SASRecConfig, TrainingConfig
from recsys.data.sequences import SequenceStore, TrainingData
from recsys.data.windows import TrainingBatches
from recsys.losses import build_loss
from recsys.models.sasrec import SASRec
from recsys.training.module import TrainingModule
from recsys.training.objective import TargetPrediction


class Counting(lightning.Callback):  # type: ignore[misc]
    """Tells the clock of every step."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, _: int
    ) -> None:
        self.clock.step(len(batch), int((batch.items > 0).sum()), batch.items.numel())


def main() -> None:
    """Train for so many steps and report."""
    settings, events = read_side()
    torch.set_num_threads(settings.threads)
    lightning.seed_everything(settings.seed, verbose=False)
    module, clock = make_module(settings, events), Clock(settings.warm_up)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_steps=settings.warm_up + settings.steps,
        gradient_clip_val=module.config.clip,
        callbacks=[Counting(clock)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    warnings.filterwarnings("ignore")
    trainer.fit(module)
    parameters = sum(weight.numel() for weight in module.model.parameters())
    report(clock.measured(), parameters, ("torch", "numpy", "pytorch-lightning"))


def make_module(settings: Settings, events: Events) -> TrainingModule:
    """Return the training module of a pre-norm SASRec with one window a user, as the peers have."""
    config = SASRecConfig(
        width=settings.width,
        blocks=settings.blocks,
        heads=settings.heads,
        max_length=settings.length,
        block="prenorm",
        ffn=1.0,
        dropout=settings.dropout,
    )
    loss = make_loss(settings)
    training = TrainingConfig(batch_size=settings.batch, windows="last", lr=settings.lr, loss=loss)
    store = SequenceStore(events.items.astype(np.int32), events.offsets, events.n_items)
    data = TrainingData(store, events.offsets[1:])
    batches = TrainingBatches(
        data, settings.length, settings.batch, windows="last", seed=settings.seed
    )
    counts = data.item_counts()
    tokens = len(events.items) // len(batches)
    objective = TargetPrediction(build_loss(loss, counts, tokens))
    return TrainingModule(SASRec(config, events.n_items), objective, training, batches)


def make_loss(settings: Settings) -> LossConfig:
    """Return the loss; as at the peers, sampling is not corrected for."""
    if settings.loss == "softmax":
        return LossConfig(kind="softmax")
    shared = settings.loss == "sampled_softmax_shared"
    return LossConfig(
        kind="sampled_softmax",
        negatives=settings.negatives,
        share="batch" if shared else "token",
        logq=False,
    )


if __name__ == "__main__":
    main()
