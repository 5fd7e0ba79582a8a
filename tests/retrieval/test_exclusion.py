from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.sequences import SequenceStore, Targets
from recsys.errors import DataError
from recsys.retrieval import Exclusion, Histories, exact_topk

N = 12
items = st.integers(1, N)
rules = st.builds(
    Exclusion,
    seen=st.booleans(),
    window=st.none() | st.integers(1, 4),
    blocked=st.none() | st.lists(items, max_size=4),
    allowed=st.none() | st.lists(items, max_size=N),
)
histories = st.lists(st.lists(st.integers(0, N), max_size=8), min_size=1, max_size=5)


def forbidden_by_hand(rule: Exclusion, history: list[int]) -> set[int]:
    closed = {0} | set(rule.blocked.tolist())
    if rule.seen:
        closed |= set(history if rule.window is None else history[-rule.window :])
    if rule.allowed is not None:
        closed |= set(range(N + 1)) - set(rule.allowed.tolist())
    return closed


def test_histories_of_targets_are_all_events_before_them() -> None:
    store = SequenceStore(
        items=np.array([3, 1, 2, 5, 4], dtype=np.int32), offsets=np.array([0, 3, 5]), n_items=5
    )
    targets = Targets(np.array([0, 1], np.int32), np.array([2, 3]), np.array([3, 4]))
    rows, seen = Histories.of_targets(store, targets).pairs()
    assert rows.tolist() == [0, 0]
    assert seen.tolist() == [3, 1]
    assert Histories.of_targets(store, targets, slice(1, 2)).pairs()[1].tolist() == []


def test_pairs_of_a_window_are_the_newest_events() -> None:
    rows, seen = Histories.from_lists([[1, 2, 3], [], [4]]).pairs(window=2)
    assert rows.tolist() == [0, 0, 2]
    assert seen.tolist() == [2, 3, 4]


def test_mask_by_hand() -> None:
    rule = Exclusion(window=1, blocked=[4])
    scores = rule.mask_(torch.zeros(2, 6), Histories.from_lists([[1, 2], [5]]))
    assert torch.isneginf(scores).tolist() == [
        [True, False, True, False, True, False],
        [True, False, False, False, True, True],
    ]


@given(rules, histories)
def test_every_view_of_the_rule_agrees(rule: Exclusion, lists: list[list[int]]) -> None:
    packed = Histories.from_lists(lists)
    every = np.tile(np.arange(N + 1), (len(lists), 1))
    expected = np.array(
        [[i not in forbidden_by_hand(rule, history) for i in range(N + 1)] for history in lists]
    )
    masked = rule.mask_(torch.zeros(len(lists), N + 1), packed)
    assert (np.isfinite(masked.numpy()) == expected).all()
    assert (rule.permitted(every, packed) == expected).all()
    assert rule.n_permitted(packed, N).tolist() == expected.sum(axis=1).tolist()
    if rule.allowed is None:
        for history, row in zip(lists, expected, strict=True):
            assert rule.forbidden(history).tolist() == np.flatnonzero(~row)[1:].tolist()


@settings(deadline=None)
@given(rules, histories, st.integers(1, 2 * N), st.integers(0, 2**32 - 1))
def test_lists_hold_nothing_forbidden_and_are_full(
    rule: Exclusion, lists: list[list[int]], k: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(len(lists), 3, generator=generator)
    table = torch.randn(N + 1, 3, generator=generator)
    packed = Histories.from_lists(lists)
    found, scores = exact_topk(queries, table, k, rule, packed, item_block=5, user_block=2)
    for history, row, values in zip(lists, found.tolist(), scores, strict=True):
        permitted = set(range(N + 1)) - forbidden_by_hand(rule, history)
        listed = [item for item in row if item >= 0]
        assert len(listed) == len(set(listed)) == min(k, len(permitted))
        assert set(listed) <= permitted
        assert row[len(listed) :] == [-1] * (k - len(listed))
        assert torch.isneginf(values[len(listed) :]).all()


def test_setting_becomes_a_rule() -> None:
    assert Exclusion.from_setting("seen").seen
    assert not Exclusion.from_setting("none").seen
    assert Exclusion.from_setting(7).window == 7
    rule = Exclusion.from_setting(7, blocked=[4], allowed=[3, 2])
    assert (rule.window, rule.blocked.tolist()) == (7, [4])
    assert rule.allowed is not None and rule.allowed.tolist() == [2, 3]
    assert Exclusion.from_setting(7).describe() == "items of the newest 7 events are excluded"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Exclusion(window=0), "window is 0"),
        (lambda: Exclusion.from_setting("all"), "is 'all'; allowed are 'seen', 'none' and a num"),
        (lambda: Exclusion.from_setting(True), "rule of exclusion is True"),
        (lambda: Exclusion(blocked=[0, 3]), "blocked names item index 0"),
        (lambda: Exclusion(allowed=[-2]), "allowed names item index -2"),
    ],
)
def test_wrong_rules_are_refused(build: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        build()  # type: ignore[operator]


def test_items_beyond_the_catalogue_are_refused() -> None:
    scores = torch.zeros(1, 4)
    with pytest.raises(DataError, match="history holds item index 9"):
        Exclusion().mask_(scores, Histories.from_lists([[9]]))
    with pytest.raises(DataError, match="blocked names item index 4, but the catalogue ends at 3"):
        Exclusion(blocked=[4]).mask_(scores, Histories.from_lists([[]]))
