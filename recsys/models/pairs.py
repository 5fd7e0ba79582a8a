"""How often items come near each other: sums over pairs of training events, some rows at a time.

Rows are cut so that a block expands about `BLOCK_PAIRS` pairs; what a row sums to does not depend on it,
but for the rounding of float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recsys.data.ordering import run_starts
from recsys.data.sequences import Int32, Int64

Float64 = npt.NDArray[np.float64]

BLOCK_PAIRS = 8_000_000
"""Largest number of pairs expanded at once; bounds memory at a few 100 MB."""

PairWorth = Callable[[Int64, Int64, int], Float64]
"""What the pairs (earlier, later), so many steps apart, count: float64 [P]."""

Block = tuple[slice, sparse.csr_array]
"""Some rows j, and n(j -> i) of these, [rows, V + 1]."""


def count_pairs(
    users: Int64, items: Int32, size: int, reach: int, worth: PairWorth
) -> sparse.csr_array:
    """Return n(j -> i), [size, size]; see `pair_blocks`."""
    blocks = [block for _, block in pair_blocks(users, items, size, reach, worth)]
    return sparse.vstack(blocks, format="csr")


def pair_blocks(
    users: Int64, items: Int32, size: int, reach: int, worth: PairWorth, backward: float = 0.0
) -> Iterator[Block]:
    """Yield what all pairs of events count in which i comes at most `reach` after j.

    Args:
        users, items: of the training events, a user's in their order, [E].
        size: V + 1, with V items.
        reach: how many events apart a pair may be.
        worth: of pairs of events; repeated pairs are summed in float64.
        backward: how much of it a pair counts the other way round.
    """
    by_item, first = _places_by_item(items, size)
    for rows in _cut(np.diff(first) * reach * (2 if backward else 1)):
        mine = np.sort(by_item[first[rows.start] : first[rows.stop]])
        block = _pairs_of(mine, rows, users, items, size, reach, worth)
        if backward and rows == slice(0, size):
            block = (block + backward * block.T).tocsr()
        elif backward:
            turned = _pairs_of(mine, rows, users, items, size, -reach, worth)
            block = (block + backward * turned).tocsr()
        yield rows, block


def _places_by_item(items: Int32, size: int) -> tuple[Int64, Int64]:
    """Return the events sorted by item [E], and where those of every item begin among them [size + 1]."""
    order = np.argsort(items, kind="stable")
    counts = np.bincount(items, minlength=size)
    return order, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _pairs_of(
    mine: Int64,
    rows: slice,
    users: Int64,
    items: Int32,
    size: int,
    reach: int,
    worth: PairWorth,
) -> sparse.csr_array:
    """Return the pairs of some events with those after them; before them, if `reach` is negative."""
    row, column, value = [], [], []
    for there, other, lag in _within_reach(mine, users, reach):
        own = mine[there]
        row.append(items[own] - rows.start)
        column.append(items[other])
        value.append(worth(np.minimum(own, other), np.maximum(own, other), lag))
    pairs = (np.concatenate(row), np.concatenate(column))
    shape = (rows.stop - rows.start, size)
    return sparse.coo_array((np.concatenate(value), pairs), shape=shape).tocsr()


def _within_reach(mine: Int64, users: Int64, reach: int) -> Iterator[tuple[Int64, Int64, int]]:
    """Yield, for each lag of 1 to |reach|, the events that have another of their user's so many places on.

    Args:
        mine: places of events in the whole sequence of them, [M].
        users: whose every event is, [E]; a user's events are side by side.
        reach: the largest lag; where it is negative, the other event is earlier instead of later.

    Yields:
        Which of `mine` have such an event [X], the places of those events [X], and the lag.
    """
    for lag in range(1, abs(reach) + 1):
        other = mine + (lag if reach > 0 else -lag)
        there = np.flatnonzero((other >= 0) & (other < len(users)))
        there = there[users[other[there]] == users[mine[there]]]
        yield there, other[there], lag


def basket_pair_blocks(
    users: Int64,
    items: Int32,
    baskets: Int32,
    size: int,
    reach: int,
    worth: PairWorth,
    backward: float = 0.0,
) -> Iterator[Block]:
    """Yield what pairs count whose baskets are at most `reach` baskets apart; baskets have no order.

    An event of j gives each later basket, d baskets on, worth / (1 + d), in equal shares to its items i.
    Those of its own basket get half of that: of two events of one basket none is the later.

    Args:
        users, items, baskets: of the training events, a basket's side by side, [E].
        size: V + 1, with V items.
        reach: how many baskets apart a pair may be.
        worth: of pairs of baskets, given by the places of their last events among the E; without the
            distance.
        backward: how much of it a pair counts the other way round.
    """
    lists = _Baskets.of(users, items, baskets, size)
    own = worth(lists.last, lists.last, 0) / (2.0 * np.maximum(lists.lengths - 1, 1))  # [G]
    # How often an event stands beside another one of the same item in its basket.
    among = lists.items
    twice = sparse.csr_array(
        (among.data * (among.data - 1), among.indices, among.indptr), shape=among.shape
    )
    beside = np.asarray(twice.T @ own).ravel()  # [size]
    holders = among.T.tocsr()  # [size, G]
    for rows in _cut(lists.cost(reach)):
        where = np.unique(holders[rows].indices)  # baskets that hold one of these items
        mine = holders[rows][:, where]
        near = _with_diagonal(
            ((mine * own[where]) @ among[where]).tocoo(), beside[rows], rows.start
        )
        after = lists.steps(where, reach, worth)
        block = (1.0 + backward) * near + (mine @ after) @ among
        if backward:
            before = lists.steps(where, -reach, worth)
            block = block + backward * ((mine @ before) @ among)
        yield rows, block.tocsr()


@dataclass(frozen=True)
class _Baskets:
    """Baskets as sets, a user's in their order: G of them.

    Attributes:
        users: [G].
        lengths: events of each, [G].
        last: the place of its last event, [G].
        items: how often an item is in a basket, [G, size].
    """

    users: Int64
    lengths: Int64
    last: Int64
    items: sparse.csr_array

    @classmethod
    def of(cls, users: Int64, items: Int32, baskets: Int32, size: int) -> _Baskets:
        """Return the baskets of events that stand basket by basket."""
        starts = np.flatnonzero(run_starts([users, baskets]))
        lengths = np.diff(starts, append=len(items))
        basket = np.repeat(np.arange(len(starts)), lengths)
        ones = np.ones(len(items))
        inside = sparse.coo_array((ones, (basket, items)), shape=(len(starts), size)).tocsr()
        return cls(users[starts], lengths, starts + lengths - 1, inside)

    def cost(self, reach: int) -> Int64:
        """Return how many pairs the row of every item is made of, at most, [size]."""
        events = self.lengths.copy()
        for distance in range(1, reach + 1):
            same = self.users[distance:] == self.users[:-distance]
            events[:-distance] += np.where(same, self.lengths[distance:], 0)
            events[distance:] += np.where(same, self.lengths[:-distance], 0)
        made: Int64 = (self.items.T @ events).astype(np.int64)
        return made

    def steps(self, where: Int64, reach: int, worth: PairWorth) -> sparse.csr_array:
        """Return what an event of basket `where[x]` gives to each event of a later basket h, [X, G].

        With a negative reach, what it is given by each event of an earlier basket h.
        """
        own, other, value = [], [], []
        for there, to, distance in _within_reach(where, self.users, reach):
            earlier, later = np.minimum(where[there], to), np.maximum(where[there], to)
            given = worth(self.last[earlier], self.last[later], distance) / (1.0 + distance)
            own.append(there)
            other.append(to)
            value.append(given / self.lengths[later])
        pairs = (np.concatenate(own), np.concatenate(other))
        shape = (len(where), len(self.users))
        return sparse.coo_array((np.concatenate(value), pairs), shape=shape).tocsr()


def _with_diagonal(matrix: sparse.coo_array, diagonal: Float64, first: int) -> sparse.csr_array:
    """Return some rows of a square matrix, from `first` on, with another diagonal; its zeros are not kept."""
    row, column = matrix.coords
    others, own = column != row + first, np.flatnonzero(diagonal)
    value = np.concatenate([matrix.data[others], diagonal[own]])
    pairs = (np.concatenate([row[others], own]), np.concatenate([column[others], own + first]))
    return sparse.coo_array((value, pairs), shape=matrix.shape).tocsr()


def _cut(cost: Int64) -> Iterator[slice]:
    """Cut rows into runs of about `BLOCK_PAIRS` pairs, at least one row each."""
    number = np.cumsum(cost) // BLOCK_PAIRS  # never falls
    bounds = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(cost)]
    for start, stop in pairwise(bounds):
        yield slice(start, stop)
