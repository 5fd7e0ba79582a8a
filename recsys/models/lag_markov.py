"""Lag-Markov: a table of transitions for every distance, and their evidence added up.

Markov lets all distances share one table; yet what follows a song directly and what comes two songs
later differ. Here every lag has its own, and the tables are combined as naive Bayes does: given the
next item i the events before it are taken as independent, so that

    score(i) = log p(i) + sum over d = 1..H of decay^(d - 1) log(P_d(j_d | i) / P_d(j_d))

with j_d the event d places back, up to a term that is the same for all i. Counts are few, so they are
backed off to what popularity expects, with `back_off` pseudo-counts of every j_d:

    P_d(i | j) = (n_d(j, i) + back_off p(i)) / (n_d(j) + back_off)

which makes the evidence log(1 + n_d(j, i) / (back_off p(i))), again up to a term that is the same for
all i: sparse, 0 where nothing was counted, and a rare follower counts more than one that comes
anyway. `decay` < 1 makes up for the dependence of neighbours, which naive Bayes ignores.

With `previous` the lists that came before are evidence, too: `previous_weight` times e(gap of i), see
`recsys.models.gap_evidence`. A history of which they are not known (at an endpoint, unless a request
tells them) is taken to begin right after the training lists.

Shapes: B sequences, H lags, V items, C candidates.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from recsys.config import LagMarkovConfig
from recsys.data.batches import SequenceBatch
from recsys.data.previous import UNKNOWN_AGE
from recsys.data.recency import Recency
from recsys.data.sequences import Int32, Int64, TrainingData
from recsys.models.contract import CountingModel
from recsys.models.gap_evidence import gap_evidence, gaps, newest_gaps
from recsys.models.markov import Float64, worth_by_order
from recsys.models.votes import count_votes, csr_tensors, distinct_candidates

UNSEEN = 0.01
"""What an item without a training event counts, as a share of the rarest: it has a probability, too."""


class LagMarkov(CountingModel):
    """See above. n_d(j, i) are training events of i with one of j exactly d events before it.

    Counts lose value with the list's age (`half_life`) or the event's (`recency_half_life`), as in
    `Markov`; popularity p with them. Scores are log-probabilities up to a constant of the history.
    """

    indptr: Tensor  # int64 [H (V + 1) + 1]
    indices: Tensor  # int32 [nnz]
    weights: Tensor  # float32 [nnz], the evidence
    popularity: Tensor  # float32 [V + 1], log p
    by_gap: Tensor  # float32 [n + 2], weighted evidence of gaps 1..n + 1
    newest: Tensor  # int64 [V + 1], gaps of a list that begins after the training

    def __init__(self, config: LagMarkovConfig, n_items: int) -> None:
        super().__init__(n_items)
        self.max_length = config.history
        self.config = config
        self.reads_previous = config.previous
        self.register_buffer("by_gap", torch.zeros(config.previous + 2))
        self.register_buffer("newest", torch.ones(n_items + 1, dtype=torch.int64))
        self._keep(
            sparse.csr_array((config.history * (n_items + 1), n_items + 1)), _shares(n_items)
        )

    def fit(self, data: TrainingData) -> None:
        """Count the training events at every lag."""
        config = self.config
        users, places = data.places()
        items = np.asarray(data.store.items[places])
        by_list = worth_by_order(data, config.half_life)
        worth = by_list[users] * Recency(data, config.recency_half_life).worth(places)
        share = _shares(
            self.n_items, np.bincount(items, worth, self.n_items + 1).astype(np.float64)
        )
        self._keep(self._evidence(users, items, worth, share), share)
        if config.previous:
            found = gap_evidence(data, config.previous, by_list, config.half_life)
            self.by_gap.copy_(torch.from_numpy(config.previous_weight * found))
            self.newest.copy_(torch.from_numpy(newest_gaps(data, config.previous)))

    def _evidence(
        self, users: Int64, items: Int32, worth: Float64, share: Float64
    ) -> sparse.csr_array:
        """Return log(1 + n_d(j, i) / (back_off p(i))) at row (d - 1)(V + 1) + j."""
        size = self.n_items + 1
        before, after, value = [], [], []
        for lag in range(1, self.max_length + 1):
            same = users[lag:] == users[:-lag]
            before.append(items[:-lag][same].astype(np.int64) + (lag - 1) * size)
            after.append(items[lag:][same])
            value.append(worth[lag:][same])
        pairs = (np.concatenate(before), np.concatenate(after))
        counts = sparse.coo_array(
            (np.concatenate(value), pairs), shape=(self.max_length * size, size)
        ).tocsr()
        counts.data = np.log1p(counts.data / (self.config.back_off * share[counts.indices]))
        return counts

    def _keep(self, evidence: sparse.csr_array, share: Float64) -> None:
        """Keep evidence and popularity as buffers, the model's whole state."""
        known = getattr(self, "popularity", None)
        device = None if known is None else known.device
        tensors = (*csr_tensors(evidence), torch.from_numpy(np.log(share).astype(np.float32)))
        names = ("indptr", "indices", "weights", "popularity")
        for name, tensor in zip(names, tensors, strict=True):
            self.register_buffer(name, tensor.to(device))

    def score(self, batch: SequenceBatch, items: Tensor | None = None) -> Tensor:
        """Return the log-probabilities up to a constant of the history, float32 [B, C]."""
        recent = batch.recent(self.max_length)  # [B, H]
        lag = torch.arange(self.max_length, device=recent.device)
        rows = torch.where(recent > 0, recent + lag * (self.n_items + 1), 0)  # [B, H]
        candidates, spread = distinct_candidates(items, self.n_items, recent.device)
        votes = count_votes(
            rows,
            self.config.decay ** lag.float(),
            (self.indptr, self.indices, self.weights),
            candidates,
        )
        scores = votes + self.popularity[candidates]
        if self.reads_previous:
            scores = scores + self.by_gap[self._gaps(batch)[:, candidates]]
        return scores if spread is None else scores[:, spread]

    def _gaps(self, batch: SequenceBatch) -> Tensor:
        if batch.previous is None or batch.previous_ages is None:
            return self.newest.expand(len(batch), -1)
        found = gaps(batch.previous, batch.previous_ages, self.reads_previous, self.n_items)
        unknown = (batch.previous_ages == UNKNOWN_AGE).any(1, keepdim=True)  # [B, 1]
        return torch.where(unknown, self.newest, found)


def _shares(n_items: int, counts: Float64 | None = None) -> Float64:
    """Return each item's share of the counts, never 0, float64 [V + 1]; that of PAD means nothing."""
    filled = np.ones(n_items + 1) if counts is None or not counts.any() else counts
    filled = np.maximum(filled, UNSEEN * filled[filled > 0].min())
    return np.asarray(filled / filled[1:].sum(), dtype=np.float64)
