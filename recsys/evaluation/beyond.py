"""Beyond accuracy: what the lists are like, whatever the targets were.

All of them look at the first k items of each list; a list of fewer items counts with what it has.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from recsys.data.sequences import Int32, Int64
from recsys.evaluation.metrics import Float64
from recsys.schema import PAD

Float32 = npt.NDArray[np.float32]
BLOCK_VALUES = 1 << 23
"""Numbers held at once by `intra_list_distance`: 32 MiB of float32."""


def list_counts(top: Int32, k: int, n_items: int) -> Int64:
    """Count how many lists hold each item among their first k, int64 [n_items]; PAD is left out."""
    counts = np.bincount(top[:, :k].ravel(), minlength=n_items + 1)
    return counts[1:].astype(np.int64)


def coverage(counts: Int64) -> float:
    """Return the share of the catalogue that is in at least one list: (items listed) / n_items.

    >>> coverage(np.array([3, 0, 1, 0]))
    0.5
    """
    return float(np.count_nonzero(counts) / len(counts))


def gini(counts: Int64) -> float:
    """Return the Gini coefficient of how often each item of the catalogue is listed.

    G = sum_i (2 i - n - 1) c_i / (n sum_i c_i) with counts ascending, i = 1..n, items that are never
    listed included: 0 when all are listed equally often, 1 - 1/n when one item takes all places. NaN
    when nothing is listed.

    >>> gini(np.array([0, 0, 0, 5]))
    0.75
    """
    total = counts.sum()
    if total == 0:
        return float("nan")
    n = len(counts)
    weight = 2.0 * np.arange(1, n + 1) - n - 1
    return float(weight @ np.sort(counts) / (n * total))


def item_information(item_counts: Int64) -> Float64:
    """Return -log2 p of every item, float64 [n_items + 1].

    p = (training events + 1) / (all training events + n_items): one event is added to every item, so
    that cold items have a finite value. PAD has 0.
    """
    counts = item_counts[1:].astype(np.float64) + 1.0
    return np.concatenate([[0.0], -np.log2(counts / counts.sum())])


def novelty(top: Int32, ks: Sequence[int], item_counts: Int64) -> dict[int, Float64]:
    """Return each list's mean of -log2 p over its first k items, in bits, float64 [T] per k.

    p is the item's smoothed share of the training events (`item_information`). An empty list has no
    value (NaN).
    """
    width = max(ks)
    bits = np.cumsum(item_information(item_counts)[top[:, :width]], axis=1)
    length = np.cumsum(top[:, :width] != PAD, axis=1)
    values = {}
    for k in ks:
        last = min(k, top.shape[1]) - 1
        value = np.full(len(top), np.nan)
        np.divide(bits[:, last], length[:, last], out=value, where=length[:, last] > 0)
        values[k] = value
    return values


def intra_list_distance(top: Int32, ks: Sequence[int], vectors: Float32) -> dict[int, Float64]:
    """Return each list's mean cosine distance over pairs of its first k items, float64 [T] per k.

    1 - (|sum v|^2 - sum |v|^2) / (n (n - 1)), with the item vectors v [n_items + 1, D] at unit length
    (a zero vector is at distance 1 from all) and n the list's items within k. A list of fewer than two
    items has no value (NaN).
    """
    width = min(max(ks), top.shape[1])
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    unit[PAD] = 0.0
    squares = (unit**2).sum(axis=1)
    values = {k: np.full(len(top), np.nan) for k in ks}
    step = max(1, BLOCK_VALUES // (width * vectors.shape[1]))
    for at in range(0, len(top), step):
        items = top[at : at + step, :width]
        sums = np.zeros((len(items), vectors.shape[1]), dtype=np.float32)
        done = 0
        for k in sorted(ks):
            upto = min(k, width)
            sums += unit[items[:, done:upto]].sum(axis=1)
            done = upto
            n = np.count_nonzero(items[:, :upto], axis=1)
            own = squares[items[:, :upto]].sum(axis=1)
            pairs = n * (n - 1.0)
            alike = np.einsum("bd,bd->b", sums, sums) - own
            many = pairs > 0
            values[k][at : at + step][many] = 1.0 - alike[many] / pairs[many]
    return values
