"""How often items come near each other: sums over pairs of training events, some rows at a time.

Rows are cut so that a block expands about `BLOCK_PAIRS` pairs; what a row sums to does not depend on it,
but for the rounding of float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import sparse

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
    ways = 2 if backward else 1
    for rows in _cut(np.bincount(items, minlength=size) * reach * ways):
        block = _rows_of(rows, users, items, size, reach, worth)
        if backward:
            if rows == slice(0, size):
                turned = block.T
            else:
                turned = _rows_of(rows, users, items, size, reach, worth, turned=True)
            block = (block + backward * turned).tocsr()
        yield rows, block


def _rows_of(
    rows: slice,
    users: Int64,
    items: Int32,
    size: int,
    reach: int,
    worth: PairWorth,
    *,
    turned: bool = False,
) -> sparse.csr_array:
    """Return the pairs whose earlier item is of these rows; turned, whose later one is."""
    row, column, value = [], [], []
    for lag in range(1, reach + 1):
        later = np.flatnonzero(users[lag:] == users[:-lag]) + lag
        mine = items[later] if turned else items[later - lag]
        if rows.stop - rows.start < size:
            inside = (mine >= rows.start) & (mine < rows.stop)
            later, mine = later[inside], mine[inside]
        row.append(mine - rows.start)
        column.append(items[later - lag] if turned else items[later])
        value.append(worth(later - lag, later, lag))
    pairs = (np.concatenate(row), np.concatenate(column))
    shape = (rows.stop - rows.start, size)
    return sparse.coo_array((np.concatenate(value), pairs), shape=shape).tocsr()


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
    new = np.ones(len(items), dtype=bool)
    new[1:] = (users[1:] != users[:-1]) | (baskets[1:] != baskets[:-1])
    starts = np.flatnonzero(new)  # [G]
    lengths = np.diff(starts, append=len(items))
    last, of_user = starts + lengths - 1, users[starts]
    group = np.repeat(np.arange(len(starts)), lengths)  # [E]
    inside = sparse.csr_array((np.ones(len(items)), (group, items)), shape=(len(starts), size))
    inside.sum_duplicates()
    own = worth(last, last, 0) / (2.0 * np.maximum(lengths - 1, 1))  # [G]
    steps = _steps(of_user, lengths, last, reach, worth)  # [G, G]
    expanded = lengths + steps.astype(bool) @ lengths + steps.T.astype(bool) @ lengths  # [G]
    cost = np.bincount(items, weights=expanded[group], minlength=size).astype(np.int64)
    holders = inside.T.tocsr()  # [size, G]
    # How often an event stands beside another one of the same item in its basket.
    twice = sparse.csr_array(
        (inside.data * (inside.data - 1), inside.indices, inside.indptr), shape=inside.shape
    )
    beside = np.asarray(twice.T @ own).ravel()  # [size]
    together = sparse.diags_array(own)
    for rows in _cut(cost):
        mine = holders[rows]
        near = _with_diagonal(((mine @ together) @ inside).tocoo(), beside[rows], rows.start)
        block = (1.0 + backward) * near + (mine @ steps) @ inside
        if backward:
            block = block + backward * ((mine @ steps.T) @ inside)
        yield rows, block.tocsr()


def _with_diagonal(matrix: sparse.coo_array, diagonal: Float64, first: int) -> sparse.csr_array:
    """Return some rows of a square matrix, from `first` on, with another diagonal; its zeros are not kept."""
    row, column = matrix.coords
    others, own = column != row + first, np.flatnonzero(diagonal)
    value = np.concatenate([matrix.data[others], diagonal[own]])
    pairs = (np.concatenate([row[others], own]), np.concatenate([column[others], own + first]))
    return sparse.coo_array((value, pairs), shape=matrix.shape).tocsr()


def _steps(
    users: Int64, lengths: Int64, last: Int64, reach: int, worth: PairWorth
) -> sparse.csr_array:
    """Return what an event of basket g gives to each event of a later basket h, [G, G]."""
    size = len(users)
    earlier, later, value = [], [], []
    for distance in range(1, reach + 1):
        to = np.flatnonzero(users[distance:] == users[:-distance]) + distance
        earlier.append(to - distance)
        later.append(to)
        given = worth(last[to - distance], last[to], distance) / (1.0 + distance)
        value.append(given / lengths[to])
    pairs = (np.concatenate(earlier), np.concatenate(later))
    return sparse.coo_array((np.concatenate(value), pairs), shape=(size, size)).tocsr()


def _cut(cost: Int64) -> Iterator[slice]:
    """Cut rows into runs of about `BLOCK_PAIRS` pairs, at least one row each."""
    number = np.cumsum(cost) // BLOCK_PAIRS  # never falls
    bounds = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(cost)]
    for start, stop in pairwise(bounds):
        yield slice(start, stop)
