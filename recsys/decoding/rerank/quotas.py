"""Lists by label: at most so many of one label, or the labels in turn."""

from __future__ import annotations

import numpy as np

from recsys.data.sequences import Int64


def within_quota(labels: Int64, k: int, limit: int) -> Int64:
    """Return the places of the first k candidates with at most `limit` of one label, ascending, int64.

    `labels` [C] are in order of relevance; those below 0 are not limited. The list is shorter where the
    quota leaves no more.
    """
    return np.flatnonzero((labels < 0) | (_earlier(labels) < limit))[:k]


def round_robin(labels: Int64, k: int) -> Int64:
    """Return the places of k candidates, the labels in turn: the best of each, then the second of each.

    Labels come in order of their best candidate. A candidate without a label (below 0) is one of its own.
    """
    return np.lexsort((np.arange(len(labels)), _earlier(labels)))[:k]


def _earlier(labels: Int64) -> Int64:
    """Count the earlier candidates of the same label, int64 [C]; 0 without one."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    starts = np.r_[True, ordered[1:] != ordered[:-1]] if len(labels) else np.zeros(0, dtype=bool)
    place = np.arange(len(labels))
    first = np.maximum.accumulate(np.where(starts, place, 0)) if len(labels) else place
    count = np.empty(len(labels), dtype=np.int64)
    count[order] = place - first
    return np.where(labels < 0, 0, count)
