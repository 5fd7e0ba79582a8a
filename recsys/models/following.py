"""Which items follow which: pairs of a user's events in order, some items at a time."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from recsys.data.sequences import TrainingData


class FollowingPairs:
    """Sums d^-fading over the pairs of a user's training events with i coming d <= reach places after j.

    The places of the events are held, ordered by item; pairs exist for the items that are asked for.
    """

    def __init__(self, data: TrainingData, reach: int, fading: float) -> None:
        users, places = data.places()
        items = np.asarray(data.store.items)[places]
        order = np.argsort(items, kind="stable")
        self.items, self.places = items[order], places[order]
        self.ends = data.train_end[users[order]]
        self.all_items = data.store.items
        self.size = data.store.n_items + 1
        self.reach, self.fading = reach, fading

    def of_items(self, first: int, end: int) -> sparse.coo_array:
        """Return the sums for j in `first:end` and every i, float64 [end - first, n_items + 1]."""
        end = min(end, self.size)
        low, high = np.searchsorted(self.items, [first, end])
        row, place, stop = (x[low:high] for x in (self.items, self.places, self.ends))
        rows, columns, weights = [], [], []
        for distance in range(1, self.reach + 1):
            inside = place + distance < stop
            row, place, stop = row[inside], place[inside], stop[inside]
            if not len(row):
                break
            rows.append(row - first)
            columns.append(np.asarray(self.all_items[place + distance]))
            weights.append(np.full(len(row), float(distance) ** -self.fading))
        parts = [np.concatenate([np.empty(0, int), *some]) for some in (rows, columns)]
        values = np.concatenate([np.empty(0), *weights])
        shape = (end - first, self.size)
        summed = sparse.coo_array((values, (parts[0], parts[1])), shape=shape).tocsr()
        return sparse.coo_array(summed)
