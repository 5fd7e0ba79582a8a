"""Means of item vectors, plain and weighted by rarity: the bags of words of lists."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recsys.data.sequences import TrainingData
from recsys.models.sets.contract import SetEncoder, masked_mean

BLOCK = 4096
"""Sets whose vectors are held at once while fitting."""


class MeanSet(SetEncoder):
    """The mean of the item vectors."""

    def pool(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Return the mean of the real places, float [B, D]."""
        return masked_mean(vectors, mask)


class SIF(SetEncoder):
    """Smooth inverse frequency (Arora, Liang and Ma 2017): rare items weigh more.

        v = (1/l) sum_i a / (a + p_i) E_i,    then    v - u (u . v)

    with p_i the item's share of the training events, a the smoothing, l the set's size and u the top
    right singular vector of the training sets' v: the direction that all have in common. Item vectors
    come from elsewhere (`item_table`); `fit` then counts and must be called again when they change.
    Before, all weights are 1 and u is 0.
    """

    weight: Tensor  # [V + 1]
    common: Tensor  # [D]

    def __init__(self, n_items: int, width: int, smoothing: float) -> None:
        super().__init__(n_items, width)
        self.smoothing = smoothing
        self.register_buffer("weight", torch.ones(n_items + 1))
        self.register_buffer("common", torch.zeros(width))

    def vectors(self, items: Tensor) -> Tensor:
        """Return the weighted item vectors, float [B, n, D]."""
        rows: Tensor = self.item_table(items) * self.weight[items][:, :, None]
        return rows

    def pool(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Return the mean without its share of the common direction, float [B, D]."""
        mean = masked_mean(vectors, mask)
        return mean - (mean @ self.common)[:, None] * self.common

    @torch.no_grad()
    def fit(self, data: TrainingData) -> None:
        """Count items and find the common direction; the training events of a user (list) are a set.

        The direction is the top eigenvector of sum v v', so memory is bounded by a block of sets. Its
        sign does not matter.
        """
        share = torch.from_numpy(data.item_counts()).double()
        share = share / share.sum().clamp(min=1)
        self.weight.copy_(self.smoothing / (self.smoothing + share))
        table = self.item_table.weight.double() * self.weight.double()[:, None]  # [V + 1, D]
        moment = table.new_zeros(self.width, self.width)
        lengths, begin = data.lengths, data.store.offsets[:-1]
        users = np.flatnonzero(lengths > 0)
        for at in range(0, len(users), BLOCK):
            block = users[at : at + BLOCK]
            sizes = lengths[block]
            row = np.repeat(np.arange(len(block)), sizes)
            inside = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            items = data.store.items[begin[block][row] + inside].astype(np.int64)
            total = table.new_zeros(len(block), self.width)
            total.index_add_(0, torch.from_numpy(row), table[torch.from_numpy(items)])
            mean = total / torch.from_numpy(sizes)[:, None]
            moment += mean.T @ mean
        values, directions = torch.linalg.eigh(moment)
        found = directions[:, -1] if values[-1] > 0 else torch.zeros_like(values)
        self.common.copy_(found)
