"""What a search returns: lists side by side by group, and one list made of many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.data.sequences import Int64
from recsys.evaluation.metrics import Float64
from recsys.schema import PAD


@dataclass(frozen=True)
class Lists:
    """Lists of N requests, B of each: groups side by side, best first in each.

    Attributes:
        items: int64 [N, B, T], filled up with PAD; a list that could not be made is all PAD.
        gains: float64 [N, B, T], each item's log-probability given all before it; 0 for PAD.
        score: float64 [N, B], what the search ranked by: log-probability less penalties; -inf for a
            list that could not be made.
        groups: groups of equally many lists.
        first: int64 [N, C], the candidates of the first place, best first, filled up with PAD.
        exact: log-probabilities are sums over the whole catalogue, not estimates.
    """

    items: Int64
    gains: Float64
    score: Float64
    groups: int
    first: Int64
    exact: bool

    @property
    def log_probability(self) -> Float64:
        """The pure log-probability of every list, penalties not counted; -inf for one not made."""
        total: Float64 = np.where(np.isneginf(self.score), -np.inf, self.gains.sum(2))
        return total

    @property
    def order(self) -> Int64:
        """The lists, best first: the best of every group, then the second of every group, int64 [B]."""
        n_lists = self.items.shape[1]
        return np.arange(n_lists).reshape(self.groups, -1).T.ravel()

    def merged(self, k: int) -> tuple[Int64, Float64]:
        """Return one list of k items a request and their weights, `(int64 [N, k], float64 [N, k])`.

        An item's weight is the sum over the lists that hold it of 1 / (rank of the list + place in
        it - 1), both from 1, lists ranked as in `order`; ties go to the item seen first. Every item
        comes once; a list that is not full goes on with the candidates of the first place, whose
        weight is 0, and with PAD where those end.
        """
        pairs = [self._merge(row, k) for row in range(len(self.items))]
        items = np.stack([pair[0] for pair in pairs]) if pairs else np.zeros((0, k), dtype=np.int64)
        weights = np.stack([pair[1] for pair in pairs]) if pairs else np.zeros((0, k))
        return items, weights

    def _merge(self, row: int, k: int) -> tuple[Int64, Float64]:
        lists = self.items[row, self.order]  # [B, T]
        lists = lists[~np.isneginf(self.score[row, self.order])]
        rank, place = np.indices(lists.shape)
        weight = np.where(lists == PAD, 0.0, 1.0 / (rank + place + 1.0)).ravel()
        flat = np.concatenate([lists.ravel(), self.first[row]])
        weight = np.concatenate([weight, np.zeros(len(self.first[row]))])
        distinct, seen, which = np.unique(flat, return_index=True, return_inverse=True)
        total = np.bincount(which, weight, minlength=len(distinct))
        order = np.lexsort((seen, -total))
        order = order[distinct[order] != PAD][:k]
        items, weights = np.full(k, PAD, dtype=np.int64), np.zeros(k)
        items[: len(order)], weights[: len(order)] = distinct[order], total[order]
        return items, weights
