"""What was played last night: evidence by gap, against a slow count, and in Lag-Markov."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recsys.config import EvaluationConfig, LagMarkovConfig, check_clock
from recsys.data.batches import batch_from_lists
from recsys.data.sequences import SequenceStore, Targets, TrainingData
from recsys.errors import ConfigError
from recsys.evaluation.ranking import rank_targets
from recsys.models.gap_evidence import gap_evidence, gaps, newest_gaps
from recsys.models.lag_markov import LagMarkov

SONGS, LISTS, LENGTH = 24, 90, 6


def rotating(held: int = 0) -> TrainingData:
    """Lists that draw from what none of the two before had: a song rests for two lists at least."""
    rng = np.random.default_rng(0)
    lists: list[list[int]] = []
    for _ in range(LISTS):
        tired = {song for one in lists[-2:] for song in one}
        fresh = [song for song in range(1, SONGS + 1) if song not in tired]
        lists.append(rng.permutation(fresh)[:LENGTH].tolist())
    items = np.array([song for one in lists for song in one], dtype=np.int32)
    offsets = np.arange(LISTS + 1, dtype=np.int64) * LENGTH
    end = np.where(np.arange(LISTS) < LISTS - held, offsets[1:], offsets[:-1])
    times = np.repeat(np.arange(LISTS, dtype=np.int64), LENGTH)
    return TrainingData(SequenceStore(items, offsets, SONGS, timestamps=times), end)


@pytest.mark.parametrize("half_life", [None, 7.0])
def test_evidence_is_observed_over_expected(half_life: float | None) -> None:
    data, count = rotating(held=5), 3
    worth = np.linspace(0.5, 1, LISTS)
    lists = data.store.items.reshape(LISTS, LENGTH).tolist()[: LISTS - 5]
    forget = 1.0 if half_life is None else 0.5 ** (1 / half_life)
    observed, expected = np.zeros(5), np.zeros(5)
    for at in range(count, len(lists)):
        weights = [forget ** (at - before) for before in range(at)]
        for song in range(1, SONGS + 1):
            recent = [g for g in range(1, count + 1) if song in lists[at - g]]
            gap = recent[0] if recent else count + 1
            share = sum(w for w, x in zip(weights, lists, strict=False) if song in x) / sum(weights)
            observed[gap] += worth[at] * (song in lists[at])
            expected[gap] += worth[at] * share
    found = gap_evidence(data, count, worth, half_life)
    assert found[1:] == pytest.approx(np.log((observed[1:] + 1) / (expected[1:] + 1)), abs=1e-9)
    assert found[1] < -2 and found[2] < -2 and found[3] > 0.2


def test_gaps_of_a_batch_and_of_what_comes_after_training() -> None:
    items = torch.tensor([[2, 4, 4, 3], [1, 0, 0, 0]])
    ages = torch.tensor([[1, 1, 2, 2], [1, 0, 0, 0]])
    found = gaps(items, ages, 2, 5)[:, 1:]
    assert found.tolist() == [[3, 1, 2, 1, 3], [1, 3, 3, 3, 3]]
    data = rotating(held=5)
    newest = newest_gaps(data, 2)
    last, before = (data.store.items[(at - 1) * LENGTH : at * LENGTH] for at in (85, 84))
    assert set(newest[last].tolist()) == {1} and set(newest[before].tolist()) == {2}
    assert (newest[1:] == 3).sum() == SONGS - 2 * LENGTH


def fitted(data: TrainingData, previous: int) -> LagMarkov:
    model = LagMarkov(LagMarkovConfig(previous=previous), SONGS)
    model.fit(data)
    return model


def test_what_rests_is_not_expected() -> None:
    data = rotating(held=20)
    users = np.repeat(np.arange(LISTS - 20, LISTS), LENGTH).astype(np.int32)
    start = data.store.offsets[users] + np.tile(np.arange(LENGTH), 20)
    targets, rule = Targets(users, start, start + 1), EvaluationConfig(list_length=12)
    plain, reading = (
        rank_targets(fitted(data, n), data.store, targets, rule).ranks.mean() for n in (0, 2)
    )
    assert plain - reading > 4, "twelve songs of 24 are out of the question"


def test_a_history_of_its_own_begins_after_the_training() -> None:
    data = rotating()
    model = fitted(data, 2)
    scores = model.score(batch_from_lists([[]], None, 5))[0]
    tired = np.unique(data.store.items[-2 * LENGTH :])
    fresh = np.setdiff1d(np.arange(1, SONGS + 1), tired)
    assert scores[tired].max() < scores[fresh].min()
    again = LagMarkov(model.config, SONGS)
    again.load_state_dict(model.state_dict())
    assert torch.equal(
        again.score(batch_from_lists([[3]], None, 5)), model.score(batch_from_lists([[3]], None, 5))
    )
    weighted = LagMarkov(LagMarkovConfig(previous=2, previous_weight=2), SONGS)
    weighted.fit(data)
    assert weighted.by_gap[1:].tolist() == pytest.approx((2 * model.by_gap[1:]).tolist())
    assert math.isfinite(float(weighted.by_gap.sum()))


def test_it_needs_a_clock_that_lists_share() -> None:
    for clock in ("relative", "none"):
        with pytest.raises(ConfigError, match="previous is 3"):
            check_clock({"m": LagMarkovConfig(previous=3)}, clock)  # type: ignore[arg-type]
    check_clock({"m": LagMarkovConfig(previous=3)}, "absolute")
    check_clock({"m": LagMarkovConfig()}, "none")
