"""Item-kNN: items that the same users had, or had one after the other, by cosine similarity."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from recsys.config import ItemKNNConfig
from recsys.data.batches import SequenceBatch
from recsys.data.sequences import TrainingData
from recsys.models.contract import CountingModel
from recsys.models.following import FollowingPairs
from recsys.models.pairs import BLOCK_PAIRS, Float64
from recsys.models.text_votes import inherited, text_votes, vectors_of
from recsys.models.votes import keep_votes, largest, vote_scores


class ItemKNN(CountingModel):
    """Scores item i by the sum over the newest events j at distance d of decay^(d - 1) sim(j, i).

    With n_i the users who have i in their training events and n_ij those who have both (each user
    counts once):

        sim(j, i) = (n_ij / (n_j^asymmetry n_i^(1 - asymmetry) + shrinkage))^locality

    (asymmetric cosine and locality: Aiolli, RecSys 2013, 273-280; 1/2 and 1 are the plain cosine) or, with
    `pairs: following`, n_ji instead of n_ij: over all pairs of a user's training events in which i comes
    d <= `reach` places after j, the sum of d^-fading;

    for the `neighbours` items i != j most similar to j (ties by item index), else 0. With texts, to this
    is added, for the items i != j of the most alike texts,

        weight * max(0, cos(t_j, t_i))^power

    so that an item without events has votes, too; it can also inherit those of the items with the most
    alike texts (see `recsys.models.text_votes.inherited`), as one of at most `neighbours` more. Items
    without a vote follow strictly below all others, by popularity (negative scores).
    """

    indptr: Tensor  # int64 [V + 2]
    indices: Tensor  # int32 [nnz]
    weights: Tensor  # float32 [nnz]
    fill: Tensor  # float32 [V + 1]

    def __init__(self, config: ItemKNNConfig, n_items: int) -> None:
        super().__init__(n_items)
        self.max_length = config.history
        self.neighbours = config.neighbours
        self.shrinkage = config.shrinkage
        self.decay = config.decay
        self.config = config
        keep_votes(self, None, np.zeros(n_items + 1, dtype=np.int64))

    def fit(self, data: TrainingData) -> None:
        """Find every item's neighbours in the training events, a block of items at a time."""
        users, items = data.events()
        shape = (data.store.n_users, self.n_items + 1)
        has = sparse.coo_array((np.ones(len(users)), (users, items)), shape=shape).tocsr()
        has.data[:] = 1.0  # a user who had an item twice counts once
        by_item = has.T.tocsr()  # [V + 1, U]
        had = np.diff(by_item.indptr).astype(np.float64)  # [V + 1]
        norms = (had**self.config.asymmetry, had ** (1.0 - self.config.asymmetry))
        step = max(1, BLOCK_PAIRS // (self.n_items + 1))
        starts = range(0, self.n_items + 1, step)
        if self.config.pairs == "following":
            pairs = FollowingPairs(data, self.config.reach, self.config.fading)
            common = (pairs.of_items(start, start + step) for start in starts)
        else:
            common = (sparse.coo_array(by_item[start : start + step] @ has) for start in starts)
        blocks = [
            self._nearest(part, start, norms) for start, part in zip(starts, common, strict=True)
        ]
        matrix = sparse.vstack(blocks, format="csr")
        if (text := self.config.text) is not None:
            vectors = vectors_of(data)
            matrix = inherited(text, sparse.csr_array(matrix), vectors, had > 0, self.neighbours)
            matrix = sparse.csr_array(matrix + text_votes(text, vectors))
        keep_votes(self, matrix, data.item_counts(), self.fill.device)

    def _nearest(
        self,
        common: sparse.coo_array,
        start: int,
        norms: tuple[Float64, Float64],
    ) -> sparse.csr_array:
        """Return the nearest neighbours of items `start:`, from what they have in common with all items."""
        row, column = common.row, common.col
        norm = norms[0][row + start] * norms[1][column]
        similarity = (common.data / (norm + self.shrinkage)) ** self.config.locality
        other = row + start != column
        row, column, similarity = row[other], column[other], similarity[other]
        kept = largest(row, column, similarity, self.neighbours)
        entries = (similarity[kept], (row[kept], column[kept]))
        return sparse.coo_array(entries, shape=common.shape).tocsr()

    def score(self, batch: SequenceBatch, items: Tensor | None = None) -> Tensor:
        """Return summed similarities, or the fill, float32 [B, C]."""
        recent = batch.recent(self.max_length)  # [B, H]
        weight = self.decay ** torch.arange(self.max_length, device=recent.device)  # [H]
        matrix = (self.indptr, self.indices, self.weights)
        return vote_scores(recent, weight, matrix, self.fill, items)
