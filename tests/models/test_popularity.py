from __future__ import annotations

import numpy as np
import pytest
import torch

from recsys.config import PopularityConfig
from recsys.data.batches import batch_from_lists
from recsys.data.sequences import SequenceStore, TrainingData
from recsys.models.popularity import OwnPopularity, Popularity

STORE = SequenceStore(
    items=np.array([1, 2, 2, 3, 2, 1, 5, 5], dtype=np.int32),
    offsets=np.array([0, 4, 8], dtype=np.int64),
    n_items=5,
)
DATA = TrainingData(STORE, np.array([4, 6], dtype=np.int64))  # 1 2 2 3 | 2 1; 5 5 is held out


def test_popularity_counts_training_events_only() -> None:
    model = Popularity(PopularityConfig(), 5)
    model.fit(DATA)
    scores = model.score(batch_from_lists([[3], [], [1, 2, 3]], None, 1))
    assert scores[:, 1:].tolist() == [[2, 3, 1, 0, 0]] * 3  # items 4 and 5 tie


def test_with_recency_an_event_counts_half_after_the_half_life() -> None:
    days = (
        np.array([0, 10, 20, 20, 0, 20, 90, 90]) * 86_400
    )  # the newest training event is of day 20
    store = SequenceStore(STORE.items, STORE.offsets, 5, timestamps=days)
    model = Popularity(PopularityConfig(recency_half_life=10), 5)
    model.fit(TrainingData(store, DATA.train_end))  # 1 2 2 3 on days 0 10 20 20, 2 1 on days 0 20
    assert model.score(batch_from_lists([[]], None, 1))[0, 1:].tolist() == [1.25, 1.75, 1, 0, 0]


def test_own_popularity_counts_the_history_then_fills_up() -> None:
    model = OwnPopularity(5)
    model.fit(DATA)
    histories = [[4, 1, 4], [], [5]]
    own, empty, single = model.score(batch_from_lists(histories, None, model.max_length))
    assert own[[1, 4]].tolist() == [1, 2]
    assert own[2] == empty[2] > own[3] == empty[3] > own[5] == empty[5]
    assert (own[[2, 3, 5]] < 0).all()
    assert empty.argsort(descending=True)[:3].tolist() == [2, 1, 3]
    assert empty[4] == empty[5]  # never seen in training: a tie
    assert single[5] == 1


def test_own_popularity_reads_a_thousand_events() -> None:
    model = OwnPopularity(5)
    model.fit(DATA)
    history = [3] * 5 + [1, 2] * 500
    scores = model.score(batch_from_lists([history], None, model.max_length))[0]
    assert scores[[1, 2]].tolist() == [500, 500]
    assert scores[3] < 0


@pytest.mark.parametrize("model", [Popularity(PopularityConfig(), 5), OwnPopularity(5)])
def test_scores_are_the_callers_to_change(model: Popularity | OwnPopularity) -> None:
    model.fit(DATA)
    batch = batch_from_lists([[1], [2]], None, 5)
    before = model.score(batch)
    model.score(batch)[0].fill_(-torch.inf)
    assert torch.equal(model.score(batch), before)
