"""Markov: what followed the newest items in other histories; the floor a learned model must beat."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.config import MarkovConfig
from recsys.data.batches import SequenceBatch
from recsys.data.recency import Recency
from recsys.data.sequences import TrainingData
from recsys.models.contract import CountingModel
from recsys.models.pairs import count_pairs
from recsys.models.votes import keep_votes, vote_scores

Float64 = npt.NDArray[np.float64]


class Markov(CountingModel):
    """Scores item i by the sum over the newest events j at distance d = 1, 2, ... of n(j -> i) / d.

    n(j -> i) counts the training events of i that directly follow one of j in the same user's (list's)
    history; with `reach` > 1, those that follow up to so many events later count too, each 1/distance.
    With `half_life`, a transition counts 0.5 ** (age / half_life), where age is the number of users
    (lists) whose training part ends later: ordered by the time of their last training event, or by
    index where the data have no times; ties by index. With `recency_half_life` it counts what its later
    event is worth by age (`recsys.data.recency`), as popularity then does. Items without a transition
    follow strictly below all others, by popularity (negative scores); equal scores stay ties.
    """

    indptr: Tensor  # int64 [V + 2]
    indices: Tensor  # int32 [nnz]
    weights: Tensor  # float32 [nnz]
    fill: Tensor  # float32 [V + 1]

    def __init__(self, config: MarkovConfig, n_items: int) -> None:
        super().__init__(n_items)
        self.max_length = config.history
        self.half_life = config.half_life
        self.recency_half_life = config.recency_half_life
        self.reach = config.reach
        keep_votes(self, None, np.zeros(n_items + 1))

    def fit(self, data: TrainingData) -> None:
        """Count the transitions of the training events."""
        users, places = data.places()
        items = np.asarray(data.store.items[places])
        by_age = Recency(data, self.recency_half_life).worth(places)
        worth = worth_by_order(data, self.half_life)[users] * by_age
        matrix = count_pairs(
            users, items, self.n_items + 1, self.reach, lambda _, later, lag: worth[later] / lag
        )
        popularity = np.bincount(items, by_age, self.n_items + 1)
        keep_votes(self, matrix, popularity, self.fill.device)

    def score(self, batch: SequenceBatch, items: Tensor | None = None) -> Tensor:
        """Return weighted transition counts, or the fill, float32 [B, C]."""
        recent = batch.recent(self.max_length)  # [B, H]
        weight = 1 / torch.arange(1, self.max_length + 1, device=recent.device)  # [H]
        matrix = (self.indptr, self.indices, self.weights)
        return vote_scores(recent, weight, matrix, self.fill, items)


def worth_by_order(data: TrainingData, half_life: float | None) -> Float64:
    """Return what a transition of each user counts: 1, or 0.5 ** (age / half_life), float64 [U]."""
    worth = np.ones(data.store.n_users)
    if half_life is None:
        return worth
    present = np.flatnonzero(data.lengths)
    times = data.store.timestamps
    last = present if times is None else times[data.train_end[present] - 1]
    oldest_first = present[np.argsort(last, kind="stable")]
    worth[oldest_first] = np.exp2(-np.arange(len(present))[::-1] / half_life)
    return worth
