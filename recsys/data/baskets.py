"""Which events belong together: baskets from times and from labels, for one history at a time.

The prepare stage makes the baskets of whole tables by the same rules (`recsys.data.checks`,
`recsys.data.ordering.group_baskets`).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from recsys.data.sequences import Int64


def baskets_of_times(times: Int64, minutes: float | None) -> Int64:
    """Return a basket id for each time in seconds, int64 [E]: floor(time / (60 minutes)).

    Without `minutes` events of one time are one basket.
    """
    if minutes is None:
        return times
    length = 60 * minutes
    if float(length).is_integer():
        return times // int(length)  # exact, also for times beyond 2**53
    return np.floor(times / length).astype(np.int64)


def number_labels(labels: Sequence[Hashable]) -> Int64:
    """Return labels as numbers 0, 1, ... in the order in which each appears first, int64 [E]."""
    seen: dict[Hashable, int] = {}
    return np.array([seen.setdefault(label, len(seen)) for label in labels], dtype=np.int64)
