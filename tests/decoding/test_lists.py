"""One list of many: by reciprocal rank over lists and places."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.decoding import Lists


def lists(items: list[list[int]], groups: int, dead: tuple[int, ...] = ()) -> Lists:
    score = np.zeros((1, len(items)))
    score[0, list(dead)] = -np.inf
    array = np.array([items])
    first = np.array([[9, 8, 1, 7, 0]])
    return Lists(array, np.zeros(array.shape), score, groups, first, exact=True)


def test_groups_stand_side_by_side() -> None:
    assert lists([[1], [2], [3], [4]], groups=2).order.tolist() == [0, 2, 1, 3]


def test_the_merge_by_hand() -> None:
    """Ranks: [1, 2] 1, [3, 1] 2. Item 1: 1/1 + 1/3, item 2: 1/2, item 3: 1/2, seen later."""
    items, weights = lists([[1, 2], [3, 1]], groups=2).merged(3)
    assert items.tolist() == [[1, 2, 3]]
    assert weights[0] == pytest.approx([4 / 3, 1 / 2, 1 / 2])


def test_a_merged_list_is_full_and_has_no_duplicates() -> None:
    found = lists([[1, 2], [2, 1]], groups=1)
    assert found.merged(5)[0].tolist() == [[1, 2, 9, 8, 7]]
    assert found.merged(7)[0].tolist() == [[1, 2, 9, 8, 7, 0, 0]]
    assert found.merged(1)[0].tolist() == [[1]]
    assert found.merged(7)[1][0, 2:].tolist() == [0] * 5


def test_lists_that_were_not_made_count_for_nothing() -> None:
    found = lists([[1, 2], [0, 0], [3, 0]], groups=3, dead=(1,))
    assert found.merged(3)[0].tolist() == [[1, 2, 3]]
    assert found.log_probability[0].tolist() == [0.0, -np.inf, 0.0]
