from __future__ import annotations

import numpy as np

from recsys.data.previous import PreviousLists
from recsys.data.sequences import SequenceStore


def store(lists: list[list[int]], times: list[list[int]] | None = None) -> SequenceStore:
    offsets = np.concatenate([[0], np.cumsum([len(x) for x in lists])]).astype(np.int64)
    stamps = None if times is None else np.array([t for x in times for t in x], dtype=np.int64)
    flat = np.array([i for x in lists for i in x], dtype=np.int32)
    return SequenceStore(flat, offsets, 9, timestamps=stamps)


def before(of: PreviousLists, one: int, count: int) -> list[int]:
    return of.before(np.array([one]), count)[0].tolist()


def test_lists_come_in_order_of_time_and_of_index() -> None:
    lists = PreviousLists(store([[1], [2], [], [3], [4]], [[30], [10], [], [20], [20]]))
    assert lists.in_order().tolist() == [1, 3, 4, 0]
    assert before(lists, 0, 3) == [4, 3, 1]
    assert before(lists, 1, 2) == [-1, -1]
    assert before(lists, 3, 2) == [1, -1]
    assert before(lists, 4, 2) == [3, 1], "of the same time: the smaller index is before"
    without = PreviousLists(store([[1], [], [2], [3]]))
    assert without.before(np.array([3, 2, 0]), 2).tolist() == [[2, 0], [0, -1], [-1, -1]]


def test_a_list_that_has_not_ended_is_not_before() -> None:
    lists = PreviousLists(store([[1, 2], [3], [4, 5]], [[10, 50], [20], [30, 40]]))
    assert before(lists, 1, 2) == [-1, -1]
    assert before(lists, 2, 2) == [1, -1]


def test_only_what_is_known_is_context() -> None:
    known = np.array([True, False, True, True])
    lists = PreviousLists(store([[1], [2], [3], [4]]), known)
    assert before(lists, 3, 3) == [2, 0, -1]
    assert before(lists, 1, 3) == [0, -1, -1], "one that is none itself has a past all the same"


def test_items_with_their_ages() -> None:
    lists = PreviousLists(store([[1, 2], [3], [2, 4, 4], [5]]))
    items, ages = lists.items(np.array([3, 0, 1]), 2)
    assert items.tolist() == [[2, 4, 4, 3], [0, 0, 0, 0], [1, 2, 0, 0]]
    assert ages.tolist() == [[1, 1, 1, 2], [0, 0, 0, 0], [1, 1, 0, 0]]
    nothing, _ = PreviousLists(store([[1]])).items(np.array([0]), 3)
    assert nothing.shape == (1, 0)
