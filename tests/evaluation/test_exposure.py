from __future__ import annotations

import numpy as np
import pytest

from recsys.evaluation.exposure import COLD, exposure_rows, popularity_groups
from recsys.evaluation.ranked import RankedTargets


def ranked(items: list[int], top: list[list[int]]) -> RankedTargets:
    n = len(items)
    return RankedTargets(
        index=np.arange(n),
        user=np.arange(n, dtype=np.int32),
        history_length=np.ones(n, dtype=np.int64),
        offsets=np.arange(n + 1),
        items=np.array(items, dtype=np.int32),
        ranks=np.ones(n),
        top=np.array(top, dtype=np.int32),
        n_targets=n,
        dropped=0,
        forbidden=0,
    )


def test_groups_hold_equal_shares_of_the_events() -> None:
    counts = np.array([0, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 0])
    assert popularity_groups(counts).tolist() == [-1, *range(1, 11), 0]
    skewed = popularity_groups(np.array([0, 50, 30, 10, 10]))
    assert skewed.tolist() == [-1, 1, 6, 9, 10]


def test_places_targets_and_training_are_counted_by_group() -> None:
    counts = np.array([0, 8, 2, 0])
    rows = exposure_rows("d", "test", "m", 2, ranked([1, 3], [[1, 2, 3], [1, 0, 0]]), counts)
    by_group = {row["group"]: row for row in rows}
    assert list(by_group) == [*map(str, range(1, 11)), COLD]
    assert by_group["1"]["list_share"] == pytest.approx(2 / 3)  # padding and the third place apart
    assert by_group["9"]["list_share"] == pytest.approx(1 / 3)
    assert by_group[COLD]["target_share"] == 0.5
    assert (by_group["1"]["training_share"], by_group["1"]["items"]) == (0.8, 1)
