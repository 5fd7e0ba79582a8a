"""What it says of an item that a list before had it: evidence by how many lists ago that was.

The gap of an item is the age of the newest list that has it (1: the list right before), or n + 1 where
none of the n lists before has it. For every gap

    e(g) = log((observed(g) + s) / (expected(g) + s))

compares how many items of that gap the training lists have with how many they would have if an item
came as often as it does anyway: the sum of their shares, an item's share being the part of the lists
before that have it, newer ones counting more. s smooths what was seldom there.

Shapes: B sequences, P places of previous lists, V items.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.data.previous import PreviousLists
from recsys.data.sequences import Int64, TrainingData

Float64 = npt.NDArray[np.float64]

SMOOTHING = 1.0
"""Items that are added to both counts of a gap."""


def gap_evidence(
    data: TrainingData, count: int, worth: Float64, half_life: float | None
) -> Float64:
    """Return e(g) for g = 1..count + 1, float64 [count + 2]; index 0 means nothing.

    Args:
        data: training lists, of which only whole ones are used.
        count: how many lists before are read.
        worth: float64 [U], what a list counts.
        half_life: lists in which an item's share forgets half; None forgets nothing.
    """
    store = data.store
    whole = (data.train_end == store.offsets[1:]) & (data.lengths > 0)
    previous = PreviousLists(store, whole)
    ordered = previous.in_order()
    observed, expected = np.zeros(count + 2), np.zeros(count + 2)
    share, total, step = np.zeros(store.n_items + 1), 0.0, 1.0
    growth = 1.0 if half_life is None else 2.0 ** (1.0 / half_life)
    for at, one in enumerate(ordered):
        own = np.unique(store.items[store.offsets[one] : store.offsets[one + 1]])
        if at >= count:
            gap = _gaps_of(previous, one, count, store.n_items)
            likely = np.minimum(share / total, 1.0)
            observed += worth[one] * np.bincount(gap[own], minlength=count + 2)
            expected += worth[one] * np.bincount(gap, likely, count + 2)
        share[own] += step
        total += step
        step *= growth
        if step > 1e100:  # only ratios count
            share, total, step = share / step, total / step, 1.0
    return np.log((observed + SMOOTHING) / (expected + SMOOTHING))


def _gaps_of(previous: PreviousLists, one: int, count: int, n_items: int) -> Int64:
    items, ages = previous.items(np.array([one]), count)
    gap = np.full(n_items + 1, count + 1, dtype=np.int64)
    np.minimum.at(gap, items[0], np.where(items[0] > 0, ages[0], count + 1))
    gap[0] = 0
    return gap


def gaps(items: Tensor, ages: Tensor, count: int, n_items: int) -> Tensor:
    """Return every item's gap, int64 [B, V + 1], of the lists before, [B, P] both, 0-filled."""
    found = torch.full((len(items), n_items + 1), count + 1, device=items.device)
    ages = torch.where(items > 0, ages, count + 1)
    return found.scatter_reduce(1, items, ages, "amin")


def newest_gaps(data: TrainingData, count: int) -> Int64:
    """Return every item's gap for a list that begins after all training lists, int64 [V + 1]."""
    store = data.store
    whole = (data.train_end == store.offsets[1:]) & (data.lengths > 0)
    newest = PreviousLists(store, whole).in_order()[::-1][:count]
    gap = np.full(store.n_items + 1, count + 1, dtype=np.int64)
    for age, one in reversed(list(enumerate(newest, 1))):
        gap[store.items[store.offsets[one] : store.offsets[one + 1]]] = age
    return gap
