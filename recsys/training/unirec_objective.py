"""How UniRec learns: every branch predicts, the global term predicts, and the two enhancements.

    loss = sum_b loss(z_b) + 0.1 BCE(glob / temperature) + SE + IE_F + IE_L

where `loss` is any of the loss menu, with the same temperature; the published one is BCE with one
negative, without one. Gradients clip and schedules are the training's. Shapes: T places with a target,
B sequences, N negatives, D width.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.data.batches import SequenceBatch
from recsys.data.sequences import TrainingData
from recsys.data.statistics import TrainingStatistics
from recsys.errors import ArtifactError
from recsys.losses import Loss, NegativeSampler
from recsys.models.contract import EncoderModel
from recsys.models.global_term import history_part, own_part
from recsys.models.unirec import UniRec
from recsys.training.enhancements import (
    ItemEnhancement,
    SequenceEnhancement,
    neighbours_of,
    rare_in_parts,
    rare_items,
    regular_users,
)
from recsys.training.objective import Objective
from recsys.training.schedules import rare_weight

GLOBAL_NEGATIVES: Final = 16


class UniRecObjective(Objective):
    """The base loss on every branch, and the parts that the model's configuration switches on.

    Args:
        model: the model that will be trained; with `inject_tail` it is told which items are rare and
            their neighbours.
        loss: the base loss.
        data: what may be learned from.
        statistics: of the training events; None is enough where no part reads them.

    Raises:
        ArtifactError: a part that is on needs statistics which are not there.
    """

    def __init__(
        self,
        model: UniRec,
        loss: Loss,
        data: TrainingData,
        statistics: TrainingStatistics | None,
    ) -> None:
        super().__init__()
        config = model.config
        self.config = config
        self.loss = loss
        # What an earlier training read as made of neighbours goes on to be read so.
        self.injected = float(model.injected) if model.goes_on else 0.0
        counts = data.item_counts()
        self.sampler = NegativeSampler("uniform", counts, GLOBAL_NEGATIVES, shared=False)
        self.sequences: SequenceEnhancement | None = None
        self.items: ItemEnhancement | None = None
        if not config.needs_statistics:
            return
        found = _needed(statistics)
        if config.sequence_enhancement:
            regular, rare = regular_users(config, found), rare_in_parts(config, found)
            self.sequences = SequenceEnhancement(config, regular, rare)
        if config.item_enhancement:
            self.items = ItemEnhancement(config, found, model.enhancer)
        if model.enhancer is not None:
            model.neighbours.copy_(torch.from_numpy(neighbours_of(config, found)))
            model.is_rare.copy_(torch.from_numpy(rare_items(config, found)))

    def forward(self, model: EncoderModel, batch: SequenceBatch, progress: float) -> Tensor:
        """Return the sum of all parts."""
        assert isinstance(model, UniRec)
        chosen = batch.target_places  # [T]
        if batch.targets is None or chosen is None:
            raise ValueError("a training batch needs targets")
        if model.enhancer is not None:
            model.injected.fill_(max(self.injected, rare_weight(progress)))
        targets, table = batch.targets.flatten()[chosen], model.encode_items()
        branches = model.branches(batch)

        def predict(encodings: Tensor, wanted: Tensor) -> Tensor:
            loss: Tensor = self.loss(model.queries_of(encodings), wanted, table)
            return loss

        loss = torch.stack([predict(b.flatten(0, 1)[chosen], targets) for b in branches]).sum()
        if self.config.global_term:
            loss = loss + self.config.global_weight * self._global(model, batch, table)
        if self.sequences is not None:
            loss = loss + self.sequences(model, batch, branches[0], progress, predict)
        if self.items is not None:
            loss = loss + self.items(model, batch, progress)
        return loss

    def _global(self, model: UniRec, batch: SequenceBatch, table: Tensor) -> Tensor:
        """Return the BCE of the global term at each sequence's newest place, if that has a target."""
        assert batch.targets is not None
        vectors = table[:, : self.config.width]
        target = batch.targets.flatten()[batch.last.clamp(min=0)]  # [B]
        real = (batch.last >= 0) & (target > 0)
        negatives, _ = self.sampler(target)  # [B, N]
        items = torch.cat([target[:, None], negatives], 1)  # [B, 1 + N]
        events, distinct = model.global_items(batch)
        history = history_part(events, distinct, vectors)  # [B, D]
        scores = (F.embedding(items, vectors) @ history[..., None])[..., 0]
        scores = scores + own_part(items, events, distinct, vectors)  # [B, 1 + N]
        scores = scores / model.temperature  # a logit, as every other product is
        kept = negatives != target[:, None]
        wrong = (F.softplus(scores[:, 1:]) * kept).sum(1) / kept.sum(1).clamp(min=1)
        losses = F.softplus(-scores[:, 0]) + wrong  # [B]
        mean: Tensor = (losses * real).sum() / real.sum().clamp(min=1)
        return mean

    def reseed(self, seed: int) -> None:
        """Restart the samplers of negatives and of neighbours."""
        self.loss.reseed(seed)
        self.sampler.reseed(seed + 1)
        if self.items is not None:
            self.items.reseed(seed + 2)


def _needed(statistics: TrainingStatistics | None) -> TrainingStatistics:
    if statistics is None:
        raise ArtifactError(
            "sequence_enhancement, item_enhancement and inject_tail read the statistics of the training "
            "events, and there are none; run the features stage, or switch these parts off"
        )
    return statistics
