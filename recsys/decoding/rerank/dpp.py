"""Greedy MAP of a determinantal point process: the set whose quality and volume are greatest.

Source: Chen, Zhang and Zhou 2018 (arXiv 1709.05135): L = diag(q) S diag(q), and each candidate's gain in
log det comes from one more row of an incremental Cholesky factor: O(C K^2) in all instead of O(C K^4).
The greedy set is not always the best one.
"""

from __future__ import annotations

import numpy as np

from recsys.data.sequences import Int64
from recsys.evaluation.metrics import Float64

SMALLEST = 1e-10
"""A candidate that adds less than this to the determinant adds nothing: it lies in what is chosen."""


def dpp(quality: Float64, similarity: Float64, k: int) -> Int64:
    """Return the places of k candidates in the order chosen, int64 [N, k], -1 where none is left.

    Candidates that add nothing to the volume come last, by quality. Ties go to the earlier place.

    Args:
        quality: float64 [N, C], above 0; 0 for no candidate.
        similarity: float64 [N, C, C], positive semi-definite, 1 on the diagonal.
        k: length of the list.
    """
    n, width = quality.shape
    row, most = np.arange(n), min(k, width)
    gain = quality**2 * np.diagonal(similarity, axis1=1, axis2=2)  # [N, C]
    factor = np.zeros((n, most, width))  # rows of the Cholesky factor
    closed, chosen = quality <= 0, np.full((n, k), -1, dtype=np.int64)
    for place in range(most):
        flat = gain < SMALLEST
        # Where no gain is left the rest is ordered by quality, below any gain.
        value = np.where(flat, quality - quality.max(1, keepdims=True) - 1.0, gain)
        best = np.where(closed, -np.inf, value).argmax(1)
        chosen[:, place] = np.where(closed.all(1), -1, best)
        closed[row, best] = True
        root = np.sqrt(np.maximum(gain[row, best], SMALLEST))[:, None]
        kernel = quality[row, best, None] * similarity[row, best] * quality  # [N, C]
        before = np.einsum("np,npc->nc", factor[row, :place, best], factor[:, :place])
        new = (kernel - before) / root
        new = np.where(flat[row, best, None], 0.0, new)
        factor[:, place] = new
        gain = np.maximum(gain - new**2, 0.0)
    return chosen
