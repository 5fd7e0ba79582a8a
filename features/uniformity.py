"""How regular a sequence of events is: the sample variance of its gaps, from exact moments.

    variance = (n * sum(g^2) - sum(g)^2) / (n * (n - 1))        n gaps g in whole seconds, n >= 2

All three moments are kept as exact integers and the quotient is rounded once, so the result depends
neither on the order in which gaps come nor on how events are cut into partitions: a stream that is
counted one event at a time gives the batch's variance to the last bit. Low is uniform; undefined (NaN)
with fewer than two gaps. Source: UniRec (CIKM 2024, arXiv 2406.18470), sequence uniformity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from recsys.data.ordering import run_starts, stable_order
from recsys.data.sequences import Int32, Int64
from recsys.errors import DataError

Float64 = npt.NDArray[np.float64]

LIMB_BITS: Final = 40
"""A sum of squares is stored as `high * 2^40 + low`, two numbers that int64 holds."""
_LIMB: Final = 1 << LIMB_BITS
_HALF: Final = LIMB_BITS // 2
_BLOCK: Final = 1 << 22
"""Rows that are summed before carrying: 2^22 products below 2^41 stay below 2^63."""


@dataclass(frozen=True)
class GapMoments:
    """The moments of one sequence's gaps, as Python integers of any size."""

    count: int = 0
    total: int = 0
    squares: int = 0

    def add(self, gap: int) -> GapMoments:
        """Return the moments with one gap more."""
        return GapMoments(self.count + 1, self.total + gap, self.squares + gap * gap)

    def remove(self, gap: int) -> GapMoments:
        """Return the moments without a gap that was counted."""
        return GapMoments(self.count - 1, self.total - gap, self.squares - gap * gap)

    def variance(self) -> float:
        """Return the sample variance in seconds squared, NaN with fewer than two gaps."""
        n = self.count
        if n < 2:
            return float("nan")
        # Python divides integers of any size with one rounding.
        return (n * self.squares - self.total * self.total) / (n * (n - 1))


NO_GAPS: Final = GapMoments()


@dataclass(frozen=True)
class MomentTable:
    """The moments of K sequences, each int64 [K]; `squares = high * 2^40 + low`."""

    count: Int64
    total: Int64
    high: Int64
    low: Int64

    def of(self, k: int) -> GapMoments:
        """Return the moments of sequence k."""
        squares = int(self.high[k]) * _LIMB + int(self.low[k])
        return GapMoments(int(self.count[k]), int(self.total[k]), squares)

    def variance(self) -> Float64:
        """Return the sample variances in seconds squared, NaN with fewer than two gaps."""
        result = np.full(len(self.count), np.nan)
        where = np.flatnonzero(self.count >= 2)
        # Arrays of Python integers: nothing overflows, and `/` rounds once, as in `GapMoments`.
        n, total, high, low = (
            column[where].astype(object) for column in (self.count, self.total, self.high, self.low)
        )
        result[where] = ((n * (high * _LIMB + low) - total * total) / (n * (n - 1))).astype(float)
        return result


def split_squares(squares: int) -> tuple[int, int]:
    """Return a sum of squares as `(high, low)` with `squares = high * 2^40 + low`."""
    return divmod(squares, _LIMB)


def join_squares(high: int, low: int) -> int:
    """Return the sum of squares that `split_squares` took apart."""
    return high * _LIMB + low


def in_order(owner: Int32 | Int64, times: Int64) -> tuple[Int32 | Int64, Int64]:
    """Return rows sorted by owner, then time; as they are where they already are."""
    later = times[1:] >= times[:-1]
    if bool(np.all((owner[1:] > owner[:-1]) | ((owner[1:] == owner[:-1]) & later))):
        return owner, times
    order = stable_order([owner, times])
    return owner[order], times[order]


def gap_moments(owner: Int32 | Int64, times: Int64, n_owners: int) -> MomentTable:
    """Return the moments of the gaps between events of one owner that follow each other in time.

    Args:
        owner: [E], which of `n_owners` sequences (users, or items) an event belongs to; in any order.
        times: int64 [E] seconds.
        n_owners: length of the table; owners without two events have no gaps.

    Raises:
        DataError: a gap of more than 2^40 seconds (35,000 years), which is no time of events.
    """
    owner, times = in_order(owner, times)
    same = owner[1:] == owner[:-1]
    gaps, of = np.diff(times)[same], owner[1:][same]
    if len(gaps) and (int(gaps.max()) >= _LIMB or int(gaps.min()) < 0):  # negative: an overflow
        raise DataError(
            f"two events lie more than {_LIMB} seconds (35,000 years) apart; check data.time_unit "
            "and the times"
        )
    table = MomentTable(*(np.zeros(n_owners, dtype=np.int64) for _ in range(4)))
    for first in range(0, len(gaps), _BLOCK):
        _add_block(table, of[first : first + _BLOCK], gaps[first : first + _BLOCK])
    return table


def _add_block(table: MomentTable, owner: Int32 | Int64, gaps: Int64) -> None:
    """Add gaps, sorted by owner, to the table in place."""
    starts = np.flatnonzero(run_starts([owner]))
    who = owner[starts]
    # g = a * 2^20 + b, so g^2 = a^2 * 2^40 + 2ab * 2^20 + b^2, every sum of which fits int64.
    a, b = gaps >> _HALF, gaps & ((1 << _HALF) - 1)
    high = np.add.reduceat(a * a, starts)
    middle = np.add.reduceat(2 * a * b, starts)
    low = np.add.reduceat(b * b, starts)
    high += middle >> _HALF
    low += (middle & ((1 << _HALF) - 1)) << _HALF
    low += table.low[who]
    table.high[who] += high + (low >> LIMB_BITS)
    table.low[who] = low & (_LIMB - 1)
    table.count[who] += np.diff(np.append(starts, len(gaps)))
    table.total[who] += np.add.reduceat(gaps, starts)
