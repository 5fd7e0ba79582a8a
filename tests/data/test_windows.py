"""Training windows: every event is a target once, orders are seeded, processes share fairly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.batches import SequenceBatch
from recsys.data.sequences import SequenceStore, TrainingData
from recsys.data.windows import (
    MOST_REST,
    TrainingBatches,
    first_in_basket,
    first_occurrences,
    next_baskets,
)
from recsys.errors import DataError


def packed(histories: list[list[int]], held_out: int = 0, **columns: list[int]) -> TrainingData:
    lengths = [len(h) for h in histories]
    offsets = np.r_[0, np.cumsum(lengths)].astype(np.int64)
    items = np.array([i for h in histories for i in h], dtype=np.int32)
    arrays = {name: np.array(values) for name, values in columns.items()}
    store = SequenceStore(items, offsets, int(items.max(initial=1)), **arrays)  # type: ignore[arg-type]
    return TrainingData(store, np.maximum(offsets[1:] - held_out, offsets[:-1]))


@settings(deadline=None)
@given(st.lists(st.integers(0, 13), min_size=1, max_size=12), st.integers(1, 5), st.integers(1, 4))
def test_every_event_but_the_first_is_a_target_once(
    lengths: list[int], max_length: int, batch_size: int
) -> None:
    ids = iter(range(1, 1000))
    histories = [[next(ids) for _ in range(n)] for n in lengths]
    data = packed(histories)
    batches = TrainingBatches(data, max_length, batch_size)
    seen = [int(t) for b in batches.epoch(0) for t in b.targets[b.targets > 0]]  # type: ignore[index]
    assert sorted(seen) == sorted(i for h in histories for i in h[1:])
    assert len(list(batches.epoch(0))) == len(batches)


def test_a_target_follows_its_place() -> None:
    batch = next(TrainingBatches(packed([[1, 2, 3, 4, 5]]), 3, 8, windows="last").epoch(0))
    assert batch.targets is not None
    assert batch.items[0, :3].tolist() == [2, 3, 4]
    assert batch.targets[0, :3].tolist() == [3, 4, 5]


def test_the_places_with_a_target_are_named() -> None:
    data = packed([[1, 2, 1, 3, 2], [4, 4, 5], [6, 7]])
    for repeats in ("keep", "mask"):
        (batch,) = TrainingBatches(data, 4, 8, repeats=repeats).epoch(0)  # type: ignore[arg-type]
        assert batch.targets is not None and batch.target_places is not None
        where = batch.targets.flatten().nonzero().squeeze(1)
        assert batch.target_places.tolist() == where.tolist()
        assert len(where) == (7 if repeats == "keep" else 4)


def test_held_out_events_are_neither_input_nor_target() -> None:
    data = packed([[1, 2, 3, 8, 9], [4, 5, 8]], held_out=2)
    batches = list(TrainingBatches(data, 10, 8).epoch(0))
    shown = {int(i) for b in batches for t in (b.items, b.targets) for i in t.flatten()}  # type: ignore[union-attr]
    assert shown == {0, 1, 2, 3}


def test_order_depends_on_seed_and_epoch_only() -> None:
    data = packed([[i, i + 1] for i in range(1, 60)])

    def order(seed: int, epoch: int) -> list[int]:
        batches = TrainingBatches(data, 5, 10, seed=seed)
        return [int(i) for b in batches.epoch(epoch) for i in b.recent(1).flatten()]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)


@pytest.mark.parametrize("windows", [7, 8, 9])
def test_processes_cover_all_windows_with_equal_shares(windows: int) -> None:
    data = packed([[i, i + 100] for i in range(1, windows + 1)])
    shares = [
        [
            int(i)
            for b in TrainingBatches(data, 5, 2, rank=r, world_size=2).epoch(3)
            for i in b.recent(1)
        ]
        for r in range(2)
    ]
    assert len(shares[0]) == len(shares[1]) == -(-windows // 2)
    assert set(shares[0]) | set(shares[1]) == set(range(1, windows + 1))


def test_masked_repeats_are_no_targets() -> None:
    data = packed([[1, 2, 1, 3, 2]])
    batch = next(TrainingBatches(data, 10, 1, repeats="mask").epoch(0))
    assert batch.targets is not None
    assert batch.targets[0, :4].tolist() == [2, 0, 3, 0]


def test_first_occurrences_are_per_user() -> None:
    data = packed([[1, 2, 1], [1, 1]])
    assert first_occurrences(data).tolist() == [True, True, False, True, False]


def test_next_baskets_by_hand() -> None:
    data = packed([[1, 2, 3, 4, 5], [6, 7]], baskets=[1, 1, 2, 3, 3, 3, 4])
    start, end = next_baskets(data)
    assert start.tolist() == [2, 2, 3, 5, 5, 6, 7]
    assert end.tolist() == [3, 3, 5, 5, 5, 7, 7]


def test_next_baskets_stop_at_the_end_of_training() -> None:
    data = packed([[1, 2, 3, 4]], held_out=1, baskets=[1, 2, 3, 4])
    start, end = next_baskets(data)
    assert (end - start).tolist() == [1, 1, 0, 0]


def test_basket_targets_come_from_the_next_basket() -> None:
    data = packed([[1, 2, 3, 4, 5, 6]], baskets=[1, 1, 2, 2, 2, 3])
    batches = TrainingBatches(data, 10, 1, objective="next_basket")
    drawn: list[set[int]] = [set() for _ in range(5)]
    for epoch in range(60):
        batch = next(batches.epoch(epoch))
        assert batch.targets is not None
        for place, target in enumerate(batch.targets[0, :5].tolist()):
            drawn[place].add(target)
    assert drawn == [{3, 4, 5}, {3, 4, 5}, {6}, {6}, {6}]


def test_baskets_are_required_for_their_objective() -> None:
    with pytest.raises(ValueError, match="needs baskets"):
        list(TrainingBatches(packed([[1, 2]]), 5, 1, objective="next_basket").epoch(0))


def test_a_target_s_chance_halves_with_its_age() -> None:
    half_life, users = 10.0, 4000
    ages = np.array([20, 10, 0]) * 86_400  # days before the newest event
    history = packed([[1, 2, 3]] * users, timestamps=(2_000_000_000 - ages).tolist() * users)
    batches = TrainingBatches(history, 5, users, recency_half_life=half_life)
    (batch,) = batches.epoch(0)
    assert batch.targets is not None
    counts = np.bincount(batch.targets.flatten().numpy(), minlength=4)
    assert counts[3] == users
    assert abs(counts[2] / users - 0.5) < 0.03
    (again,), (other,) = batches.epoch(0), batches.epoch(1)
    assert again.targets is not None and other.targets is not None
    assert (again.targets == batch.targets).all()
    assert (other.targets != batch.targets).any()


def test_recency_counts_back_from_the_newest_training_event_and_needs_times() -> None:
    days = [0, 86_400, 900 * 86_400]  # the last event is held out
    history = packed([[1, 2, 3]] * 50, held_out=1, timestamps=days * 50)
    (batch,) = TrainingBatches(history, 5, 50, recency_half_life=1.0).epoch(0)
    assert batch.targets is not None
    assert int((batch.targets == 2).sum()) == 50
    with pytest.raises(DataError, match=r"recency_half_life is 1\.0, but the data have no times"):
        list(TrainingBatches(packed([[1, 2]]), 5, 1, recency_half_life=1.0).epoch(0))


def sets_by_place(batch: SequenceBatch) -> dict[int, set[int]]:
    """Return the target set of every flat place that has one; each member must stand once."""
    assert batch.targets is None and batch.target_places is not None
    assert batch.target_sets is not None and len(batch.target_sets) == len(batch.target_places)
    places = batch.target_places.tolist()
    assert places == sorted(places)
    found: dict[int, set[int]] = {place: set() for place in places}
    for row, item in zip(
        batch.target_sets.rows.tolist(), batch.target_sets.items.tolist(), strict=True
    ):
        assert item not in found[places[row]]
        found[places[row]].add(item)
    return found


def test_the_whole_next_basket_is_the_target() -> None:
    data = packed([[1, 2, 3, 4, 3, 6]], baskets=[1, 1, 2, 2, 2, 3])
    (batch,) = TrainingBatches(data, 10, 1, objective="next_basket_set").epoch(0)
    assert sets_by_place(batch) == {0: {3, 4}, 1: {3, 4}, 2: {6}, 3: {6}, 4: {6}}


def test_masked_repeats_are_no_members() -> None:
    data = packed([[1, 2, 2, 3, 1, 2]], baskets=[1, 1, 2, 2, 3, 3])
    batches = TrainingBatches(data, 10, 1, objective="next_basket_set", repeats="mask")
    (batch,) = batches.epoch(0)
    assert sets_by_place(batch) == {0: {3}, 1: {3}}  # the last basket has nothing new


def test_sets_find_their_places_in_packed_rows() -> None:
    """Rows are filled longest first, so places and sequences are in different orders."""
    rng = np.random.default_rng(0)
    histories, baskets = [], []
    for _ in range(30):
        length = int(rng.integers(2, 9))
        histories.append(rng.integers(1, 50, length).tolist())
        baskets.append(np.cumsum(rng.random(length) < 0.5).tolist())
    data = packed(histories, baskets=[b + 1 for one in baskets for b in one])
    batches = TrainingBatches(data, 8, 7, objective="next_basket_set", repeats="keep")
    expected = []
    for items, numbers in zip(histories, baskets, strict=True):
        for place in range(len(items) - 1):
            later = [n for n in numbers if n > numbers[place]]
            members = {i for i, n in zip(items, numbers, strict=True) if later and n == later[0]}
            if members:
                expected.append((items[place], sorted(members)))
    found = [
        (int(batch.items.flatten()[place]), sorted(members))
        for batch in batches.epoch(0)
        for place, members in sets_by_place(batch).items()
    ]
    assert sorted(found) == sorted(expected)


def test_target_sets_stop_at_the_end_of_training() -> None:
    data = packed([[1, 2, 3, 4], [5, 6]], held_out=1, baskets=[1, 2, 3, 3, 4, 5])
    (batch,) = TrainingBatches(data, 10, 8, objective="next_basket_set").epoch(0)
    assert list(sets_by_place(batch).values()) == [{2}, {3}]


def test_a_set_s_chance_halves_with_its_age() -> None:
    half_life, users = 10.0, 4000
    ages = np.array([20, 10, 10, 0]) * 86_400
    history = packed(
        [[1, 2, 3, 4]] * users,
        timestamps=(2_000_000_000 - ages).tolist() * users,
        baskets=[1, 2, 2, 3] * users,
    )
    batches = TrainingBatches(
        history, 5, users, objective="next_basket_set", recency_half_life=half_life
    )
    (batch,) = batches.epoch(0)
    drawn = [tuple(sorted(members)) for members in sets_by_place(batch).values()]
    assert set(drawn) == {(2, 3), (4,)}  # a basket is there as a whole
    assert drawn.count((4,)) == 2 * users
    assert abs(drawn.count((2, 3)) / users - 0.5) < 0.03


def test_first_in_basket_by_hand() -> None:
    data = packed([[1, 1, 2, 1], [1, 2, 2]], baskets=[1, 1, 1, 2, 2, 2, 2])
    assert first_in_basket(data.store).tolist() == [True, False, True, True, True, True, False]
    with pytest.raises(ValueError, match="needs baskets"):
        list(TrainingBatches(packed([[1, 2]]), 5, 1, objective="next_basket_set").epoch(0))


def test_the_rest_of_a_list_is_a_set_without_what_is_held_out() -> None:
    data = packed([[1, 2, 1, 3, 2, 4, 9], [5, 6]], held_out=1)
    (batch,) = TrainingBatches(data, 10, 2, objective="rest_set").epoch(0)
    offset = int((batch.items.flatten() == 1).nonzero()[0])  # where the longer list was packed
    expected = [{1, 2, 3, 4}, {1, 2, 3, 4}, {2, 3, 4}, {2, 4}, {4}]
    found = sets_by_place(batch)
    assert found == {offset + place: rest for place, rest in enumerate(expected)}
    masked = TrainingBatches(data, 10, 2, objective="rest_set", repeats="mask")
    (batch,) = masked.epoch(0)
    expected = [{2, 3, 4}, {3, 4}, {3, 4}, {4}, {4}]
    assert sets_by_place(batch) == {offset + place: rest for place, rest in enumerate(expected)}


def test_a_long_rest_is_cut_at_what_comes_first() -> None:
    data = packed([list(range(1, MOST_REST + 21))])
    batches = TrainingBatches(data, 10, 20, objective="rest_set").epoch(0)
    sizes = {}
    for batch in batches:
        for place, rest in sets_by_place(batch).items():
            item = int(batch.items.flatten()[place])
            sizes[item] = len(rest)
            assert min(rest) == item + 1
    assert [sizes[item] for item in (1, 20, 21, MOST_REST + 19)] == [MOST_REST, MOST_REST, 49, 1]
