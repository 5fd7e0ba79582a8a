from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.config import FilterConfig
from recsys.data import leakage
from recsys.data.sequences import Split, Targets
from recsys.data.splits import Fold, Runs


def targets(*rows: tuple[int, int, int]) -> Targets:
    user, start, end = zip(*rows, strict=True) if rows else ((), (), ())
    return Targets(
        np.array(user, dtype=np.int32), np.array(start, np.int64), np.array(end, np.int64)
    )


# Users 4, 5, 6 with the events 0:4, 4:6, 6:9.
RUNS = Runs(
    offsets=np.array([0, 4, 6, 9]),
    first_user=4,
    timestamps=np.array([10, 20, 30, 30, 5, 40, 50, 60, 60]),
)
ITEMS = np.array([1, 2, 1, 3, 2, 1, 4, 4, 5], dtype=np.int32)
CORE = FilterConfig(min_user_events=5, min_item_events=2)
SPLIT = Split(
    train_end=np.array([2, 6, 6]),
    validation=targets((4, 2, 3)),
    test=targets((4, 3, 4), (6, 6, 7), (6, 7, 9)),
)


def test_the_table_of_a_small_split() -> None:
    counts = leakage.count_leakage(RUNS, ITEMS, 6, SPLIT)
    assert counts.newest_training == 40
    assert RUNS.timestamps is not None
    older = {
        "validation": leakage.count_older(RUNS.timestamps, SPLIT.validation, 40),
        "test": leakage.count_older(RUNS.timestamps, SPLIT.test, 40),
    }
    table = leakage.leakage_table(
        counts, Fold("main", 30, 45), older, cuts_are_times=True, filters=CORE
    )
    assert table["cuts"] == {
        "validation_from": "1970-01-01T00:00:30+00:00",
        "test_from": "1970-01-01T00:00:45+00:00",
        "test_until": None,
    }
    everything = "catalogue, min_user_events=5, min_item_events=2"
    assert table["chosen_over_all_events_test_included"] == everything
    assert table["training"] == {
        "events": 4,
        "users": 2,
        "items": 2,
        "newest_event": "1970-01-01T00:00:40+00:00",
    }
    assert table["users_in_validation_and_test"] == 1
    assert table["test"] == {
        "targets": 3,
        "events": 4,
        "users": 2,
        "users_also_in_training": 1,
        "users_without_training": 1,
        "targets_without_history": 1,
        "targets_tied_with_predecessor": 1,
        "items": 3,
        "items_without_training": 3,
        "events_of_items_without_training": 4,
        "events_older_than_newest_training": 1,
        "share_older_than_newest_training": 0.25,
    }
    assert table["validation"]["events_older_than_newest_training"] == 1
    assert table["validation"]["items_without_training"] == 0


def test_what_the_clock_cannot_tell_is_left_open() -> None:
    counts = leakage.count_leakage(Runs(RUNS.offsets, 4), ITEMS, 6, SPLIT)
    table = leakage.leakage_table(
        counts, Fold("main"), None, cuts_are_times=False, filters=FilterConfig()
    )
    assert counts.newest_training is None
    assert table["cuts"] is None
    assert table["chosen_over_all_events_test_included"] == "catalogue"
    assert table["training"]["newest_event"] is None
    assert table["test"]["events_older_than_newest_training"] is None
    assert table["test"]["share_older_than_newest_training"] is None
    assert table["test"]["targets_tied_with_predecessor"] == 0


def part(lengths: Sequence[int], first_user: int) -> leakage.LeakageCounts:
    """Return the counts of users that each train on all but their last event."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    drawn = [np.random.default_rng(first_user + u).integers(0, 9, n) for u, n in enumerate(lengths)]
    times = np.concatenate([np.sort(times) for times in drawn])
    end = offsets[1:]
    users = np.arange(len(lengths)) + first_user
    split = Split(
        end - 1,
        targets(),
        targets(*zip(users.tolist(), (end - 1).tolist(), end.tolist(), strict=True)),
    )
    items = (times % 4 + 1).astype(np.int32)
    return leakage.count_leakage(Runs(offsets, first_user, times), items, 5, split)


@given(lengths=st.lists(st.integers(1, 5), min_size=2, max_size=8), cut=st.integers(1, 7))
def test_counts_of_partitions_add_up(lengths: list[int], cut: int) -> None:
    cut = min(cut, len(lengths) - 1)
    added = part(lengths[:cut], 0) + part(lengths[cut:], cut)
    whole = part(lengths, 0)
    tables = [leakage.leakage_table(c, Fold("main"), None, False, CORE) for c in (added, whole)]
    assert tables[0] == tables[1]
    assert added.newest_training == whole.newest_training
    assert np.array_equal(added.item_training, whole.item_training)


def test_moments_beyond_the_calendar_stay_numbers() -> None:
    assert leakage.iso(10**15) == str(10**15)
    assert leakage.iso(None) is None
