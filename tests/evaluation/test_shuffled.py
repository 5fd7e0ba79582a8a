from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from recsys.config import MarkovConfig
from recsys.data.batches import SequenceBatch, batch_from_lists, pack_histories
from recsys.data.sequences import SequenceStore, Targets, TrainingData
from recsys.evaluation.shuffled import Shuffled, Way, movable, shuffled_items
from recsys.models.markov import Markov

HISTORIES = [list(range(1, 9)), [], [11], list(range(21, 33)), [41, 42, 43]]
BASKETS = [[0, 0, 0, 1, 1, 1, 2, 2], [], [0], [0] * 4 + [1] * 8, [0, 1, 2]]


def batch(baskets: list[list[int]] | None = None) -> SequenceBatch:
    return batch_from_lists(HISTORIES, None, 12, baskets)


def histories(of: SequenceBatch) -> list[list[int]]:
    """Read the sequences of a batch back, oldest first."""
    return [[i for i in row if i][::-1] for row in of.recent(12).tolist()]


def shuffled(way: Way, seed: int, baskets: list[list[int]] | None = None) -> list[list[int]]:
    made = batch(baskets)
    return histories(replace(made, items=shuffled_items(made, way, seed)))


def test_a_history_keeps_its_items_and_loses_its_order() -> None:
    found = shuffled("whole", 1)
    assert [sorted(x) for x in found] == [sorted(x) for x in HISTORIES]
    assert found[0] != HISTORIES[0] and found[3] != HISTORIES[3]
    assert found != shuffled("whole", 2)


def test_every_order_of_three_is_as_likely() -> None:
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(3000):
        order = tuple(shuffled("whole", seed)[4])
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    assert max(abs(count - 500) for count in counts.values()) < 100  # 4.9 standard deviations


def test_the_newest_event_may_stay() -> None:
    for seed in range(20):
        found = shuffled("but_newest", seed)
        assert [x[-1] for x in found if x] == [x[-1] for x in HISTORIES if x]
    assert shuffled("but_newest", 3)[3] != HISTORIES[3]


def test_baskets_stay_together() -> None:
    moved = 0
    for seed in range(20):
        [first, *_, fourth, last] = shuffled("inside_baskets", seed, BASKETS)
        assert [set(first[:3]), set(first[3:6]), set(first[6:])] == [{1, 2, 3}, {4, 5, 6}, {7, 8}]
        assert set(fourth[:4]) == {21, 22, 23, 24}
        assert last == HISTORIES[4], "baskets of one item have nothing to move"
        moved += first != HISTORIES[0]
    assert moved > 10
    with pytest.raises(ValueError, match="needs a batch with baskets"):
        shuffled("inside_baskets", 0)


def test_the_neighbours_in_a_batch_do_not_matter() -> None:
    alone = batch_from_lists([HISTORIES[3]], None, 12)
    expected = histories(replace(alone, items=shuffled_items(alone, "whole", 5)))
    assert shuffled("whole", 5)[3] == expected[0]


def test_a_model_is_asked_with_the_shuffled_history() -> None:
    offsets = np.array([0, 4, 8])
    store = SequenceStore(np.array([1, 2, 3, 4, 2, 1, 4, 3], dtype=np.int32), offsets, 4)
    model = Markov(MarkovConfig(history=4), 4)
    model.fit(TrainingData(store, offsets[1:]))
    asked = batch_from_lists([[1, 2, 3]], None, 4)
    wrapped = Shuffled(model, "whole", 0)
    expected = model.score(replace(asked, items=shuffled_items(asked, "whole", 0)))
    assert torch.equal(wrapped.score(asked), expected)
    different = [
        not torch.equal(Shuffled(model, "whole", s).score(asked), model.score(asked))
        for s in range(9)
    ]
    assert any(different)
    nothing = batch_from_lists([[]], None, 4)
    assert torch.equal(wrapped.score(nothing), model.score(nothing))


def test_what_can_be_moved() -> None:
    items = np.arange(1, 9, dtype=np.int32)
    baskets = np.array([0, 1, 1, 2, 0, 0, 1, 2], dtype=np.int32)
    store = SequenceStore(items, np.array([0, 4, 8]), 8, baskets=baskets)
    user = np.array([0, 0, 0, 0, 1, 1, 1, 1], dtype=np.int32)
    start = np.array([0, 1, 2, 3, 4, 5, 6, 7])
    targets = Targets(user, start, start + 1)
    assert movable(store, targets, 9, "whole").tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert movable(store, targets, 9, "but_newest").tolist() == [0, 0, 0, 1, 0, 0, 0, 1]
    assert movable(store, targets, 9, "inside_baskets").tolist() == [0, 0, 0, 1, 0, 0, 1, 1]
    # The newest two alone are read: of user 1 at place 7 these are of two baskets.
    assert movable(store, targets, 2, "inside_baskets").tolist() == [0, 0, 0, 1, 0, 0, 1, 0]
    assert not movable(store, targets, 2, "but_newest").any()
    by_list = pack_histories(store, np.array([4]), np.array([7]), 2)
    assert histories(by_list) == [[6, 7]]
