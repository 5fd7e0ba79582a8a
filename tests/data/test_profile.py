from __future__ import annotations

import numpy as np
import pytest

from recsys.data.profile import PARTS, divergence, frequency_curve, parts_of_events, profile
from recsys.data.sequences import SequenceStore, Split, Targets

DAY = 86_400


def small() -> tuple[SequenceStore, Split]:
    """Two users of four and three events; the last of each tests, the one before validates."""
    items = np.array([1, 2, 1, 3, 2, 2, 4], dtype=np.int32)
    times = np.array([0, 1, 3, 7, 0, 2, 5], dtype=np.int64) * DAY
    offsets = np.array([0, 4, 7])
    end = offsets[1:]
    users = np.arange(2, dtype=np.int32)
    split = Split(end - 2, Targets(users, end - 2, end - 1), Targets(users, end - 1, end))
    return SequenceStore(items, offsets, 5, timestamps=times), split


def test_every_event_belongs_to_its_part() -> None:
    store, split = small()
    named = [PARTS[part] for part in parts_of_events(store, split)]
    first = ["training", "training", "validation", "test"]
    assert named == [*first, "training", "validation", "test"]


def test_counts_and_gaps_by_hand() -> None:
    store, split = small()
    found = profile(store, split, "absolute")
    totals = {name: sum(counts) for name, counts in found["volume"]["counts"].items()}
    assert totals == {"training": 3, "validation": 2, "test": 2, "unused": 0}
    assert sum(found["lengths"]["counts"]) == 2
    assert found["gap_medians"] == {"training": DAY, "validation": 2 * DAY, "test": 3.5 * DAY}
    assert {name: sum(c) for name, c in found["gaps"]["counts"].items()} == {
        "training": 1,
        "validation": 2,
        "test": 2,
    }
    assert found["regularity"]["undefined"] == 2  # one training gap, and none
    training, _, test = found["drift"]
    assert (training["events"], training["items"], training["item_divergence"]) == (3, 2, 0.0)
    assert (test["users_new"], test["events_of_new_items"]) == (0.0, 1.0)
    assert test["item_divergence"] == 1.0  # the test asks for items that were never trained


def test_without_a_clock_nothing_is_said_of_time() -> None:
    store, split = small()
    found = profile(store, split, "none")
    assert not {"volume", "gaps", "regularity"} & found.keys()
    assert "volume" not in profile(store, split, "relative")
    assert "gaps" in profile(store, split, "relative")


def test_the_tail_ends_with_the_least_frequent_item() -> None:
    found = frequency_curve(np.array([0, 7, 2, 1, 0]))
    assert (found["events"][0], found["events"][-1]) == (7, 1)
    assert (found["trained"], found["cold"]) == (3, 2)
    assert found["top_shares"]["1%"] == 0.7  # at least one item
    assert frequency_curve(np.zeros(3, dtype=np.int64))["rank"] == []


def test_divergence_is_symmetric_and_undefined_of_nothing() -> None:
    one, other = np.array([3, 1]), np.array([1, 3])
    assert divergence(one, other) == divergence(other, one)
    assert divergence(one, one) == pytest.approx(0.0)
    assert divergence(one, np.zeros(2, dtype=np.int64)) is None
