"""Maximal Marginal Relevance (Carbonell and Goldstein 1998): relevant, and unlike what is chosen."""

from __future__ import annotations

import numpy as np

from recsys.data.sequences import Int64
from recsys.errors import DataError
from recsys.evaluation.metrics import Float64


def mmr(relevance: Float64, similarity: Float64, k: int, balance: float) -> Int64:
    """Return the places of k candidates in the order chosen, int64 [N, k], -1 where none is left.

    Each time the candidate of greatest balance * relevance - (1 - balance) * (greatest similarity to a
    chosen one; 0 for the first) is taken; ties go to the earlier place.

    Args:
        relevance: float64 [N, C]; -inf for no candidate.
        similarity: float64 [N, C, C].
        k: length of the list.
        balance: 0 (diversity alone) to 1 (relevance alone).
    """
    if not 0 <= balance <= 1:
        raise DataError(f"the balance of MMR is {balance}; it must be between 0 and 1")
    n, width = relevance.shape
    row, missing = np.arange(n), np.isneginf(relevance)
    worth = balance * np.where(missing, 0.0, relevance)
    nearest = np.zeros((n, width))
    closed, chosen = missing.copy(), np.full((n, k), -1, dtype=np.int64)
    for place in range(min(k, width)):
        value = np.where(closed, -np.inf, worth - (1.0 - balance) * nearest)
        best = value.argmax(1)
        chosen[:, place] = np.where(closed.all(1), -1, best)
        closed[row, best] = True
        own = similarity[row, best]  # [N, C]
        nearest = own if place == 0 else np.maximum(nearest, own)
    return chosen
