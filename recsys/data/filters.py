"""The k-core over user partitions: users and items that keep enough of each other.

The core is unique: any order of dropping ends at the same largest set. So a round needs to know only
which items are still alive: each partition finds its users with enough of them, and counts, for every
item, those users; the items with enough users go into the next round, until none falls out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.data.ordering import run_starts, stable_order
from recsys.data.sequences import Int32, Int64

Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class CoreRound:
    """What one partition found in one round.

    Attributes:
        users: bool [U], the partition's users with enough alive items.
        item_users: int64 [I], for each item how many of those users have it; 0 for a dead item.
    """

    users: Bool
    item_users: Int64


def core_round(
    user: Int32, item: Int32, n_users: int, items_alive: Bool, min_items: int
) -> CoreRound:
    """Return the users with at least `min_items` alive items, and the items' counts of such users.

    `user` (0..n_users - 1) and `item` are the partition's distinct pairs; where only "at least one"
    matters, its events serve as well.
    """
    alive = items_alive[item]
    users = np.bincount(user[alive], minlength=n_users) >= min_items
    counted = item[alive & users[user]]
    return CoreRound(users, np.bincount(counted, minlength=len(items_alive)).astype(np.int64))


def distinct_pairs(user: Int32, item: Int32) -> tuple[Int32, Int32]:
    """Return the distinct pairs, sorted by user, then item."""
    order = stable_order([user, item])
    first = run_starts([user[order], item[order]])
    return user[order][first], item[order][first]


def new_indices(alive: Bool, first: int = 0) -> Int32:
    """Return int32 new indices `first, first + 1, ...` of what is alive, -1 for the rest."""
    index = np.cumsum(alive, dtype=np.int64) - 1 + first
    return np.where(alive, index, -1).astype(np.int32)
