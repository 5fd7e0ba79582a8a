"""Sums over pairs against loops over all of them, whichever way rows are cut."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from scipy import sparse

import recsys.models.pairs as module
from recsys.data.sequences import Int32, Int64
from recsys.models.pairs import Block, Float64, basket_pair_blocks, count_pairs, pair_blocks

SIZE = 9
Worth = Callable[[Int64, Int64, int], Float64]


def log_(seed: int = 0, events: int = 120) -> tuple[Int64, Int32, Int32, Float64]:
    """Users, items, baskets (equal side by side) and a worth of every event."""
    rng = np.random.default_rng(seed)
    users = np.sort(rng.integers(0, 12, events))
    items = rng.integers(1, SIZE, events).astype(np.int32)
    baskets = np.cumsum(rng.integers(0, 2, events)).astype(np.int32)
    return users, items, baskets, rng.uniform(0.1, 1, events)


def whole(blocks: list[Block]) -> Float64:
    return np.vstack([block.toarray() for _, block in blocks])


@pytest.fixture(params=[8_000_000, 60, 1])
def cut(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """One block, some, or one for every row."""
    monkeypatch.setattr(module, "BLOCK_PAIRS", request.param)
    return int(request.param)


@pytest.mark.parametrize("backward", [0.0, 0.5])
def test_events_are_counted_as_a_loop_counts_them(cut: int, backward: float) -> None:
    users, items, _, value = log_()
    expected = np.zeros((SIZE, SIZE))
    for j in range(len(items)):
        for i in range(j + 1, min(j + 4, len(items))):
            if users[i] == users[j]:
                counts = (value[i] + value[j]) / (i - j)
                expected[items[j], items[i]] += counts
                expected[items[i], items[j]] += backward * counts
    blocks = list(
        pair_blocks(users, items, SIZE, 3, lambda j, i, lag: (value[i] + value[j]) / lag, backward)
    )
    np.testing.assert_allclose(whole(blocks), expected, atol=1e-12)
    assert [rows.start for rows, _ in blocks] == [0, *(rows.stop for rows, _ in blocks[:-1])]
    assert (len(blocks) == 1) == (cut == 8_000_000)


def by_baskets(
    users: Int64, items: Int32, baskets: Int32, value: Float64, reach: int, backward: float
) -> Float64:
    """Every pair of events of a user, at most `reach` baskets apart."""
    found = np.zeros((SIZE, SIZE))
    names = list(dict.fromkeys(zip(users, baskets, strict=True)))
    lists = {n: [e for e in range(len(items)) if (users[e], baskets[e]) == n] for n in names}
    for g, name in enumerate(names):
        for j in lists[name]:
            for h in range(g, len(names)):
                if names[h][0] != name[0] or h - g > reach:
                    continue
                others = [i for i in lists[names[h]] if i != j]
                for i in others:
                    counts = value[lists[names[h]][-1]] / (1 + h - g) / len(others)
                    if h == g:
                        found[items[j], items[i]] += counts * (1 + backward) / 2
                    else:
                        found[items[j], items[i]] += counts
                        found[items[i], items[j]] += backward * counts
    return found


@pytest.mark.parametrize(("reach", "backward"), [(1, 0.0), (3, 0.5), (30, 1.0)])
def test_baskets_are_counted_as_a_loop_counts_them(cut: int, reach: int, backward: float) -> None:
    users, items, baskets, value = log_(1)
    expected = by_baskets(users, items, baskets, value, reach, backward)
    blocks = list(
        basket_pair_blocks(
            users, items, baskets, SIZE, reach, lambda _, i, distance: value[i], backward
        )
    )
    np.testing.assert_allclose(whole(blocks), expected, atol=1e-12)
    assert (len(blocks) == 1) == (cut == 8_000_000)


def test_an_item_is_no_neighbour_of_itself_but_where_it_comes_again() -> None:
    users, baskets = np.zeros(4, dtype=np.int64), np.array([0, 0, 0, 1], dtype=np.int32)

    def own(items: list[int]) -> sparse.csr_array:
        [(_, block)] = basket_pair_blocks(
            users,
            np.array(items, dtype=np.int32),
            baskets,
            SIZE,
            1,
            lambda j, i, d: np.ones(len(i)),
        )
        return block

    once = own([1, 2, 3, 4])
    assert once.diagonal().tolist() == [0] * SIZE and 0 not in once.data
    assert own([1, 2, 3, 1])[1, 1] == 0.5  # in the next basket, one step away
    # Two of three: each has the other, one of its two companions, at half.
    assert own([1, 1, 3, 4])[1, 1] == pytest.approx(2 * 0.5 / 2)


@pytest.mark.parametrize("by_basket", [False, True])
def test_memory_is_that_of_a_block(by_basket: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the events in blocks of the same size take far less than ten times the memory."""
    monkeypatch.setattr(module, "BLOCK_PAIRS", 100_000)

    def peak(events: int) -> int:
        rng = np.random.default_rng(0)
        users = np.repeat(np.arange(events // 20, dtype=np.int64), 20)
        items = rng.integers(1, 200, events).astype(np.int32)
        baskets = np.arange(events, dtype=np.int32)
        worth: Worth = lambda j, i, lag: np.full(len(i), 1.0)  # noqa: E731
        tracemalloc.start()
        blocks = (
            basket_pair_blocks(users, items, baskets, 200, 10, worth, 0.5)
            if by_basket
            else pair_blocks(users, items, 200, 10, worth, 0.5)
        )
        for _ in blocks:
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(200_000) < 4 * peak(20_000)


def test_rows_stacked_are_the_whole(cut: int) -> None:
    users, items, _, value = log_(2)
    worth: Worth = lambda _, i, lag: value[i] / lag  # noqa: E731
    stacked = count_pairs(users, items, SIZE, 2, worth)
    assert stacked.shape == (SIZE, SIZE)
    np.testing.assert_allclose(
        stacked.toarray(), whole(list(pair_blocks(users, items, SIZE, 2, worth))), atol=1e-12
    )
