from __future__ import annotations

import numpy as np

from recsys.data.profile import spread_before
from recsys.data.sequences import SequenceStore, Split, Targets
from recsys.evaluation.ranked import RankedTargets
from recsys.evaluation.slices import (
    frequency_classes,
    gap_fifths,
    head_limit,
    history_bins,
    slice_targets,
)


def ranked_of(items: list[list[int]], user: list[int], lengths: list[int]) -> RankedTargets:
    counts = [len(own) for own in items]
    n = len(items)
    return RankedTargets(
        index=np.arange(n),
        user=np.array(user, dtype=np.int32),
        history_length=np.array(lengths),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        items=np.array([i for own in items for i in own], dtype=np.int32),
        ranks=np.ones(sum(counts)),
        top=np.ones((n, 1), dtype=np.int32),
        n_targets=n,
        dropped=0,
        forbidden=0,
    )


def test_history_bins_are_quartiles_with_the_empty_history_apart() -> None:
    bins = history_bins(np.array([0, 1, 2, 3, 4, 5, 6, 7, 8]))
    assert {name: inside.sum() for name, inside in bins.items()} == {
        "history 0": 1,
        "history 1-2": 2,
        "history 3-4": 2,
        "history 5-6": 2,
        "history 7-8": 2,
    }


def test_equal_quartiles_merge() -> None:
    bins = history_bins(np.array([1, 1, 1, 1, 1, 9]))
    assert {name: inside.sum() for name, inside in bins.items()} == {
        "history 0": 0,
        "history 1": 5,
        "history 2-9": 1,
    }


def test_every_positive_length_is_in_exactly_one_bin() -> None:
    lengths = np.random.default_rng(0).geometric(0.2, size=500) - 1
    assert (np.sum(list(history_bins(lengths).values()), axis=0) == 1).all()


def test_frequency_classes_by_hand() -> None:
    counts = np.array([0, 9, 5, 1, 1, 1, 0])  # one of five trained items is head
    assert head_limit(counts, 0.2) == 9
    ranked = ranked_of([[1], [2], [6], [1, 6], [3, 1, 1]], [0] * 5, [1] * 5)
    classes = frequency_classes(ranked, counts, 0.2)
    assert classes["item head"].tolist() == [True, False, False, False, True]
    assert classes["item tail"].tolist() == [False, True, False, True, False]
    assert classes["item cold"].tolist() == [False, False, True, False, False]


def test_slices_of_users_and_no_empty_ones() -> None:
    store = SequenceStore(np.array([1, 2, 1], np.int32), np.array([0, 2, 3]), 2)
    none = Targets(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64))
    split = Split(train_end=np.array([1, 2]), validation=none, test=none)
    ranked = ranked_of([[2], [1]], [0, 1], [1, 0])
    slices = slice_targets(ranked, store, split, np.array([0, 1, 0]), 0.2)
    assert {name: inside.tolist() for name, inside in slices.items()} == {
        "all": [True, True],
        "history 0": [False, True],
        "history 1": [True, False],
        "item head": [False, True],
        "item cold": [True, False],
        "user seen": [True, False],
        "user unseen": [False, True],
    }


def test_fifths_of_users_by_their_gaps_by_hand() -> None:
    spread = np.array([5.0, np.nan, 1.0, 3.0, 2.0, 4.0, 0.5])
    user = np.array([0, 1, 2, 2, 3, 4, 5], np.int32)  # the last one of the spreads has no target
    fifths = gap_fifths(spread, user)
    assert {name: np.flatnonzero(inside).tolist() for name, inside in fifths.items()} == {
        "gaps 1/5": [2, 3],
        "gaps 2/5": [5],
        "gaps 3/5": [4],
        "gaps 4/5": [6],
        "gaps 5/5": [0],
    }
    assert gap_fifths(np.full(7, np.nan), user) == {}
    merged = gap_fifths(np.array([2.0, 2.0, 2.0, 7.0]), np.arange(4, dtype=np.int32))
    assert [inside.tolist() for inside in merged.values()] == [
        [True] * 3 + [False],
        [False] * 3 + [True],
    ]


def test_the_spread_of_gaps_is_of_training_events_alone() -> None:
    times = np.array([0, 10, 20, 50, 0, 5])
    none = Targets(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int64))
    split = Split(train_end=np.array([3, 6]), validation=none, test=none)
    store = SequenceStore(np.ones(6, np.int32), np.array([0, 4, 6]), 1, timestamps=times)
    moved = SequenceStore(
        np.ones(6, np.int32), np.array([0, 4, 6]), 1, timestamps=times + 9 * (times == 50)
    )
    for each in (store, moved):
        spread = spread_before(each, split.train_end)
        assert spread[0] == 0 and np.isnan(spread[1])


def test_the_spread_of_baskets_is_from_one_to_the_next() -> None:
    """Two users' baskets at 0, 10, 30 and at 5, 6: how many items each holds, and when, is all one."""
    times = np.array([0, 1, 2, 10, 30, 31, 99, 5, 6, 6])
    store = SequenceStore(
        np.ones(10, np.int32),
        np.array([0, 7, 7, 10]),
        1,
        timestamps=times,
        baskets=np.array([0, 0, 0, 1, 2, 2, 3, 0, 1, 1], dtype=np.int32),
    )
    spread = spread_before(store, np.array([6, 7, 10]))
    assert spread[0] == np.std([10, 20], ddof=1)
    assert np.isnan(spread[1]) and np.isnan(spread[2])
