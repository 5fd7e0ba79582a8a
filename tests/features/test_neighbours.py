"""Neighbours: the oracle, a plain count over all pairs, and independence of blocks and tasks."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest

from features import neighbours
from features.frequency import gap_variances
from features.neighbours import (
    ItemEvents,
    Windows,
    count_repeats,
    find_neighbours,
    pair_scores,
    pair_sums,
    user_weights,
)
from features.recent import recent_starts

A, B, C = 1, 2, 3
ORACLE = [[(A, 0), (B, 3600)], [(A, 0), (B, 7200), (C, 10800)], [(B, 14400), (C, 18000)]]

Log = list[list[tuple[int, int]]]


def windows_of(log: Log, n: int = 50, timed: bool = True) -> tuple[ItemEvents, Windows, np.ndarray]:
    """Return the events by item, the windows and the users of every item."""
    items = np.array([item for events in log for item, _ in events], dtype=np.int32)
    times = np.array([time for events in log for _, time in events], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum([len(events) for events in log])])
    starts, ends = recent_starts(offsets, offsets[1:], n), offsets[1:]
    user = np.repeat(np.arange(len(log)), np.diff(offsets)).astype(np.int32)
    inside = np.arange(len(items)) >= starts[user]
    repeats = np.zeros(len(items), dtype=np.int64)
    repeats[inside] = count_repeats(user[inside], items[inside])
    distinct = [len({item for item, _ in events[-n:]}) for events in log]
    item_users = np.zeros(items.max() + 1, dtype=np.int64)
    for events in log:
        for item in {item for item, _ in events[-n:]}:
            item_users[item] += 1
    position = np.flatnonzero(inside)
    position = position[np.argsort(items[position], kind="stable")]
    windows = Windows(
        items, times if timed else None, starts, ends, repeats, user_weights(np.array(distinct))
    )
    return ItemEvents(items[position], user[position], position), windows, item_users


def variances_of(log: Log, n_items: int) -> np.ndarray:
    item = np.array([item for events in log for item, _ in events], dtype=np.int32)
    times = np.array([time for events in log for _, time in events], dtype=np.int64)
    return gap_variances(item, times, n_items)


def plain_scores(log: Log, n: int, variances: np.ndarray) -> dict[tuple[int, int], float]:
    """The formulas, pair of events by pair of events."""
    weight: dict[tuple[int, int], float] = defaultdict(float)
    distances: dict[tuple[int, int], list[int]] = defaultdict(list)
    users: dict[int, int] = defaultdict(int)
    for events in log:
        window = events[-n:]
        mine = {item for item, _ in window}
        for item in mine:
            users[item] += 1
        for i in mine:
            for j in mine - {i}:
                weight[i, j] += 1 / math.log(1 + len(mine))
        for i, t in window:
            for j, other in window:
                if i != j:
                    distances[i, j].append(abs(t - other))
    scores = {}
    for (i, j), total in weight.items():
        s = total / math.sqrt(users[i] * users[j])
        delta = sum(distances[i, j]) / len(distances[i, j])
        variance = variances[j] if not math.isnan(variances[j]) else 99_999_999
        scores[i, j] = (
            0.4 * s / (1 + s) + 0.8 / (1 + math.log(1 + delta)) + 0.5 / (1 + math.log(1 + variance))
        )
    return scores


def made_log(seed: int = 0, users: int = 40) -> Log:
    rng = np.random.default_rng(seed)
    log = []
    for _ in range(users):
        n = int(rng.integers(1, 30))
        times = np.sort(rng.integers(0, 10**7, n))
        log.append(list(zip(rng.geometric(0.2, n).tolist(), times.tolist(), strict=True)))
    return log


def test_the_oracle() -> None:
    events, windows, item_users = windows_of(ORACLE)
    variances = variances_of(ORACLE, 3)
    assert variances[B] == 6.48e6 and math.isnan(variances[A]) and math.isnan(variances[C])
    assert item_users.tolist() == [0, 2, 3, 2]
    [sums] = pair_sums(events, windows, 4)
    pairs = list(zip(sums.item.tolist(), sums.other.tolist(), strict=True))
    assert pairs == [(A, B), (A, C), (B, A), (B, C), (C, A), (C, B)]
    means = dict(zip(pairs, (sums.seconds / sums.events).tolist(), strict=True))
    assert (means[A, B], means[A, C], means[B, C]) == (5400, 10800, 3600)
    s = sums.shares / np.sqrt(item_users[sums.item] * item_users[sums.other])
    found = dict(zip(pairs, s.tolist(), strict=True))
    assert found[A, B] == pytest.approx(0.66609, abs=5e-6)
    assert found[A, C] == pytest.approx(0.36067, abs=5e-6)
    assert found[B, C] == pytest.approx(0.66609, abs=5e-6)
    score = dict(zip(pairs, pair_scores(sums, item_users, variances).tolist(), strict=True))
    assert score[A, B] == pytest.approx(0.27327, abs=5e-6)
    assert score[A, C] == pytest.approx(0.20954, abs=5e-6)
    assert score[C, B] == pytest.approx(0.27695, abs=5e-6)
    best = find_neighbours(events, windows, item_users, variances, keep=10)
    assert {i: list(found) for i, found in best.items()} == {A: [B, C], B: [C, A], C: [B, A]}


@pytest.mark.parametrize("n", [4, 50])
def test_sums_over_blocks_are_the_formulas(n: int) -> None:
    log = made_log()
    events, windows, item_users = windows_of(log, n)
    variances = variances_of(log, len(item_users) - 1)
    expected = plain_scores(log, n, variances)
    found = {}
    for sums in pair_sums(events, windows, len(item_users)):
        scores = pair_scores(sums, item_users, variances)
        keys = zip(sums.item.tolist(), sums.other.tolist(), strict=True)
        found |= dict(zip(keys, scores.tolist(), strict=True))
    assert found == pytest.approx(expected, rel=1e-12)
    best = find_neighbours(events, windows, item_users, variances, keep=3)
    for item, chosen in best.items():
        mine = {j: round(score, 12) for (i, j), score in expected.items() if i == item}
        assert list(chosen) == sorted(mine, key=lambda j: (-mine[j], j))[:3]


def test_equal_scores_go_by_the_smaller_index() -> None:
    log = [[(A, 0), (B, 0), (C, 0), (4, 0), (5, 0)]]
    events, windows, item_users = windows_of(log)
    best = find_neighbours(events, windows, item_users, None, keep=2)
    assert list(best[A]) == [B, C] and list(best[5]) == [A, B]


def test_neither_blocks_nor_tasks_move_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    events, windows, item_users = windows_of(made_log(1))
    monkeypatch.setattr(neighbours, "PAIRS", 64)  # many items are cut into slices
    whole = list(pair_sums(events, windows, len(item_users)))
    some = np.searchsorted(events.item, [0, 3, 4, 9, 1000])
    cut = [
        sums
        for low, high in pairwise(some.tolist())
        for sums in pair_sums(events.slice(low, high), windows, len(item_users))
    ]
    for name in ("item", "other", "shares", "seconds", "events"):
        one, other = (np.concatenate([getattr(s, name) for s in x]) for x in (whole, cut))
        assert one.tobytes() == other.tobytes()


def test_without_times_only_co_consumption_counts() -> None:
    events, windows, item_users = windows_of(ORACLE, timed=False)
    [sums] = pair_sums(events, windows, 4)
    scores = pair_scores(sums, item_users, None, timed=False)
    assert scores[0] == pytest.approx(0.4 * 0.66609 / 1.66609, abs=5e-6)
    best = find_neighbours(events, windows, item_users, None, keep=1)
    assert list(best[B]) == [A]  # as near as C, and the smaller


def test_users_of_one_item_make_no_pairs() -> None:
    events, windows, item_users = windows_of([[(A, 0), (A, 5)], [(B, 1)]])
    assert find_neighbours(events, windows, item_users, None, keep=3) == {}


def test_keys_too_wide_for_one_sort_are_sorted_all_the_same() -> None:
    rng = np.random.default_rng(0)
    key = rng.integers(0, 1 << 62, 1000)
    key[::3] = key[0]
    expected = np.argsort(key, kind="stable")
    assert np.array_equal(neighbours._sorting_order(key), expected)
    assert np.array_equal(
        neighbours._sorting_order(key >> 40), np.argsort(key >> 40, kind="stable")
    )
