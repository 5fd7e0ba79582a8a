"""A model that is shown every history in another order: what it loses by that is what order is worth.

Only the items that the model reads change places, among themselves; times, positions and baskets stay
where they are, and so does what an exclusion forbids. Ways to shuffle:

    whole            all events of the history
    but_newest       all but the newest event, which stays the newest
    inside_baskets   the events of each basket among themselves
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.data.batches import SequenceBatch
from recsys.data.ordering import run_starts, seeded_hash, stable_order
from recsys.data.sequences import Int64, SequenceStore, Targets
from recsys.models.contract import Model

Way = Literal["whole", "but_newest", "inside_baskets"]
WAYS: Final[tuple[Way, ...]] = get_args(Way)


class Shuffled(Model):
    """Scores as `model` does after a shuffle; the same history is always shuffled the same way.

    So the result does not depend on batches or threads. Another seed is another shuffle.
    """

    def __init__(self, model: Model, way: Way, seed: int) -> None:
        super().__init__(model.n_items)
        self.model = model
        self.max_length = model.max_length
        self.reads_times = model.reads_times
        self.reads_baskets = model.reads_baskets
        self.reads_previous = model.reads_previous
        self.way: Way = way
        self.seed = seed

    def score(self, batch: SequenceBatch, items: Tensor | None = None) -> Tensor:
        """Return the model's scores of the shuffled histories, float [B, C]."""
        if batch.items.numel() == 0:
            return self.model.score(batch, items)
        moved = shuffled_items(batch, self.way, self.seed).to(batch.items.device)
        return self.model.score(replace(batch, items=moved), items)


def shuffled_items(batch: SequenceBatch, way: Way, seed: int) -> Tensor:
    """Return the items of a batch with those of every history (or part of it) shuffled, int64 [R, L]."""
    items, segments, positions = (
        tensor.cpu().numpy().ravel() for tensor in (batch.items, batch.segments, batch.positions)
    )
    place = np.flatnonzero(segments)  # row by row; a history's places are neighbours
    row = place // batch.items.shape[1]
    starts = run_starts([row, segments[place]])
    draw = seeded_hash(seed, _signature(items[place], positions[place], starts), positions[place])
    parts = [np.cumsum(starts)]
    if way == "but_newest":
        parts.append(np.append(starts[1:], True).astype(np.int64))
    elif way == "inside_baskets":
        if batch.baskets is None:
            raise ValueError("inside_baskets needs a batch with baskets")
        parts.append(batch.baskets.cpu().numpy().ravel()[place])
    out = items.copy()
    out[place] = items[place][stable_order([*parts, draw])]
    return torch.from_numpy(out.reshape(tuple(batch.items.shape)))


def _signature(items: Int64, positions: Int64, starts: npt.NDArray[np.bool_]) -> Int64:
    """Return for every place a number that its whole history makes, int64 [P]."""
    mixed = seeded_hash(0, items, positions).astype(np.uint64)
    total: npt.NDArray[np.uint64] = np.add.reduceat(
        mixed, np.flatnonzero(starts)
    )  # wraps around, which is as good
    return np.asarray(total[np.cumsum(starts) - 1], dtype=np.int64)


def movable(
    store: SequenceStore, targets: Targets, max_length: int, way: Way
) -> npt.NDArray[np.bool_]:
    """Tell whose history has anything that this way could move, bool [T].

    At least two events that the model reads; beside the newest; or in one basket.
    """
    begin = np.maximum(store.offsets[targets.user], targets.start - max_length)
    if way == "whole":
        return targets.start - begin >= 2
    if way == "but_newest":
        return targets.start - begin >= 3
    if store.baskets is None:
        return np.zeros(len(targets), dtype=np.bool_)
    goes_on = np.append(False, store.baskets[1:] == store.baskets[:-1])
    before = np.append(0, np.cumsum(goes_on))  # event i goes on with i - 1: from begin + 1 on
    low = np.minimum(begin + 1, targets.start)
    return np.asarray(before[targets.start] - before[low] > 0)
