"""Batches of packed rows: many short sequences share one row, so that padding costs little.

A row of `[R, L]` holds several sequences one after another; `segments` tells them apart and attention
stays inside a segment. With Beauty's mean length of 7 and L = 50 a batch of 128 padded sequences would
be 85 % padding; packed, it is a few per cent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.data.item_sets import ItemSets, SetRuns
from recsys.data.sequences import Int32, Int64, SequenceStore, Targets
from recsys.data.token_store import TokenStore

TargetRule = Callable[[Int64], Int64]
"""Maps places in the store (int64 [T]) to the items to predict after them (int64 [T], 0 for none)."""

SetRule = Callable[[Int64], SetRuns]
"""Maps places in the store (int64 [T]) to the T sets to predict after them, empty for none."""


@dataclass(frozen=True)
class SequenceBatch:
    """B sequences packed into R rows of length L.

    Attributes:
        items: int64 [R, L]; 0 is padding, -k the k-th item of `texts`.
        segments: int64 [R, L]; which sequence of the row an event belongs to, 1, 2, ...; 0 is padding.
        positions: int64 [R, L]; place inside its sequence, the oldest kept event is 0.
        last: int64 [B]; flat index into R*L of each sequence's newest event, -1 for an empty history.
        times: int64 [R, L] seconds, or None when the data have no clock.
        baskets: int64 [R, L]; which basket of its sequence an event belongs to, the oldest kept is 0; or
            None when the data have no baskets. Events of one basket have no order among themselves.
        targets: int64 [R, L]; the item to predict after each event, 0 where there is none; training
            batches only.
        target_places: int64 [T]; flat indices into R*L of the T places with a target, ascending; with
            `targets` or `target_sets`. To find them on a GPU would mean to wait for it.
        target_sets: the T sets of items to predict after those places; training batches of an
            objective that learns sets, which have no `targets`.
        users: int64 [B]; whose history each sequence is; training batches only.
        previous: int64 [B, P]; items of the lists that came before each, 0-filled; only for models that
            read them, and only where the lists are known (not for a history of its own).
        previous_ages: int64 [B, P]; how many lists ago that was, 1 for the one right before;
            `recsys.data.previous.UNKNOWN_AGE` throughout a row whose lists before are not known.
        texts: sentences of items that the catalogue does not hold; only for models that read them.
    """

    items: Tensor
    segments: Tensor
    positions: Tensor
    last: Tensor
    times: Tensor | None = None
    baskets: Tensor | None = None
    targets: Tensor | None = None
    target_places: Tensor | None = None
    target_sets: ItemSets | None = None
    users: Tensor | None = None
    previous: Tensor | None = None
    previous_ages: Tensor | None = None
    texts: TokenStore | None = None

    def __len__(self) -> int:
        return len(self.last)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> SequenceBatch:
        """Return the batch on another device; texts stay where they are."""
        moved = {
            name: value.to(device, non_blocking=non_blocking) for name, value in self._on_device()
        }
        return replace(self, **moved)

    def pin_memory(self) -> SequenceBatch:
        """Return the batch in page-locked memory, for asynchronous copies to a GPU."""
        return replace(self, **{name: value.pin_memory() for name, value in self._on_device()})

    def _on_device(self) -> Iterator[tuple[str, Any]]:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (Tensor, ItemSets)):
                yield field.name, value

    @property
    def padding_share(self) -> float:
        """Share of the R x L places that hold no event."""
        return float((self.items == 0).float().mean()) if self.items.numel() else 0.0

    def recent(self, n: int) -> Tensor:
        """Return the newest `n` items of every sequence, newest first, int64 [B, n], 0-filled."""
        if self.items.numel() == 0:
            return torch.zeros(len(self), n, dtype=torch.int64, device=self.items.device)
        where, there = self.newest_places(n)
        return torch.where(there, self.items.flatten()[where], 0)

    def newest_places(self, n: int) -> tuple[Tensor, Tensor]:
        """Return where in R*L the newest `n` events of every sequence are, newest first, int64 [B, n],
        and which of these there are, bool [B, n].
        """
        back = torch.arange(n, device=self.last.device)
        length = self.positions.flatten()[self.last.clamp(min=0)] + 1  # [B]
        length = torch.where(self.last < 0, 0, length)
        return (self.last[:, None] - back).clamp(min=0), back < length[:, None]


def pack_rows(lengths: Int64, row_length: int) -> tuple[Int64, Int64, Int64, int]:
    """Place sequences into rows: best fit, longest first, ties by input order.

    Returns `(row [B], column [B], segment [B], number of rows)`; empty sequences get row -1.
    """
    if len(lengths) and int(lengths.max()) > row_length:
        raise ValueError(f"a sequence of {int(lengths.max())} does not fit rows of {row_length}")
    row, column, segment = (np.full(len(lengths), -1, dtype=np.int64) for _ in range(3))
    rows_by_space: list[list[int]] = [[] for _ in range(row_length + 1)]
    used: list[int] = []
    members: list[int] = []
    order = np.argsort(-lengths, kind="stable")
    some = order[: np.count_nonzero(lengths)]
    if len(some) and 2 * int(lengths[some[-1]]) > row_length:  # no two fit together
        row[some], column[some], segment[some] = np.arange(len(some)), 0, 1
        return row, column, segment, len(some)
    for i, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        if length == 0:
            break
        space = next((s for s in range(length, row_length + 1) if rows_by_space[s]), None)
        if space is None:
            chosen = len(used)
            used.append(0)
            members.append(0)
        else:
            chosen = rows_by_space[space].pop()
        row[i], column[i], segment[i] = chosen, used[chosen], members[chosen] + 1
        used[chosen] += length
        members[chosen] += 1
        rows_by_space[row_length - used[chosen]].append(chosen)
    return row, column, segment, len(used)


def pack_histories(
    store: SequenceStore,
    start: Int64,
    end: Int64,
    max_length: int,
    targets: TargetRule | None = None,
    sets: SetRule | None = None,
) -> SequenceBatch:
    """Pack the events `start:end` of each sequence, the newest `max_length` of them, into one batch.

    With a rule for `targets` (or for `sets`), called with the packed events' places in the store, its
    answer is the batch's targets (or target sets).
    """
    lengths = np.minimum(end - start, max_length)
    first = end - lengths
    longest = int(lengths.max()) if len(lengths) else 0
    # Short batches get short rows, but not shorter than needed to fill them well; where no two sequences
    # would share a row, nothing is there to be filled.
    row_length = max(longest, min(max_length, 32)) if longest else 0
    if longest and 2 * int(lengths[lengths > 0].min()) > row_length:
        row_length = longest
    row, column, segment, n_rows = pack_rows(lengths, row_length)
    flat, source, seq = _flat_places(lengths, row, column, first, row_length)
    size = n_rows * row_length

    def scatter(values: npt.NDArray[np.int64]) -> Tensor:
        out = np.zeros(size, dtype=np.int64)
        out[flat] = values
        return torch.from_numpy(out.reshape(n_rows, row_length))

    last = np.where(lengths > 0, row * row_length + column + lengths - 1, -1)
    times = None if store.timestamps is None else scatter(store.timestamps[source])
    baskets = None if store.baskets is None else scatter(_ordinals(store.baskets[source], seq))
    asked = None if targets is None else targets(source)
    target_places = None if asked is None else torch.from_numpy(np.sort(flat[asked > 0]))
    target_sets = None
    if sets is not None:
        target_places, target_sets = _place_sets(sets(source), flat)
    return SequenceBatch(
        items=scatter(store.items[source].astype(np.int64)),
        segments=scatter(segment[seq]),
        positions=scatter(source - first[seq]),
        last=torch.from_numpy(last),
        times=times,
        baskets=baskets,
        targets=None if asked is None else scatter(asked),
        target_places=target_places,
        target_sets=target_sets,
    )


def _place_sets(runs: SetRuns, flat: Int64) -> tuple[Tensor, ItemSets]:
    """Return the flat places of the sets that are not empty, ascending, and these sets, packed."""
    some = np.flatnonzero(runs.end > runs.start)
    some = some[np.argsort(flat[some])]
    packed = ItemSets.of_runs(SetRuns(runs.pool, runs.start[some], runs.end[some]))
    return torch.from_numpy(flat[some]), packed


def _ordinals(baskets: Int32, seq: Int64) -> Int64:
    """Number the runs of equal basket ids inside each sequence 0, 1, ...; sequences are contiguous."""
    if len(seq) == 0:
        return np.zeros(0, dtype=np.int64)
    new_sequence = np.r_[True, seq[1:] != seq[:-1]]
    new_basket = new_sequence | np.r_[True, baskets[1:] != baskets[:-1]]
    count = np.cumsum(new_basket)
    first = np.maximum.accumulate(np.where(new_sequence, count, 0))
    return count - first


def _flat_places(
    lengths: Int64, row: Int64, column: Int64, first: Int64, row_length: int
) -> tuple[Int64, Int64, Int64]:
    """Return, for each packed event, its flat place, its source in the store and its sequence."""
    seq = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
    inside = np.arange(len(seq), dtype=np.int64) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    flat = row[seq] * row_length + column[seq] + inside
    return flat, first[seq] + inside, seq


def history_batches(
    store: SequenceStore, targets: Targets, max_length: int, batch_size: int
) -> Iterator[tuple[slice, SequenceBatch]]:
    """Yield `(which targets, their histories)` in order, `batch_size` targets at a time."""
    begin = store.offsets[targets.user]
    for at in range(0, len(targets), batch_size):
        part = slice(at, min(at + batch_size, len(targets)))
        yield part, pack_histories(store, begin[part], targets.start[part], max_length)


def batch_from_lists(
    histories: list[list[int]],
    times: list[list[int]] | None,
    max_length: int,
    baskets: list[list[int]] | None = None,
) -> SequenceBatch:
    """Pack plain lists of item indices (oldest first) into a batch, for serving and tests.

    `baskets` are ids, equal for neighbouring events of one basket.
    """
    lengths = np.array([len(h) for h in histories], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    flat = np.array([i for h in histories for i in h], dtype=np.int32)
    stamps = None if times is None else np.array([t for h in times for t in h], dtype=np.int64)
    runs = None if baskets is None else np.array([b for h in baskets for b in h], dtype=np.int32)
    n_items = int(flat.max(initial=0))
    store = SequenceStore(flat, offsets, n_items, timestamps=stamps, baskets=runs)
    return pack_histories(store, offsets[:-1], offsets[1:], max_length)
