from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.filters import core_round, distinct_pairs, new_indices

PAIRS = st.lists(st.tuples(st.integers(0, 7), st.integers(1, 6)), min_size=1, max_size=60)


def naive_core(pairs: set[tuple[int, int]], min_items: int, min_users: int) -> set[tuple[int, int]]:
    """Drop users, then items, one rule at a time, until nothing changes."""
    while True:
        users = {u for u, _ in pairs if sum(v == u for v, _ in pairs) >= min_items}
        kept = {(u, i) for u, i in pairs if u in users}
        items = {i for _, i in kept if sum(j == i for _, j in kept) >= min_users}
        kept = {(u, i) for u, i in kept if i in items}
        if kept == pairs:
            return kept
        pairs = kept


@given(
    pairs=PAIRS,
    min_items=st.integers(1, 4),
    min_users=st.integers(1, 4),
    cut=st.integers(0, 8),
)
def test_rounds_over_two_partitions_reach_the_naive_core(
    pairs: list[tuple[int, int]], min_items: int, min_users: int, cut: int
) -> None:
    user, item = (np.array(column, dtype=np.int32) for column in zip(*pairs, strict=True))
    left = user < cut
    parts = [
        (*distinct_pairs(user[left], item[left]), cut),
        (*distinct_pairs(user[~left] - cut, item[~left]), 8 - cut),
    ]
    before, alive = None, np.ones(7, dtype=bool)
    while before is None or not np.array_equal(alive, before):
        rounds = [core_round(u, i, n, alive, min_items) for u, i, n in parts]
        users = np.concatenate([found.users for found in rounds])
        counts = np.sum([found.item_users for found in rounds], axis=0)
        before, alive = alive, counts >= min_users
    core = naive_core(set(pairs), min_items, min_users)
    assert {(u, i) for u, i in pairs if users[u] and alive[i]} == core
    assert set(np.flatnonzero(users).tolist()) >= {u for u, _ in core}
    assert set(np.flatnonzero(alive).tolist()) == {i for _, i in core}


def test_repeats_count_once() -> None:
    user, item = distinct_pairs(
        np.array([1, 0, 1, 1], dtype=np.int32), np.array([2, 2, 2, 1], dtype=np.int32)
    )
    assert user.tolist() == [0, 1, 1]
    assert item.tolist() == [2, 1, 2]
    found = core_round(user, item, 2, np.ones(3, dtype=bool), min_items=2)
    assert found.users.tolist() == [False, True]
    assert found.item_users.tolist() == [0, 1, 1]


def test_what_stays_is_numbered_anew() -> None:
    alive = np.array([False, True, False, True])
    assert new_indices(alive, first=1).tolist() == [-1, 1, -1, 2]
    assert new_indices(~alive).tolist() == [0, -1, 1, -1]
