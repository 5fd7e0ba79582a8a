"""A share of the users to learn from, as a data set would be that is still small."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from recsys.data.sequences import Targets, TrainingData


def chosen_users(data: TrainingData, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Return a seeded share of the users with two training events, bool [U]; one of them at least.

    A smaller share of the same seed is a part of a larger one.
    """
    able = np.flatnonzero(data.lengths >= 2)
    count = min(len(able), max(1, round(share * len(able))))
    chosen = np.zeros(len(data.lengths), dtype=bool)
    chosen[np.random.default_rng(seed).permutation(able)[:count]] = True
    return chosen


def events_of(data: TrainingData, users: npt.NDArray[np.bool_]) -> TrainingData:
    """Return the data as if the other users had no training events."""
    begin = data.store.offsets[:-1]
    return replace(data, train_end=np.where(users, data.train_end, begin))


def targets_of(targets: Targets, users: npt.NDArray[np.bool_]) -> Targets:
    """Return the targets of these users, in their order."""
    kept = users[targets.user]
    return Targets(targets.user[kept], targets.start[kept], targets.end[kept])
