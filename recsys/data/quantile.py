"""Exact order statistics of numbers that no process holds together.

Each round asks every partition for a histogram of the current range, and narrows the range to the
bin that holds the wanted rank; bins shrink to one value in a few rounds (64 bits: four).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from recsys.data.sequences import Int64

BINS = 1 << 16


def histogram(values: Int64, first: int, width: int) -> Int64:
    """Count values per bin of `width` from `first` on, int64 [BINS]; values outside are left out.

    Bin b counts the values in `first + b * width : first + (b + 1) * width`.
    """
    last = min(first + width * BINS - 1, np.iinfo(np.int64).max)
    inside = values[(values >= first) & (values <= last)]
    # Differences of 64-bit numbers need 64 bits without a sign.
    distance = inside.astype(np.uint64) - np.uint64(first % (1 << 64))
    bins = (distance // np.uint64(width)).astype(np.int64)
    return np.bincount(bins, minlength=BINS).astype(np.int64)


@dataclass(frozen=True)
class Distribution:
    """Numbers spread over partitions.

    Attributes:
        count: `count(first, width)` is `histogram(values, first, width)` summed over all partitions.
        low, high: bounds of all values, both included.
        total: how many values there are.
    """

    count: Callable[[int, int], Int64]
    low: int
    high: int
    total: int

    def value_at(self, rank: int) -> int:
        """Return the value of this rank; 0 is the smallest."""
        if not 0 <= rank < self.total:
            raise ValueError(f"rank {rank} is not among {self.total} values")
        low, high = self.low, self.high
        while True:
            width = -(-(high - low + 1) // BINS)
            upto = np.cumsum(self.count(low, width))
            chosen = int(np.searchsorted(upto, rank, side="right"))
            if width == 1:
                return low + chosen
            rank -= int(upto[chosen - 1]) if chosen else 0
            low, high = low + chosen * width, min(high, low + (chosen + 1) * width - 1)

    def below(self, value: int) -> int:
        """Return how many values are smaller than `value`."""
        return int(self.count(self.low, value - self.low)[0]) if value > self.low else 0

    def newest(self, share: float, before: int | None = None) -> int:
        """Return the value from which on the newest `share` lies, of the values below `before`.

        With t values below, the value of rank `t - max(1, round(share * t))`: values equal to it
        belong to the newest part, so ties make that part larger, never smaller.
        """
        total = self.total if before is None else self.below(before)
        return self.value_at(total - min(max(1, round(share * total)), total))
