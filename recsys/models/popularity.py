"""Popularity: the most popular training items, and what a user (list) repeats most."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recsys.config import PopularityConfig
from recsys.data.batches import SequenceBatch
from recsys.data.recency import Recency
from recsys.data.sequences import TrainingData
from recsys.models.contract import CountingModel
from recsys.models.votes import fill_up, popularity_fill

OWN_HISTORY = 1000
"""Events of a history that own popularity counts."""


class Popularity(CountingModel):
    """Scores an item by its training events, the same for everybody; equal counts stay ties.

    With `recency_half_life` an event counts what it is worth by age (`recsys.data.recency`).
    """

    counts: Tensor  # float64 [V + 1]

    def __init__(self, config: PopularityConfig, n_items: int) -> None:
        super().__init__(n_items)
        self.max_length = 1  # the history is not read
        self.recency_half_life = config.recency_half_life
        self.register_buffer("counts", torch.zeros(n_items + 1, dtype=torch.float64))

    def fit(self, data: TrainingData) -> None:
        """Count the training events of every item."""
        _, places = data.places()
        worth = Recency(data, self.recency_half_life).worth(places)
        counts = np.bincount(data.store.items[places], worth, self.n_items + 1)
        self.counts = torch.from_numpy(counts).to(self.counts.device)

    def score(self, batch: SequenceBatch, items: Tensor | None = None) -> Tensor:
        """Return the counts, float32 [B, C] (exact up to 2^24)."""
        counts = self.counts if items is None else self.counts[items]
        return counts.float().repeat(len(batch), 1)


class OwnPopularity(CountingModel):
    """Scores an item by how often it is in the history itself (its newest 1,000 events).

    Items that are not there follow strictly below, by popularity (negative scores). Only useful where
    seen items may be recommended again.
    """

    fill: Tensor

    def __init__(self, n_items: int) -> None:
        super().__init__(n_items)
        self.max_length = OWN_HISTORY
        self.register_buffer("fill", torch.full((n_items + 1,), -1.0))

    def fit(self, data: TrainingData) -> None:
        """Order the items by their training events, for those that a history lacks."""
        self.fill = popularity_fill(data.item_counts()).to(self.fill.device)

    def score(self, batch: SequenceBatch, items: Tensor | None = None) -> Tensor:
        """Return own counts, or the fill, float32 [B, C]."""
        longest = int(batch.positions.max()) + 1 if batch.positions.numel() else 0
        recent = batch.recent(min(longest, self.max_length))  # [B, H]
        own = torch.zeros(len(batch), self.n_items + 1, device=recent.device)
        own.scatter_add_(1, recent, (recent > 0).float())
        scores = fill_up(own, self.fill)
        return scores if items is None else scores[:, items]
