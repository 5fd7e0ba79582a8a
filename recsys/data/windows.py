"""Training batches: windows over the training events, and what is to be predicted at each place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch

from recsys.config.training import SET_OBJECTIVES, Objective
from recsys.data.batches import SequenceBatch, pack_histories
from recsys.data.item_sets import SetRuns
from recsys.data.recency import Recency
from recsys.data.sequences import Int32, Int64, SequenceStore, TrainingData

MOST_REST: Final = 50
"""Different items that the rest of a list has at most as a target: those that come first."""


@dataclass(frozen=True)
class TrainingBatches:
    """One epoch's training batches: windows of the training events, in a seeded random order.

    Attributes:
        data: what may be learned from.
        max_length: inputs per window (L).
        batch_size: sequences per batch and process.
        windows: `last` keeps each user's newest window; `all` cuts the whole history into windows, so
            that every event is a target exactly once.
        objective: `next_event` predicts the event after each place; `next_basket` a random event of
            the basket after the place's own, drawn anew each epoch; `next_basket_set` that whole
            basket, as a set; `rest_set` what follows in the user's (list's) training part, as a set of
            at most `MOST_REST` items.
        repeats: `mask` leaves out targets that the user has had before (they could never be
            recommended where seen items are excluded).
        recency_half_life: days in which the chance of a target to be there in an epoch halves, counted
            back from the newest training event (drawn anew each epoch); None keeps all.
        seed, rank, world_size: the order is a function of `(seed, epoch)` alone; process `rank` takes
            every `world_size`-th window, and all processes get equally many.
        users: bool [U], whose windows there are; everybody's by default.
    """

    data: TrainingData
    max_length: int
    batch_size: int
    windows: Literal["last", "all"] = "all"
    objective: Objective = "next_event"
    repeats: Literal["keep", "mask"] = "keep"
    recency_half_life: float | None = None
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    users: npt.NDArray[np.bool_] | None = None

    @cached_property
    def bounds(self) -> tuple[Int64, Int64]:
        """`(start [W], end [W])` of the inputs of all windows; the event at `end` is still a target."""
        begin = self.data.store.offsets[:-1]
        end = self.data.train_end - 1  # the last event is never an input
        keep = end > begin if self.users is None else (end > begin) & self.users
        begin, end = begin[keep], end[keep]
        if self.windows == "last":
            return np.maximum(begin, end - self.max_length), end
        counts = -(-(end - begin) // self.max_length)
        which = np.repeat(np.arange(len(begin)), counts)
        nth = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
        window_end = end[which] - nth * self.max_length
        return np.maximum(begin[which], window_end - self.max_length), window_end

    @cached_property
    def _first_time(self) -> npt.NDArray[np.bool_]:
        return first_occurrences(self.data)

    @cached_property
    def _recency(self) -> Recency:
        return Recency(self.data, self.recency_half_life)

    def _kept(self, chosen: Int64, draw: np.random.Generator) -> npt.NDArray[np.bool_]:
        """Draw which targets stay, each as likely as it is worth, bool [T]."""
        if self.recency_half_life is None:
            return np.ones(len(chosen), dtype=bool)
        return draw.random(len(chosen)) < self._recency.worth(chosen)

    @cached_property
    def _next_baskets(self) -> tuple[Int64, Int64]:
        return next_baskets(self.data)

    @cached_property
    def _members(self) -> tuple[Int64, Int64]:
        """`(places [M], before [E + 1])`: events that can be members of a set, and how many come before.

        An item is a member of the rest of a list at its last event there: that one is in the rest if
        any is. With `mask` it is one at its first, after which it is none that the user has not had.
        """
        if self.objective == "rest_set":
            member = self._first_time if self.repeats == "mask" else last_occurrences(self.data)
        else:
            member = first_in_basket(self.data.store)
            if self.repeats == "mask":
                member = member & self._first_time
        return np.flatnonzero(member), np.concatenate([[0], np.cumsum(member)])

    def __len__(self) -> int:
        share = -(-len(self.bounds[0]) // self.world_size)
        return -(-share // self.batch_size)

    def epoch(self, epoch: int) -> Iterator[SequenceBatch]:
        """Yield the batches of one epoch for this process."""
        start, end = self.bounds
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(len(start))
        if self.world_size > 1:  # equal shares: wrap around, as a distributed sampler does
            order = np.resize(order, -(-len(order) // self.world_size) * self.world_size)
            order = order[self.rank :: self.world_size]
        draw = np.random.default_rng((self.seed, epoch, self.rank))
        for at in range(0, len(order), self.batch_size):
            pick = order[at : at + self.batch_size]
            place = (self.data.store, start[pick], end[pick], self.max_length)
            if self.objective in SET_OBJECTIVES:
                batch = pack_histories(*place, sets=lambda places: self._sets(places, draw))
            else:
                batch = pack_histories(*place, targets=lambda places: self._targets(places, draw))
            # Users without events share the offset of the next user, who is the last of them.
            users = np.searchsorted(self.data.store.offsets, start[pick], side="right") - 1
            yield replace(batch, users=torch.from_numpy(users))

    def _targets(self, places: Int64, draw: np.random.Generator) -> Int64:
        """Return the item to predict after each place, 0 where there is none."""
        if self.objective == "next_event":
            chosen, valid = places + 1, np.ones(len(places), dtype=bool)
        else:
            first, last = (bound[places] for bound in self._next_baskets)
            valid = last > first
            chosen = first + (draw.random(len(places)) * (last - first)).astype(np.int64)
            chosen = np.where(valid, chosen, 0)
        if self.repeats == "mask":
            valid = valid & self._first_time[chosen]
        valid = valid & self._kept(chosen, draw)
        return np.where(valid, self.data.store.items[chosen], 0).astype(np.int64)

    def _sets(self, places: Int64, draw: np.random.Generator) -> SetRuns:
        """Return the set to predict after each place: its user's next basket or rest, each item once."""
        before = self._members[1]
        if self.objective == "rest_set":
            first = places + 1
            start, end = before[first], before[self._train_end[places]]
            end = np.minimum(end, start + MOST_REST)
        else:
            first, last = (bound[places] for bound in self._next_baskets)
            start, end = before[first], before[last]
        kept = self._kept(np.minimum(first, self.data.store.n_events - 1), draw)
        return SetRuns(self._pool, start, np.where(kept, end, start))

    @cached_property
    def _train_end(self) -> Int64:
        """Where the training part of each event's user ends, int64 [E]."""
        return np.repeat(self.data.train_end, np.diff(self.data.store.offsets))

    @cached_property
    def _pool(self) -> Int32:
        """Items of the events that can be members of a set, int32 [M]."""
        return np.asarray(self.data.store.items[self._members[0]])


def first_occurrences(data: TrainingData) -> npt.NDArray[np.bool_]:
    """Tell for every event of the store whether its user has it for the first time, bool [E]."""
    store = data.store
    user = np.repeat(np.arange(store.n_users, dtype=np.int64), np.diff(store.offsets))
    pair = user * (store.n_items + 1) + store.items
    first = np.zeros(store.n_events, dtype=bool)
    first[np.unique(pair, return_index=True)[1]] = True
    return first


def last_occurrences(data: TrainingData) -> npt.NDArray[np.bool_]:
    """Tell for every event whether it is the last of its user and item in the training part, bool [E]."""
    users, places = data.places()
    pair = users * (data.store.n_items + 1) + data.store.items[places]
    last = np.zeros(data.store.n_events, dtype=bool)
    last[places[::-1][np.unique(pair[::-1], return_index=True)[1]]] = True
    return last


def first_in_basket(store: SequenceStore) -> npt.NDArray[np.bool_]:
    """Tell for every event of the store whether its basket has the item for the first time, bool [E]."""
    key = basket_runs(store) * (store.n_items + 1) + store.items
    first = np.zeros(store.n_events, dtype=bool)
    first[np.unique(key, return_index=True)[1]] = True
    return first


def basket_runs(store: SequenceStore) -> Int64:
    """Number the baskets of all users 0, 1, ... in the store's order, int64 [E]."""
    if store.baskets is None:
        raise ValueError("next_basket needs baskets: map basket_id or set data.basket_minutes")
    new = np.ones(store.n_events, dtype=bool)
    new[1:] = store.baskets[1:] != store.baskets[:-1]
    new[store.offsets[:-1][np.diff(store.offsets) > 0]] = True
    return np.cumsum(new) - 1


def next_baskets(data: TrainingData) -> tuple[Int64, Int64]:
    """Return, for every event, `(start [E], end [E])` of its user's next basket in the training part.

    Empty (`start == end`) where no whole next basket lies before the user's `train_end`.
    """
    store = data.store
    run = basket_runs(store)
    starts = np.flatnonzero(np.diff(run, prepend=-1))
    ends = np.append(starts[1:], store.n_events)
    limit = np.repeat(data.train_end, np.diff(store.offsets))
    first = ends[run]
    following = np.minimum(run + 1, len(starts) - 1)
    last = np.minimum(ends[following], limit)
    return np.minimum(first, limit), np.maximum(last, np.minimum(first, limit))
