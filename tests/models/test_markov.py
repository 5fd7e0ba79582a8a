from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.config import MarkovConfig
from recsys.data.batches import batch_from_lists
from recsys.data.sequences import SequenceStore, TrainingData
from recsys.models import votes
from recsys.models.markov import Markov
from recsys.models.votes import popularity_fill


def data(
    lists: list[list[int]], n_items: int, times: list[int] | None = None, held: int = 0
) -> TrainingData:
    """Lists as a store; the last `held` events of each are not training; `times` are of the lists."""
    lengths = np.array([len(x) for x in lists])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = np.array([i for x in lists for i in x], dtype=np.int32)
    stamps = None if times is None else np.repeat(times, lengths).astype(np.int64)
    store = SequenceStore(items, offsets, n_items, timestamps=stamps)
    return TrainingData(store, np.maximum(offsets[1:] - held, offsets[:-1]))


def fitted(training: TrainingData, **changes: float) -> Markov:
    model = Markov(MarkovConfig(**changes), training.store.n_items)  # type: ignore[arg-type]
    model.fit(training)
    return model


def test_hand_computed() -> None:
    model = fitted(data([[1, 2, 3], [1, 2, 2, 4], [5, 1, 3]], 6))
    # 1 -> 2 twice, 1 -> 3 once; 2 -> 3, 2 -> 2, 2 -> 4 once; 5 -> 1 once.
    scores = model.score(batch_from_lists([[5, 2, 1], [6], []], None, 10))
    assert scores[0, [2, 3, 4, 1]].tolist() == pytest.approx([2 + 1 / 2, 1 + 1 / 2, 1 / 2, 1 / 3])
    popular_first = [1, 2, 3, 4]  # 3, 3, 2, 1 events; 5 has 1 too, 6 none
    assert (scores[1:, 1:] < 0).all()
    fill = scores[2]
    assert fill[1] == fill[2] > fill[3] > fill[4] == fill[5] > fill[6]
    assert torch.equal(scores[1], fill)
    assert popular_first == sorted(popular_first, key=lambda i: -float(fill[i]))
    assert scores[0, 6] < scores[0, 5] < 0


def test_only_the_newest_events_vote() -> None:
    training = data([[1, 2], [3, 4]], 4)
    scores = fitted(training, history=1).score(batch_from_lists([[1, 3]], None, 1))[0]
    assert scores[4] == 1
    assert scores[2] < 0


def test_recency_weighs_a_transition_by_the_age_of_its_later_event() -> None:
    day = 86_400
    training = data([[1, 2], [1, 3], [1, 4], [1]], 4, times=[0, 10 * day, 20 * day, 20 * day])
    model = fitted(training, recency_half_life=10)
    scores = model.score(batch_from_lists([[1]], None, 1))[0]
    assert scores[2:].tolist() == [0.25, 0.5, 1]
    fill = model.score(batch_from_lists([[]], None, 1))[0]
    assert fill[4] > fill[3] > fill[2]  # one event each, the newest counts most
    with pytest.raises(ValueError, match="set one of them"):
        MarkovConfig(half_life=2, recency_half_life=10)


def test_half_life_goes_by_the_time_of_the_last_event() -> None:
    lists = [[1, 2], [1, 3], [1, 4], [1]]
    by_index = fitted(data(lists, 4), half_life=2.0)
    batch = batch_from_lists([[1]], None, 10)
    # The single-event list transits nowhere, but it is a list: the one before it has age 1.
    assert by_index.score(batch)[0, 2:].tolist() == pytest.approx([0.5**1.5, 0.5**1.0, 0.5**0.5])
    by_time = fitted(data(lists, 4, times=[400, 100, 200, 300]), half_life=2.0)
    assert by_time.score(batch)[0, 2:].tolist() == pytest.approx([0.5**0.0, 0.5**1.5, 0.5**1.0])


def test_lists_without_training_events_have_no_age() -> None:
    training = data([[1, 2, 9], [9], [1, 3, 9], [9]], 9, held=1)
    scores = fitted(training, half_life=1.0).score(batch_from_lists([[1]], None, 10))[0]
    assert scores[[2, 3]].tolist() == pytest.approx([0.5, 1.0])


def test_held_out_events_do_not_move_it() -> None:
    one = fitted(data([[1, 2, 3, 4], [2, 1, 5]], 5, held=1), reach=3)
    other = fitted(data([[1, 2, 3, 5], [2, 1, 2]], 5, held=1), reach=3)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


def brute_force(
    lists: list[list[int]],
    history: list[int],
    n_items: int,
    depth: int,
    reach: int,
    half_life: float,
) -> list[float]:
    weight: dict[tuple[int, int], float] = defaultdict(float)
    present = [x for x in lists if x]
    for age, events in enumerate(reversed(present)):
        for i in range(len(events)):
            for lag in range(1, min(reach, i) + 1):
                weight[events[i - lag], events[i]] += 0.5 ** (age / half_life) / lag
    return [
        sum(weight[j, i] / d for d, j in enumerate(history[::-1][:depth], 1))
        for i in range(1, n_items + 1)
    ]


LISTS = st.lists(st.lists(st.integers(1, 6), max_size=7), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(
    LISTS,
    LISTS,
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from([0.5, 3.0]),
    st.integers(1, 5),
)
def test_equals_brute_force(
    lists: list[list[int]],
    histories: list[list[int]],
    depth: int,
    reach: int,
    half_life: float,
    block: int,
) -> None:
    training = data(lists, 6)
    model = fitted(training, history=depth, reach=reach, half_life=half_life)
    kept = votes.BLOCK_VOTES
    votes.BLOCK_VOTES = block  # the result must not depend on how votes are cut into blocks
    try:
        scores = model.score(batch_from_lists(histories, None, depth))
    finally:
        votes.BLOCK_VOTES = kept
    counts = training.item_counts()[1:]
    for row, history in zip(scores[:, 1:].tolist(), histories, strict=True):
        expected = brute_force(lists, history, 6, depth, reach, half_life)
        for i in range(6):
            if expected[i] > 0:
                assert row[i] == pytest.approx(expected[i], rel=1e-5)
            else:
                assert row[i] < 0
                filled = [(counts[k], row[k]) for k in range(6) if expected[k] == 0]
                assert all((c < counts[i]) == (r < row[i]) for c, r in filled)


def test_fill_keeps_order_and_ties_of_huge_counts() -> None:
    fill = popularity_fill(np.array([0, 3_000_000_001, 3_000_000_000, 5, 5, 0])).tolist()
    assert 0 > fill[1] > fill[2] > fill[3] == fill[4] > fill[5] >= -1
