"""The lists that came before a list: context that a single list does not hold.

What was played last night is rarely played tonight. A list comes before another if it had ended when
the other began: its last event is not later than the other's first (of equal times, the list of the
smaller index comes first; so do lists without times). That a list before is itself held out does not
matter: when this one begins, it is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from recsys.data.sequences import Int64, SequenceStore

Bools = npt.NDArray[np.bool_]

UNKNOWN_AGE = -1
"""Age in a batch of what a sequence's lists before would have, where they are not known."""


@dataclass(frozen=True)
class PreviousLists:
    """Which lists came before which.

    Attributes:
        store: the lists.
        known: bool [U], the lists that may be context; all with events by default.
    """

    store: SequenceStore
    known: Bools | None = None

    @cached_property
    def _ended(self) -> tuple[Int64, Int64]:
        """`(lists that may be context, when each ended)`, in the order in which they ended."""
        offsets = self.store.offsets
        usable = np.diff(offsets) > 0
        lists = np.flatnonzero(usable if self.known is None else usable & self.known)
        times = self.store.timestamps
        ended = lists if times is None else np.asarray(times[offsets[lists + 1] - 1])
        order = np.argsort(ended, kind="stable")
        return lists[order], ended[order].astype(np.int64)

    def before(self, lists: Int64, count: int) -> Int64:
        """Return the `count` lists before each, the newest first, -1 where there are no more, [B, count].

        Every list that is asked about must have an event.
        """
        known, ended = self._ended
        times = self.store.timestamps
        began = lists if times is None else np.asarray(times[self.store.offsets[lists]])
        before = np.searchsorted(ended, began, side="left")
        # Of those that ended at this very time, the ones of smaller index.
        tied = np.searchsorted(ended, began, side="right")
        for row in np.flatnonzero(tied > before):
            before[row] += np.searchsorted(known[before[row] : tied[row]], lists[row])
        at = before[:, None] - 1 - np.arange(count)
        return np.where(at >= 0, known[np.maximum(at, 0)] if len(known) else -1, -1)

    def in_order(self) -> Int64:
        """Return the lists that may be context, in the order in which they ended."""
        return self._ended[0]

    def items(self, lists: Int64, count: int) -> tuple[Int64, Int64]:
        """Return `(items, ages)` of the `count` lists before each, int64 [B, P] both, 0-filled.

        The list right before has age 1. An item that is in several of them stands there as often.
        """
        which = self.before(lists, count)  # [B, count]
        offsets = self.store.offsets
        length = np.where(which >= 0, offsets[which + 1] - offsets[which], 0)
        total = length.sum(axis=1)
        items = np.zeros((len(lists), int(total.max(initial=0))), dtype=np.int64)
        ages = np.zeros_like(items)
        flat = length.ravel()
        source = np.repeat(offsets[which].ravel(), flat) + _inside(flat)
        row = np.repeat(np.arange(len(lists)), total)
        column = _inside(total)
        items[row, column] = self.store.items[source]
        ages[row, column] = np.repeat(np.tile(np.arange(1, count + 1), len(lists)), flat)
        return items, ages


def _inside(lengths: Int64) -> Int64:
    """Return 0, 1, ... inside each of the runs of these lengths."""
    starts = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum()), dtype=np.int64) - np.repeat(starts, lengths)
