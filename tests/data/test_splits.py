"""Splits against a plain reading of their rules, one user at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.config import (
    ContinuationSplit,
    GlobalTimeSplit,
    LastNSplit,
    LeaveOneOutSplit,
    RollingSplit,
    SplitConfig,
)
from recsys.data import splits
from recsys.data.quantile import Distribution, histogram
from recsys.data.sequences import Split, Targets
from recsys.data.splits import Fold, Runs
from recsys.errors import ConfigError
from recsys.schema import Kind, TargetKind

Target = tuple[int, int, int]
"""User, start, end."""

USERS = st.lists(
    st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=7),
    min_size=1,
    max_size=6,
)
"""Of every user the events: time, and whether a basket begins there."""
TARGETS = st.sampled_from(["next_event", "next_basket", "rest"])
KINDS = st.sampled_from(["users", "lists"])


def marked(pairs: list[tuple[int, int]], basket: int) -> list[tuple[int, bool]]:
    """Return the times of a basket, the first marked."""
    times = [time for b, time in pairs if b == basket]
    return [(time, place == 0) for place, time in enumerate(times)]


def runs_of(users: list[list[tuple[int, bool]]], first_user: int = 0) -> Runs:
    """Return the runs, events inside a basket in order of time; baskets may overlap in time."""
    ordered = []
    for events in users:
        basket = np.cumsum([new for _, new in events]).tolist()
        pairs = sorted(zip(basket, [time for time, _ in events], strict=True))
        starts = dict.fromkeys(b for b, _ in pairs)
        by_start = sorted(starts, key=lambda b: min(t for c, t in pairs if c == b))
        ordered.append([(t, t_is_first) for b in by_start for t, t_is_first in marked(pairs, b)])
    lengths = [len(events) for events in ordered]
    return Runs(
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        first_user=first_user,
        timestamps=np.array([t for events in ordered for t, _ in events], dtype=np.int64),
        baskets=np.concatenate([np.cumsum([new for _, new in e]) for e in ordered]).astype(
            np.int32
        ),
    )


def baskets_of(runs: Runs, user: int) -> list[tuple[int, int]]:
    """Return (start, end) of each basket of a user."""
    assert runs.baskets is not None
    begin, end = runs.offsets[user], runs.offsets[user + 1]
    starts = [i for i in range(begin, end) if i == begin or runs.baskets[i] != runs.baskets[i - 1]]
    return list(zip(starts, [*starts[1:], int(end)], strict=True))


def moments_of(runs: Runs, user: int, target: TargetKind) -> list[int]:
    """Return each event's time, or its basket's newest; never less than that of an event before."""
    assert runs.timestamps is not None
    begin, end = (int(x) for x in runs.offsets[user : user + 2])
    times = {i: int(runs.timestamps[i]) for i in range(begin, end)}
    if target == "next_basket":
        newest = {span: max(times[i] for i in range(*span)) for span in baskets_of(runs, user)}
        times = {i: newest[a, b] for a, b in newest for i in range(a, b)}
    return [max(times[j] for j in range(begin, i + 1)) for i in range(begin, end)]


def start_of(runs: Runs, user: int) -> int:
    assert runs.timestamps is not None
    return int(runs.timestamps[runs.offsets[user]])


def asked(runs: Runs, user: int, first: int, end: int, target: TargetKind) -> list[Target]:
    """Return what is asked for in `first:end`."""
    if target == "next_event":
        return [(user, i, i + 1) for i in range(first, end)]
    if target == "rest":
        return [(user, first, end)] if end > first else []
    return [(user, a, b) for a, b in baskets_of(runs, user) if first <= a < end]


def rows(targets: Targets) -> list[Target]:
    return list(
        zip(targets.user.tolist(), targets.start.tolist(), targets.end.tolist(), strict=True)
    )


def split_of(
    runs: Runs, fold: Fold, split: SplitConfig, kind: Kind, target: TargetKind, seed: int = 0
) -> Split:
    by = splits.cuts_by(split, kind, "absolute")
    return splits.make_split(
        runs, splits.windows(runs, fold, split, kind, target, by, seed), target
    )


def check(split: Split, train: list[int], validation: list[Target], test: list[Target]) -> None:
    assert split.train_end.tolist() == train
    assert rows(split.validation) == validation
    assert rows(split.test) == test
    assert split.test.user.dtype == np.int32 and split.test.start.dtype == np.int64


@settings(max_examples=200)
@given(
    users=USERS,
    target=TARGETS,
    cuts=st.tuples(st.integers(0, 10), st.integers(0, 10), st.integers(0, 11)),
    rolling=st.booleans(),
)
def test_time_cuts_of_users(
    users: list[Any], target: TargetKind, cuts: tuple[int, int, int], rolling: bool
) -> None:
    runs = runs_of(users)
    validation_from, test_from, until = sorted(cuts)
    fold = Fold("main", validation_from, test_from, until if rolling else None)
    train, validation, test = [], [], []
    for user in range(len(users)):
        begin, end = (int(x) for x in runs.offsets[user : user + 2])
        moments = moments_of(runs, user, target)
        a, b = (begin + sum(m < cut for m in moments) for cut in (validation_from, test_from))
        c = begin + sum(m < until for m in moments) if rolling else end
        train.append(a)
        validation += asked(runs, user, a, b, target)
        test += asked(runs, user, b, c, target)
    check(split_of(runs, fold, GlobalTimeSplit(), "users", target), train, validation, test)


@given(users=USERS, target=TARGETS, cut=st.integers(1, 9))
def test_nothing_trains_that_is_as_new_as_the_cut(
    users: list[Any], target: TargetKind, cut: int
) -> None:
    runs = runs_of(users)
    split = split_of(runs, Fold("main", cut, 10), GlobalTimeSplit(), "users", target)
    assert runs.timestamps is not None
    for begin, end in zip(runs.offsets[:-1], split.train_end, strict=True):
        assert (runs.timestamps[begin:end] < cut).all()


@settings(max_examples=200)
@given(
    users=USERS,
    target=TARGETS,
    cuts=st.tuples(st.integers(0, 10), st.integers(0, 10), st.integers(0, 11)),
    rolling=st.booleans(),
)
def test_time_cuts_of_lists(
    users: list[Any], target: TargetKind, cuts: tuple[int, int, int], rolling: bool
) -> None:
    runs = runs_of(users)
    validation_from, test_from, until = sorted(cuts)
    fold = Fold("main", validation_from, test_from, until if rolling else None)
    train, validation, test = [], [], []
    for user in range(len(users)):
        begin, end = (int(x) for x in runs.offsets[user : user + 2])
        moment = start_of(runs, user)
        train.append(end if moment < validation_from else begin)
        if validation_from <= moment < test_from:
            validation += asked(runs, user, begin + 1, end, target)
        if test_from <= moment and (not rolling or moment < until):
            test += asked(runs, user, begin + 1, end, target)
    check(split_of(runs, fold, GlobalTimeSplit(), "lists", target), train, validation, test)


@settings(max_examples=200)
@given(users=USERS, target=TARGETS, kind=KINDS, n=st.integers(1, 3))
def test_the_last_n_targets(users: list[Any], target: TargetKind, kind: Kind, n: int) -> None:
    runs = runs_of(users)
    split: SplitConfig = LastNSplit(n=n) if n > 1 else LeaveOneOutSplit()
    train, validation, test = [], [], []
    for user in range(len(users)):
        begin, end = (int(x) for x in runs.offsets[user : user + 2])
        events = [(i, i + 1) for i in range(begin, end)]
        units = baskets_of(runs, user) if target == "next_basket" else events
        if len(units) < 2 * n + 1:
            train.append(end)
            continue
        a, b = units[-2 * n][0], units[-n][0]
        train.append(a)
        validation += asked(runs, user, a, b, target)
        test += asked(runs, user, b, end, target)
    check(split_of(runs, Fold("main"), split, kind, target), train, validation, test)


@settings(max_examples=200)
@given(
    users=USERS,
    target=TARGETS,
    hidden=st.floats(0.05, 0.95),
    cuts=st.tuples(st.integers(0, 10), st.integers(0, 10)),
)
def test_continuation_hides_the_end_of_lists(
    users: list[Any], target: TargetKind, hidden: float, cuts: tuple[int, int]
) -> None:
    runs = runs_of(users)
    fold = Fold("main", min(cuts), max(cuts))
    train, validation, test = [], [], []
    for user in range(len(users)):
        begin, end = (int(x) for x in runs.offsets[user : user + 2])
        moment, length = start_of(runs, user), end - begin
        train.append(end if moment < min(cuts) else begin)
        hide = 0 if length == 1 else min(max(1, int(hidden * length + 0.5)), length - 1)
        part = asked(runs, user, end - hide, end, target)
        if min(cuts) <= moment < max(cuts):
            validation += part
        if moment >= max(cuts):
            test += part
    split = ContinuationSplit(hidden=hidden)
    check(split_of(runs, fold, split, "lists", target), train, validation, test)


def distribution(runs: Runs, by: str, seed: int = 0) -> Distribution:
    keys = splits.cut_keys(runs, by, "next_event", seed)
    return Distribution(
        lambda first, width: histogram(keys, first, width),
        int(keys.min()),
        int(keys.max()),
        len(keys),
    )


HUNDRED = runs_of([[(10 * user + i, True) for i in range(10)] for user in range(10)])


def test_shares_are_cut_exactly_test_first_then_validation_of_the_rest() -> None:
    [fold] = splits.plan_folds(GlobalTimeSplit(), distribution(HUNDRED, "moments"), "s")
    assert (fold.name, fold.validation_from, fold.test_from, fold.test_until) == (
        "main",
        81,
        90,
        None,
    )


def test_lists_are_cut_by_their_first_moments() -> None:
    split = GlobalTimeSplit(test=0.2, validation=0.25)
    [fold] = splits.plan_folds(split, distribution(HUNDRED, "starts"), "s")
    assert (fold.validation_from, fold.test_from) == (60, 80)


def test_cuts_may_be_given_as_times() -> None:
    split = GlobalTimeSplit(test_from="1970-01-01T00:01:00", validation_from=30)
    [fold] = splits.plan_folds(split, distribution(HUNDRED, "moments"), "s")
    assert (fold.validation_from, fold.test_from) == (30, 60)
    half = GlobalTimeSplit(test_from=60_000, validation=0.5)
    [fold] = splits.plan_folds(half, distribution(HUNDRED, "moments"), "ms")
    assert (fold.validation_from, fold.test_from) == (30, 60)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (GlobalTimeSplit(test_from=0), "nothing lies before the test cut"),
        (GlobalTimeSplit(test_from=50, validation_from=60), "lies after the test cut"),
    ],
)
def test_cuts_that_leave_nothing_are_refused(split: SplitConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        splits.plan_folds(split, distribution(HUNDRED, "moments"), "s")


def test_rolling_windows_follow_each_other_and_the_last_ends_with_the_data() -> None:
    split = RollingSplit(folds=3, window=0.1)
    folds = splits.plan_folds(split, distribution(HUNDRED, "moments"), "s")
    assert folds == [
        Fold("fold0", 60, 70, 80),
        Fold("fold1", 70, 80, 90),
        Fold("fold2", 80, 90, None),
    ]
    parts = [split_of(HUNDRED, fold, split, "users", "next_event") for fold in folds]
    assert [len(part.test) for part in parts] == [10, 10, 10]
    assert [part.test.start[0] for part in parts] == [70, 80, 90]
    assert rows(parts[0].test) == rows(parts[1].validation)


def test_without_a_clock_the_seed_chooses_the_lists() -> None:
    many = runs_of([[(0, True), (0, True)] for _ in range(1000)])
    split = ContinuationSplit(test=0.2, validation=0.25)
    assert (
        splits.cuts_by(split, "lists", "none")
        == splits.cuts_by(split, "lists", "relative")
        == "draws"
    )
    chosen = []
    for seed in (1, 2):
        [fold] = splits.plan_folds(split, distribution(many, "draws", seed), "s")
        windows = splits.windows(many, fold, split, "lists", "rest", "draws", seed)
        part = splits.make_split(many, windows, "rest")
        assert (len(part.test), len(part.validation)) == (200, 200)
        assert not set(part.test.user.tolist()) & set(part.validation.user.tolist())
        chosen.append(set(part.test.user.tolist()))
    assert chosen[0] != chosen[1]
    assert not chosen[0] <= set(range(300))


@given(users=USERS, share=st.floats(0.05, 0.95), seed=st.integers(0, 3))
def test_a_random_part_is_hidden_behind_the_visible_one(
    users: list[Any], share: float, seed: int
) -> None:
    runs = runs_of(users)
    hidden = splits.hidden_counts(np.diff(runs.offsets), share)
    order = splits.visible_first(runs, hidden, seed)
    for user in range(len(users)):
        begin, end = (int(x) for x in runs.offsets[user : user + 2])
        mine = order[begin:end].tolist()
        assert sorted(mine) == list(range(begin, end))
        visible = mine[: end - begin - int(hidden[user])]
        assert visible == sorted(visible)
        assert mine[len(visible) :] == sorted(mine[len(visible) :])


@pytest.mark.parametrize("given", [0, 1, 3])
def test_so_many_items_can_be_given(given: int) -> None:
    lists = [[(i, True) for i in range(length)] for length in (1, 2, 3, 4, 7)]
    runs = runs_of(lists)
    split = ContinuationSplit(given=given)
    fold = splits.Fold("main", validation_from=0, test_from=0)
    windows = splits.windows(runs, fold, split, "lists", "rest", "draws", 1)
    test = splits.make_split(runs, windows, "rest").test
    lengths = np.diff(runs.offsets)
    assert test.user.tolist() == np.flatnonzero(lengths > given).tolist()
    assert (test.start - runs.offsets[test.user]).tolist() == [given] * len(test)
    assert (test.end == runs.offsets[test.user + 1]).all()


def test_what_is_hidden_does_not_depend_on_the_partition_and_reaches_every_place() -> None:
    lists = [[(i, True) for i in range(10)] for _ in range(200)]
    whole, hidden = runs_of(lists), np.full(200, 3)
    order = splits.visible_first(whole, hidden, 5)
    tail = splits.visible_first(runs_of(lists[150:], first_user=150), hidden[150:], 5)
    assert np.array_equal(order[1500:] - 1500, tail)
    places = order.reshape(200, 10)[:, 7:] % 10
    assert np.bincount(places.ravel(), minlength=10).min() > 30  # 60 expected


@pytest.mark.parametrize(
    ("split", "clock", "baskets", "message"),
    [
        (
            GlobalTimeSplit(),
            "relative",
            False,
            "split.kind global_time compares times between users",
        ),
        (RollingSplit(), "none", False, "data.clock is none"),
        (RollingSplit(folds=4, window=0.2), "absolute", False, r"\(folds \+ 1\) \* window"),
        (ContinuationSplit(hide="random"), "none", True, "would tear baskets apart"),
    ],
)
def test_splits_that_cannot_be_made_are_refused(
    split: SplitConfig, clock: Any, baskets: bool, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        splits.check_split(split, clock, baskets)


@pytest.mark.parametrize("clock", ["absolute", "relative", "none"])
def test_splits_by_order_need_no_clock(clock: Any) -> None:
    for split in (LeaveOneOutSplit(), LastNSplit(n=2), ContinuationSplit(hide="random")):
        splits.check_split(split, clock)


def test_parts_are_joined_at_their_places() -> None:
    lists = [[(0, True)] * n for n in (3, 4, 1, 5)]
    split = LeaveOneOutSplit()
    whole = split_of(runs_of(lists), Fold("main"), split, "users", "next_event")
    parts = [
        split_of(runs_of(lists[a:b], first_user=a), Fold("main"), split, "users", "next_event")
        for a, b in ((0, 2), (2, 3), (3, 4))
    ]
    joined = splits.join_splits(zip(parts, (0, 7, 8), strict=True))
    check(joined, whole.train_end.tolist(), rows(whole.validation), rows(whole.test))
    assert rows(whole.test) == [(0, 2, 3), (1, 6, 7), (3, 12, 13)]


@given(
    users=USERS,
    target=TARGETS,
    kind=st.sampled_from(["users", "lists"]),
    cuts=st.tuples(st.integers(0, 10), st.integers(0, 10)),
)
def test_a_refit_learns_what_would_train_without_a_validation_window(
    users: list[Any], target: TargetKind, kind: Kind, cuts: tuple[int, int]
) -> None:
    runs, (low, high) = runs_of(users), sorted(cuts)
    split = split_of(runs, Fold("main", low, high), GlobalTimeSplit(), kind, target)
    without = split_of(runs, Fold("main", high, high), GlobalTimeSplit(), kind, target)
    assert split.refitted().train_end.tolist() == without.train_end.tolist()
    assert rows(split.refitted().test) == rows(split.test) == rows(without.test)


def test_a_refit_of_leave_one_out_learns_all_but_the_last() -> None:
    runs = runs_of([[(0, True)] * n for n in (3, 2, 5)])
    split = split_of(runs, Fold("main"), LeaveOneOutSplit(), "users", "next_event")
    assert split.train_end.tolist() == [1, 5, 8]
    assert split.refitted().train_end.tolist() == [2, 5, 9]
    joined = splits.join_splits([(split, 0), (split, 10)])
    assert joined.refitted().train_end.tolist() == [2, 5, 9, 12, 15, 19]
