"""Popularity bias: which items the lists show, beside which items people take.

The catalogue is cut into ten groups of equal weight in training: group 1 has the few most frequent
items that make up the first tenth of the training events, group 10 the many that make up the last.
Items without training events are a group of their own. Lists that follow the events give every group
the tenth that it has in training; what is above it in group 1 is the bias.
"""

from __future__ import annotations

from typing import Final, TypedDict

import numpy as np

from recsys.data.sequences import Int32, Int64
from recsys.evaluation.ranked import RankedTargets
from recsys.schema import PAD

GROUPS: Final = 10
COLD: Final = "cold"


class Exposure(TypedDict):
    """One group of items: its share of the catalogue's training, of the targets, of the list places."""

    dataset: str
    split: str
    model: str
    k: int
    group: str
    items: int
    training_share: float
    target_share: float
    list_share: float


def popularity_groups(item_counts: Int64) -> Int32:
    """Return the group of every item, int32 [n_items + 1]: 1..10, 0 for cold items; PAD has -1.

    By falling training events, ties by item index; an item belongs to the tenth of the events in
    which its own begin.

    >>> popularity_groups(np.array([0, 6, 0, 4]))
    array([-1,  1,  0,  7], dtype=int32)
    """
    counts = item_counts[1:]
    order = np.argsort(-counts, kind="stable")
    total = max(1, int(counts.sum()))
    before = np.cumsum(counts[order]) - counts[order]
    groups = np.zeros(len(item_counts), dtype=np.int32)
    groups[1 + order] = np.where(counts[order] > 0, 1 + before * GROUPS // total, 0)
    groups[PAD] = -1
    return groups


def exposure_rows(
    dataset: str, split: str, model: str, k: int, ranked: RankedTargets, item_counts: Int64
) -> list[Exposure]:
    """Return the groups of one model's lists at cut-off k, each place of a list counting once."""
    groups = popularity_groups(item_counts)
    size = GROUPS + 1
    items = np.bincount(groups[1:], minlength=size)
    training = np.bincount(groups[1:], item_counts[1:], minlength=size)
    targets = np.bincount(groups[ranked.items], minlength=size)
    listed = ranked.top[:, :k].ravel()
    places = np.bincount(groups[listed[listed != PAD]], minlength=size)
    return [
        Exposure(
            dataset=dataset,
            split=split,
            model=model,
            k=k,
            group=str(group) if group else COLD,
            items=int(items[group]),
            training_share=float(training[group] / max(1, training.sum())),
            target_share=float(targets[group] / max(1, targets.sum())),
            list_share=float(places[group] / max(1, places.sum())),
        )
        for group in [*range(1, size), 0]
    ]
