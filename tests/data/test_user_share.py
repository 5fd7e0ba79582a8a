"""A share of the users to learn from."""

from __future__ import annotations

import numpy as np

from recsys.data.sequences import SequenceStore, Targets, TrainingData
from recsys.data.user_share import chosen_users, events_of, targets_of


def data() -> TrainingData:
    lengths = np.array([3, 1, 0] + [4] * 97)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = np.arange(1, offsets[-1] + 1, dtype=np.int32)
    return TrainingData(SequenceStore(items, offsets, int(offsets[-1])), offsets[1:])


def test_a_share_is_seeded_and_part_of_a_larger_one() -> None:
    tenth, half = chosen_users(data(), 0.1, 4), chosen_users(data(), 0.5, 4)
    assert (tenth.sum(), half.sum()) == (10, 49)
    assert half[tenth].all() and not half[[1, 2]].any()
    assert not np.array_equal(tenth, chosen_users(data(), 0.1, 5))
    assert chosen_users(data(), 1e-9, 4).sum() == 1
    assert chosen_users(data(), 1.0, 4).sum() == 98


def test_the_others_have_no_training_events_and_ask_nothing() -> None:
    users = chosen_users(data(), 0.1, 4)
    some = events_of(data(), users)
    assert np.array_equal(some.lengths > 0, users)
    assert some.item_counts().sum() == data().lengths[users].sum()
    end = data().train_end
    targets = targets_of(Targets(np.arange(100, dtype=np.int32), end - 1, end), users)
    assert np.array_equal(targets.user, np.flatnonzero(users))
