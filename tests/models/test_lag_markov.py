from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.config import LagMarkovConfig
from recsys.data.batches import batch_from_lists
from recsys.data.sequences import SequenceStore, TrainingData
from recsys.models.lag_markov import UNSEEN, LagMarkov


def data(lists: list[list[int]], n_items: int, held: int = 0) -> TrainingData:
    """Lists as a store; the last `held` events of each are not training."""
    offsets = np.concatenate([[0], np.cumsum([len(x) for x in lists])]).astype(np.int64)
    items = np.array([i for x in lists for i in x], dtype=np.int32)
    return TrainingData(
        SequenceStore(items, offsets, n_items), np.maximum(offsets[1:] - held, offsets[:-1])
    )


def fitted(training: TrainingData, **changes: float) -> LagMarkov:
    model = LagMarkov(LagMarkovConfig(**changes), training.store.n_items)  # type: ignore[arg-type]
    model.fit(training)
    return model


def slow(
    lists: list[list[int]],
    history: list[int],
    n_items: int,
    lags: int,
    decay: float,
    back_off: float,
    half_life: float,
) -> list[float]:
    """log p(i) + sum of decay^(d - 1) [log P_d(i | j) - log p(i)], from probabilities as they are defined."""
    present = [x for x in lists if x]
    worth = [0.5 ** (age / half_life) for age in reversed(range(len(present)))]
    count = [
        sum(w * x.count(i) for x, w in zip(present, worth, strict=True)) for i in range(n_items + 1)
    ]
    least = min((c for c in count if c > 0), default=0.0)
    count = [max(c, UNSEEN * least) if least else 1.0 for c in count]
    share = [c / sum(count[1:]) for c in count]
    scores = []
    for i in range(1, n_items + 1):
        score = math.log(share[i])
        for d, j in enumerate(history[::-1][:lags], 1):
            pair = after = 0.0
            for x, w in zip(present, worth, strict=True):
                for at in range(d, len(x)):
                    after += w * (x[at - d] == j)
                    pair += w * (x[at - d] == j and x[at] == i)
            p = (pair + back_off * share[i]) / (after + back_off)
            # The denominator is the same for all i: its log is left out of the model's score.
            score += decay ** (d - 1) * (
                math.log(p / share[i]) + math.log((after + back_off) / back_off)
            )
        scores.append(score)
    return scores


LISTS = st.lists(st.lists(st.integers(1, 6), max_size=7), min_size=1, max_size=6)


@settings(max_examples=40)
@given(LISTS, st.lists(st.integers(1, 6), max_size=6), st.integers(1, 4), st.floats(0.2, 1))
def test_it_is_the_naive_bayes_of_its_tables(
    lists: list[list[int]], history: list[int], lags: int, decay: float
) -> None:
    model = fitted(data(lists, 7), history=lags, decay=decay, back_off=2, half_life=3)
    found = model.score(batch_from_lists([history], None, lags))[0, 1:]
    expected = slow(lists, history, 7, lags, decay, 2, 3)
    assert found.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_what_follows_at_once_and_what_follows_later_are_told_apart() -> None:
    """1 is followed by 2 at once and by 3 after that; one table of both could not say which is when."""
    model = fitted(data([[1, 2, 3], [1, 2, 3], [4, 2, 5], [1, 6, 3]], 6), history=2, back_off=1)
    scores = model.score(batch_from_lists([[1], [1, 2], [4, 2], [1, 6]], None, 2))[:, 1:]
    assert (1 + scores.argmax(1)).tolist() == [2, 3, 5, 3]


def test_an_empty_history_has_popularity_and_unseen_items_come_last() -> None:
    model = fitted(data([[1, 2, 1], [2, 1]], 4))
    scores = model.score(batch_from_lists([[], [1, 1]], None, 5))
    assert scores[0, 1] == pytest.approx(math.log(3 / 5.04), abs=1e-6)
    assert scores[0, 1] > scores[0, 2] > scores[0, 3] == scores[0, 4]
    assert scores[1].isfinite().all() and scores[1, 3] == scores[1, 4]


def test_held_out_events_do_not_move_it_and_the_state_is_whole() -> None:
    one = fitted(data([[1, 2, 3, 4], [2, 1, 5]], 5, held=1))
    other = fitted(data([[1, 2, 3, 5], [2, 1, 2]], 5, held=1))
    again = LagMarkov(LagMarkovConfig(), 5)
    again.load_state_dict(one.state_dict())
    batch = batch_from_lists([[1, 2]], None, 5)
    assert torch.equal(again.score(batch), one.score(batch))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


def test_it_forgets_in_one_way() -> None:
    with pytest.raises(ValueError, match="set one of them"):
        LagMarkovConfig(half_life=2, recency_half_life=10)
