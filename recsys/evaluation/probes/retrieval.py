"""Retrieval by frozen vectors: how early lists of the same label come, by exact cosine."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from recsys.data.sequences import Int64

Floats = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

RECALLS: Final = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
BLOCK: Final = 256


def interpolated_precision(vectors: Floats, classes: Int64, queries: Int64) -> Float64:
    """Return the interpolated precision of each query at `RECALLS`, float64 [Q, 6].

    All other lists are ranked by their cosine with the query's (which is left out itself), equal ones by
    their row. At recall r it is the greatest precision at any rank whose recall is r or more. A query
    whose class has no other list is NaN.

    Args:
        vectors: float32 [N, E]; the cosine with a zero vector is 0.
        classes: int64 [N].
        queries: int64 [Q], rows.
    """
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(length > 0, length, 1)
    out = np.full((len(queries), len(RECALLS)), np.nan)
    for at in range(0, len(queries), BLOCK):
        rows = queries[at : at + BLOCK]
        cosines = unit[rows] @ unit.T  # [b, N]
        cosines[np.arange(len(rows)), rows] = -np.inf  # last, and cut off
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :-1]
        hits = classes[order] == classes[rows][:, None]  # [b, N - 1]
        out[at : at + len(rows)] = _curve(hits)
    return out


def _curve(hits: npt.NDArray[np.bool_]) -> Float64:
    found = hits.cumsum(1)
    total = found[:, -1:]
    precision = found / np.arange(1, hits.shape[1] + 1)
    best_from = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    out = np.full((len(hits), len(RECALLS)), np.nan)
    for row in np.flatnonzero(total[:, 0] > 0):
        # Relevant lists needed for each recall; the rank at which there are as many.
        needed = np.maximum(1, np.ceil(np.array(RECALLS) * total[row] - 1e-9)).astype(np.int64)
        ranks = np.searchsorted(found[row], needed)
        out[row] = best_from[row, ranks]
        out[row, 0] = best_from[row, 0]
    return out


def chance(classes: Int64, queries: Int64) -> float:
    """Return the precision of a random ranking: the mean share of a query's class among the others."""
    counts = np.bincount(classes)
    return float(((counts[classes[queries]] - 1) / (len(classes) - 1)).mean())
