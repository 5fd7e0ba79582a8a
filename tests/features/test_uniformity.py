"""Gap variances: the oracle, exactness against fractions, and order that does not matter."""

from __future__ import annotations

import math
import statistics
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import uniformity
from features.uniformity import GapMoments, gap_moments, join_squares, split_squares
from recsys.errors import DataError

HOUR = 3600
YEAR_9999 = 253_402_300_799


def moments(times: list[int]) -> GapMoments:
    return gap_moments(np.zeros(len(times), dtype=np.int64), np.array(times, dtype=np.int64), 1).of(
        0
    )


def exact(times: list[int]) -> float:
    """The variance by fractions, rounded once."""
    gaps = [Fraction(b - a) for a, b in pairwise(sorted(times))]
    return float(statistics.variance(gaps))


@pytest.mark.parametrize(("hours", "variance"), [([0, 1, 2, 3], 0.0), ([0, 1, 3, 4], 4_320_000.0)])
def test_the_oracle(hours: list[int], variance: float) -> None:
    assert moments([hour * HOUR for hour in hours]).variance() == variance


@pytest.mark.parametrize("times", [[], [5], [5, 9]])
def test_fewer_than_two_gaps_have_no_variance(times: list[int]) -> None:
    assert math.isnan(moments(times).variance())


Histories = st.lists(st.lists(st.integers(-YEAR_9999, YEAR_9999), max_size=12), max_size=6)


@given(Histories, st.randoms())
def test_every_owner_has_the_exactly_rounded_variance(
    histories: list[list[int]], random: object
) -> None:
    rows = [(owner, time) for owner, times in enumerate(histories) for time in times]
    random.shuffle(rows)  # type: ignore[attr-defined]
    owner = np.array([row[0] for row in rows], dtype=np.int64)
    times = np.array([row[1] for row in rows], dtype=np.int64)
    variances = gap_moments(owner, times, len(histories)).variance()
    for history, variance in zip(histories, variances.tolist(), strict=True):
        if len(history) < 3:
            assert math.isnan(variance)
        else:
            assert variance == exact(history)


def test_sums_carry_from_block_to_block(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    owner = np.sort(rng.integers(0, 4, 300))
    times = rng.integers(0, 1 << 39, 300)
    whole = gap_moments(owner, times, 5)
    monkeypatch.setattr(uniformity, "_BLOCK", 7)
    cut = gap_moments(owner, times, 5)
    for k in range(5):
        assert whole.of(k) == cut.of(k)
        mine = sorted(times[owner == k].tolist())
        gaps = [b - a for a, b in pairwise(mine)]
        assert whole.of(k) == GapMoments(len(gaps), sum(gaps), sum(gap * gap for gap in gaps))


def test_the_largest_sums_do_not_overflow() -> None:
    """A block as long as they come, of the largest gaps there are."""
    n = uniformity._BLOCK
    table = gap_moments(np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64), 1)
    gaps = np.full(n, (1 << uniformity.LIMB_BITS) - 1, dtype=np.int64)
    uniformity._add_block(table, np.zeros(n, dtype=np.int64), gaps)
    assert table.of(0).squares == n * ((1 << uniformity.LIMB_BITS) - 1) ** 2


def test_a_gap_of_ages_is_refused() -> None:
    with pytest.raises(DataError, match="35,000 years"):
        moments([0, 1 << 40])
    with pytest.raises(DataError, match="35,000 years"):
        moments([-(1 << 62), 1 << 62, (1 << 62) + 1])


@given(st.integers(0, 1 << 100))
def test_squares_are_taken_apart_and_put_together(squares: int) -> None:
    high, low = split_squares(squares)
    assert join_squares(high, low) == squares and 0 <= low < 1 << 40
