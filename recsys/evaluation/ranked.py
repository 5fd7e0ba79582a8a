"""What a ranking leaves behind: one row per target, from which every figure is derived."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.data.sequences import Int32, Int64

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RankedTargets:
    """One row per target that has at least one relevant item.

    Attributes:
        index: int64 [T], the row of the target in the `Targets` that were ranked; ascending.
        user: int32 [T].
        history_length: int64 [T], events before the target.
        offsets: int64 [T + 1]; target t owns `offsets[t]:offsets[t + 1]` of the next two.
        items: int32 [P], the distinct relevant items, by rank, then by index.
        ranks: float64 [P], their ranks among all permitted items, from 1; infinite for an item that
            the exclusion forbids (only with `repeats: miss`).
        order: int32 [P], which of its target's items comes first, 0, second, 1, ...; or None where that
            means nothing (one item each, or baskets).
        top: int32 [T, L], the best permitted items, best first, filled up with 0 (PAD).
        n_targets: targets that were asked for.
        dropped: targets left out because the exclusion forbids all their items (or they have none).
        forbidden: relevant items that the exclusion forbids, of all targets.
    """

    index: Int64
    user: Int32
    history_length: Int64
    offsets: Int64
    items: Int32
    ranks: Float64
    top: Int32
    n_targets: int
    dropped: int
    forbidden: int
    order: Int32 | None = None

    def __len__(self) -> int:
        return len(self.index)

    @property
    def n_relevant(self) -> Int64:
        """Relevant items per target, int64 [T]."""
        return np.diff(self.offsets)
