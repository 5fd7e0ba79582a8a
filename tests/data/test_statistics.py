"""Splits by regularity and frequency, and what is written is what is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recsys.data.statistics import FrequencyBy, TrainingStatistics
from recsys.errors import ArtifactError


def statistics(**changes: object) -> TrainingStatistics:
    variances = np.array([np.nan, 1, 2, 3, 4, np.nan, 5, 6, 7, 8, 9])
    given = {
        "user_gap_variance": np.array([0.0, 4.32e6, 100.0, 9e6, 5e5]),
        "item_gap_variance": variances,
        "item_counts": np.array([0, 5, 9, 9, 1, 0, 2, 3, 4, 6, 7]),
    }
    return TrainingStatistics(**{**given, **changes})  # type: ignore[arg-type]


def test_the_lowest_variances_are_the_uniform_users() -> None:
    assert statistics().uniform_users(0.4).tolist() == [True, False, True, False, False]


def test_users_without_a_variance_are_not_uniform() -> None:
    some = statistics(user_gap_variance=np.array([np.nan, 3.0, 1.0, np.nan, 2.0]))
    assert some.uniform_users(0.7).tolist() == [False, False, True, False, True]


def test_the_lowest_item_variances_are_frequent() -> None:
    found = np.flatnonzero(statistics().frequent_items(0.34))
    assert found.tolist() == [1, 2, 3]
    rank = statistics().frequency_rank()
    trained = np.delete(np.arange(11), [0, 5])
    np.testing.assert_allclose(rank[trained], np.arange(9) * 100 / 8)
    assert rank[0] == rank[5] == 100


def test_items_with_an_undefined_variance_are_the_rarest() -> None:
    variances = np.array([np.nan, np.nan, 2.0, np.nan, 1.0])
    some = statistics(item_gap_variance=variances, item_counts=np.array([0, 1, 1, 1, 1]))
    assert np.flatnonzero(some.frequent_items(1.0)).tolist() == [2, 4]
    np.testing.assert_allclose(some.frequency_rank(), [100, 250 / 3, 100 / 3, 250 / 3, 0])


def test_by_count_the_most_taken_are_frequent_and_untaken_items_never() -> None:
    some = statistics()
    assert np.flatnonzero(some.frequent_items(0.34, "count")).tolist() == [2, 3, 10]
    assert np.flatnonzero(~some.frequent_items(1.0, "count")).tolist() == [0, 5]
    assert (
        some.frequency_rank("count")[2] == some.frequency_rank("count")[3] == pytest.approx(50 / 8)
    )


@pytest.mark.parametrize("by", ["gap_variance", "count"])
def test_items_that_training_does_not_know_move_nothing(by: FrequencyBy) -> None:
    before = statistics()
    more = statistics(
        item_counts=np.concatenate([before.item_counts, np.zeros(50, dtype=np.int64)]),
        item_gap_variance=np.concatenate([before.item_gap_variance, np.full(50, np.nan)]),
    )
    known, new = np.split(more.frequent_items(0.6, by), [11])
    assert known.sum() == 5 and not new.any()
    np.testing.assert_array_equal(known, before.frequent_items(0.6, by))
    np.testing.assert_array_equal(more.frequency_rank(by)[:11], before.frequency_rank(by))


def test_a_clock_without_gaps_is_told() -> None:
    bare = statistics(user_gap_variance=None, item_gap_variance=None)
    with pytest.raises(ArtifactError, match="no gaps"):
        bare.uniform_users()
    with pytest.raises(ArtifactError, match="frequency by count"):
        bare.frequent_items()


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    statistics(user_gap_variance=None).save(tmp_path)
    loaded = TrainingStatistics.load(tmp_path)
    assert loaded.user_gap_variance is None and loaded.neighbours is None
    np.testing.assert_array_equal(loaded.item_counts, statistics().item_counts)
    with pytest.raises(ArtifactError, match="features stage"):
        TrainingStatistics.load(tmp_path / "none")
