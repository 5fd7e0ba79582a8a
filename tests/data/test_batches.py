"""Packing loses nothing, keeps order and tells sequences apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.batches import batch_from_lists, history_batches, pack_histories, pack_rows
from recsys.data.sequences import SequenceStore, Targets

LISTS = st.lists(st.lists(st.integers(1, 50), max_size=12), min_size=1, max_size=20)


@given(st.lists(st.integers(0, 10), max_size=60), st.integers(10, 15))
def test_rows_hold_each_sequence_once_without_overlap(lengths: list[int], row_length: int) -> None:
    sizes = np.array(lengths, dtype=np.int64)
    row, column, segment, n_rows = pack_rows(sizes, row_length)
    taken = np.zeros((n_rows, row_length), dtype=int)
    for i, size in enumerate(lengths):
        if size == 0:
            assert row[i] == -1
            continue
        taken[row[i], column[i] : column[i] + size] += 1
        assert column[i] + size <= row_length
    assert taken.sum() == sizes.sum()
    assert taken.max(initial=0) <= 1
    pairs = [(r, s) for r, s in zip(row.tolist(), segment.tolist(), strict=True) if r >= 0]
    assert len(set(pairs)) == len(pairs)


def test_a_sequence_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit rows of 3"):
        pack_rows(np.array([4], dtype=np.int64), 3)


def test_rows_are_filled_best_fit_longest_first() -> None:
    row, column, segment, n_rows = pack_rows(np.array([2, 6, 4, 4, 2], dtype=np.int64), 8)
    assert n_rows == 3
    assert row.tolist() == [0, 0, 1, 1, 2]
    assert column.tolist() == [6, 0, 0, 4, 0]
    assert segment.tolist() == [2, 1, 1, 2, 1]


@settings(deadline=None)
@given(LISTS, st.integers(1, 8))
def test_every_sequence_can_be_read_back(histories: list[list[int]], max_length: int) -> None:
    batch = batch_from_lists(histories, None, max_length)
    flat, segments = batch.items.flatten(), batch.segments.flatten()
    assert len(batch) == len(histories)
    for history, last in zip(histories, batch.last.tolist(), strict=True):
        kept = history[-max_length:]
        if not kept:
            assert last == -1
            continue
        where = slice(last - len(kept) + 1, last + 1)
        assert flat[where].tolist() == kept
        assert len(set(segments[where].tolist())) == 1
        assert batch.positions.flatten()[where].tolist() == list(range(len(kept)))
    assert int((batch.items > 0).sum()) == sum(len(h[-max_length:]) for h in histories)
    assert bool(((batch.items > 0) == (batch.segments > 0)).all())


@settings(deadline=None)
@given(LISTS, st.integers(1, 8), st.integers(1, 6))
def test_recent_is_newest_first(histories: list[list[int]], max_length: int, n: int) -> None:
    recent = batch_from_lists(histories, None, max_length).recent(n).tolist()
    for history, got in zip(histories, recent, strict=True):
        newest = history[-max_length:][::-1][:n]
        assert got == newest + [0] * (n - len(newest))


def test_baskets_are_numbered_from_the_oldest_kept() -> None:
    batch = batch_from_lists([[1, 2, 3, 4], [5, 6]], None, 3, baskets=[[7, 7, 7, 9], [9, 9]])
    assert batch.baskets is not None
    flat = batch.baskets.flatten()
    first, second = batch.last.tolist()
    assert flat[first - 2 : first + 1].tolist() == [0, 0, 1]
    assert flat[second - 1 : second + 1].tolist() == [0, 0]


def test_histories_end_before_their_target() -> None:
    store = SequenceStore(
        np.array([1, 2, 3, 4, 5], dtype=np.int32), np.array([0, 3, 5], dtype=np.int64), 5,
        timestamps=np.array([10, 20, 30, 5, 6], dtype=np.int64),
    )  # fmt: skip
    targets = Targets(np.array([0, 0, 1], dtype=np.int32), np.array([2, 1, 3]), np.array([3, 2, 4]))
    parts = list(history_batches(store, targets, 10, 2))
    assert [part for part, _ in parts] == [slice(0, 2), slice(2, 3)]
    assert parts[0][1].recent(3).tolist() == [[2, 1, 0], [1, 0, 0]]
    assert parts[1][1].last.tolist() == [-1]
    times = parts[0][1].times
    assert times is not None
    assert sorted(times[times > 0].tolist()) == [10, 10, 20]


def test_padding_share_counts_empty_places() -> None:
    batch = batch_from_lists([[1] * 30, [2] * 10], None, 40)
    assert batch.items.shape == (2, 32)
    assert batch.padding_share == pytest.approx(24 / 64)


def test_short_sequences_pack_tightly() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.geometric(0.15, 128)
    offsets = np.r_[0, np.cumsum(lengths)].astype(np.int64)
    store = SequenceStore(np.ones(offsets[-1], dtype=np.int32), offsets, 1)
    batch = pack_histories(store, offsets[:-1], offsets[1:], 50)
    assert batch.padding_share < 0.1
