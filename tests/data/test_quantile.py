from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.quantile import BINS, Distribution, histogram
from recsys.data.sequences import Int64

NUMBERS = st.one_of(
    st.lists(st.integers(-5, 5), min_size=1, max_size=12),
    st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=12),
)


def distribution(parts: list[Int64]) -> Distribution:
    def count(first: int, width: int) -> Int64:
        return np.sum([histogram(part, first, width) for part in parts], axis=0)

    values = np.concatenate(parts)
    return Distribution(count, int(values.min()), int(values.max()), len(values))


def scattered(numbers: list[int]) -> tuple[Int64, Distribution]:
    values = np.array(numbers, dtype=np.int64)
    return np.sort(values), distribution([values[0::3], values[1::3], values[2::3]])


@settings(max_examples=40)
@given(numbers=NUMBERS)
def test_every_order_statistic_is_exact(numbers: list[int]) -> None:
    ordered, spread = scattered(numbers)
    for rank, value in enumerate(ordered.tolist()):
        assert spread.value_at(rank) == value
        assert spread.below(value) == np.searchsorted(ordered, value)


@settings(max_examples=40)
@given(numbers=NUMBERS, share=st.floats(0.01, 0.99))
def test_the_newest_share_is_the_smallest_that_is_large_enough(
    numbers: list[int], share: float
) -> None:
    ordered, spread = scattered(numbers)
    wanted = max(1, round(share * len(ordered)))
    cut = spread.newest(share)
    assert cut == ordered[len(ordered) - wanted]
    assert (ordered >= cut).sum() >= wanted > (ordered > cut).sum()


def test_a_share_of_what_lies_before_a_cut() -> None:
    ordered, spread = scattered(list(range(100)))
    test = spread.newest(0.1)
    assert test == np.quantile(ordered, 0.9, method="higher") == 90
    assert spread.newest(0.1, before=test) == 81


def test_ties_make_the_newest_part_larger() -> None:
    _, spread = scattered([1, 2, 3, 3, 3, 3])
    assert spread.newest(0.2) == 3


def test_a_rank_out_of_range_is_an_error() -> None:
    _, spread = scattered([1, 2])
    with pytest.raises(ValueError, match="rank 2 is not among 2 values"):
        spread.value_at(2)


def test_the_histogram_leaves_out_what_is_outside() -> None:
    counts = histogram(np.array([-1, 0, 1, 2, 3, 2 * BINS - 1, 2 * BINS]), 0, 2)
    assert counts[:2].tolist() == [2, 2] and counts[-1] == 1 and counts.sum() == 5
