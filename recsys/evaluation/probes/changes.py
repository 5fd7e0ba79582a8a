"""Changes of order: what the permutation probe does to a list.

    shuffle   of all places a share is drawn, and the songs there are shuffled among themselves
    block     the same of a run of neighbouring places
    reverse   a run of neighbouring places is turned around

The share is of the list's length, rounded, at least two places. A change that leaves the list as it was
is drawn again, `TRIES` times; a list that stays as it was (all its songs are one) has no change.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from recsys.config.probes import Change
from recsys.data.sequences import Int32

TRIES: Final = 20


def changed(items: Int32, change: Change, share: float, rng: np.random.Generator) -> Int32 | None:
    """Return the list int32 [L] with another order of the same songs, or None if there is none."""
    count = min(len(items), max(2, int(np.floor(share * len(items) + 0.5))))
    for _ in range(TRIES):
        if len(items) < 2:
            return None
        first = int(rng.integers(len(items) - count + 1))
        match change:
            case "shuffle":
                places = np.sort(rng.choice(len(items), count, replace=False))
                order = rng.permutation(count)
            case "block":
                places = np.arange(first, first + count)
                order = rng.permutation(count)
            case "reverse":
                places = np.arange(first, first + count)
                order = np.arange(count)[::-1]
        other = items.copy()
        other[places] = items[places][order]
        if not np.array_equal(other, items):
            return other
    return None
