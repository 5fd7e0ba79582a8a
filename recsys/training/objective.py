"""Objectives: what a training step minimises. One Objective per way of learning; models stay plain."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from recsys.data.batches import SequenceBatch
from recsys.losses import Loss, SetLoss
from recsys.models.contract import EncoderModel


class Objective(nn.Module, ABC):
    """Maps (model, batch, progress) to a scalar loss."""

    @abstractmethod
    def forward(self, model: EncoderModel, batch: SequenceBatch, progress: float) -> Tensor:
        """Return the loss of one batch; `progress` runs from 0 to 1 over the planned training."""

    def reseed(self, seed: int) -> None:
        """Restart whatever the objective draws at random."""
        del seed

    def begin_epoch(self, model: EncoderModel) -> None:
        """Do what an epoch begins with, after `reseed`."""
        del model


class TargetPrediction(Objective):
    """Every place that has a target predicts it: the mean of `loss(query, target)` over those places.

    Which event is the target (the next one, one of the next basket) is the batch's business.
    """

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, model: EncoderModel, batch: SequenceBatch, progress: float) -> Tensor:
        """Return the mean loss over the batch's targets."""
        del progress
        chosen = batch.target_places  # [T]
        if batch.targets is None or chosen is None:
            raise ValueError("a training batch needs targets")
        queries = model.hidden(batch).flatten(0, 1)[chosen]  # [T, D]
        loss: Tensor = self.loss(queries, batch.targets.flatten()[chosen], model.encode_items())
        return loss

    def reseed(self, seed: int) -> None:
        """Restart the negative sampler."""
        self.loss.reseed(seed)


class SetPrediction(Objective):
    """Every place that has a target set predicts it: the mean of `loss(query, set)` over those places."""

    def __init__(self, loss: SetLoss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, model: EncoderModel, batch: SequenceBatch, progress: float) -> Tensor:
        """Return the mean loss over the batch's target sets."""
        del progress
        chosen = batch.target_places  # [T]
        if batch.target_sets is None or chosen is None:
            raise ValueError("a training batch needs target sets")
        queries = model.hidden(batch).flatten(0, 1)[chosen]  # [T, D]
        loss: Tensor = self.loss(queries, batch.target_sets, model.encode_items())
        return loss

    def reseed(self, seed: int) -> None:
        """Restart the negative sampler."""
        self.loss.reseed(seed)
