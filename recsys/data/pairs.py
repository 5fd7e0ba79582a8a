"""Pairs of a history and its next item: one of every user an epoch, drawn anew each time.

For a user with n training events the next item's place t is uniform over 1..n-1 (counted from 0), or
over the later half of the history, max(1, floor((n - 1) / 2))..n-1; the history is what comes before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from recsys.data.batches import SequenceBatch, pack_histories
from recsys.data.sequences import Int32, Int64, TrainingData


@dataclass(frozen=True)
class PairBatches:
    """One epoch's batches: histories, each with a target after its newest event alone.

    Attributes:
        data: what may be learned from.
        max_length: newest events of a history that are read.
        batch_size: pairs per batch and process.
        later_half: draw next items from the later half of a history only.
        domains: int32 [U], of which domain each user is; a batch is of one domain, so that what its
            pairs compete with is of the same kind. By default there is one.
        trains: bool [U], whose events are learned from; all by default.
        seed, rank, world_size: the order and the pairs are functions of `(seed, epoch)` alone; all
            processes get equally many pairs of every batch.
    """

    data: TrainingData
    max_length: int
    batch_size: int
    later_half: bool = False
    domains: Int32 | None = None
    trains: npt.NDArray[np.bool_] | None = None
    seed: int = 0
    rank: int = 0
    world_size: int = 1

    @cached_property
    def users(self) -> Int64:
        """Users who make pairs: those with two training events at least."""
        enough = self.data.lengths >= 2
        return np.flatnonzero(enough if self.trains is None else enough & self.trains)

    @cached_property
    def _by_domain(self) -> list[Int64]:
        if self.domains is None:
            return [self.users] if len(self.users) else []
        own = self.domains[self.users]
        return [self.users[own == domain] for domain in np.unique(own)]

    def __len__(self) -> int:
        size = self.batch_size * self.world_size
        return sum(-(-len(users) // size) for users in self._by_domain)

    def epoch(self, epoch: int) -> Iterator[SequenceBatch]:
        """Yield the batches of one epoch for this process."""
        rng = np.random.default_rng((self.seed, epoch))
        size = self.batch_size * self.world_size
        batches = []
        for users in self._by_domain:
            order = rng.permutation(users)
            batches += [order[at : at + size] for at in range(0, len(order), size)]
        for which in rng.permutation(len(batches)):
            users = batches[which]
            target = self._targets(users, rng)
            if self.world_size > 1:  # equal shares: wrap around, as a distributed sampler does
                even = -(-len(users) // self.world_size) * self.world_size
                users, target = np.resize(users, even), np.resize(target, even)
            mine = slice(self.rank, None, self.world_size)
            yield self._batch(users[mine], target[mine])

    def _targets(self, users: Int64, rng: np.random.Generator) -> Int64:
        """Draw the place of each user's next item, absolute in the store, int64 [B]."""
        length = self.data.lengths[users]
        first = np.maximum(1, (length - 1) // 2) if self.later_half else np.ones_like(length)
        drawn = first + (rng.random(len(users)) * (length - first)).astype(np.int64)
        places: Int64 = self.data.store.offsets[users] + drawn
        return places

    def _batch(self, users: Int64, target: Int64) -> SequenceBatch:
        items = self.data.store.items
        ends = np.sort(target)

        def rule(places: Int64) -> Int64:
            at = np.searchsorted(ends, places + 1).clip(max=len(ends) - 1)
            return np.where(ends[at] == places + 1, items[places + 1], 0).astype(np.int64)

        begin = self.data.store.offsets[users]
        return pack_histories(self.data.store, begin, target, self.max_length, targets=rule)
