"""Which items a list must not hold: one object, used by evaluation and by serving alike.

An item is forbidden when it is PAD, was seen (in the whole history, or among its newest `window`
events), is blocked, or is missing from an allow list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.data.sequences import Int64, SequenceStore, Targets
from recsys.errors import DataError
from recsys.schema import PAD

Integers = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]
Setting = Literal["seen", "none"] | int
"""Of `evaluation.exclude`: all of the history, nothing of it, or its newest so many events."""


@dataclass(frozen=True)
class Histories:
    """B histories as views into one flat array, each oldest first.

    Attributes:
        values: integer [E], item indices; history i is `values[start[i]:end[i]]`, and PAD (0)
            stands for an unknown item, which forbids nothing.
        start: int64 [B].
        end: int64 [B].
    """

    values: Integers
    start: Int64
    end: Int64

    @classmethod
    def of_targets(
        cls, store: SequenceStore, targets: Targets, part: slice = slice(None)
    ) -> Histories:
        """View the histories of `targets[part]`: all events of the user before the target."""
        users = targets.user[part]
        return cls(store.items, store.offsets[users], np.asarray(targets.start[part]))

    @classmethod
    def from_lists(cls, histories: Sequence[Sequence[int] | Integers]) -> Histories:
        """Pack plain lists or arrays of item indices, oldest first."""
        lengths = np.array([len(history) for history in histories], dtype=np.int64)
        end = np.cumsum(lengths)
        parts = [np.asarray(history, dtype=np.int64) for history in histories]
        flat = np.concatenate([np.zeros(0, dtype=np.int64), *parts])
        return cls(flat, end - lengths, end)

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, part: slice) -> Histories:
        return Histories(self.values, self.start[part], self.end[part])

    def pairs(self, window: int | None = None) -> tuple[Int64, Int64]:
        """Return `(row, item)` of every event, or of the newest `window` events of each row."""
        lengths = self.end - self.start
        if window is not None:
            lengths = np.minimum(lengths, window)
        rows = np.repeat(np.arange(len(self), dtype=np.int64), lengths)
        first = np.repeat(np.cumsum(lengths) - lengths, lengths)
        where = (self.end - lengths)[rows] + np.arange(len(rows), dtype=np.int64) - first
        return rows, self.values[where].astype(np.int64)


class Exclusion:
    """The rule that forbids items; immutable.

    Args:
        seen: forbid items of the history.
        window: with `seen`, only items of the newest `window` events; older ones may repeat.
        blocked: item indices that are never recommended.
        allowed: if given, only these may be recommended (less the seen and blocked ones).

    Raises:
        DataError: an index below 1, or a window below 1.
    """

    def __init__(
        self,
        seen: bool = True,
        window: int | None = None,
        blocked: Sequence[int] | Integers | None = None,
        allowed: Sequence[int] | Integers | None = None,
    ) -> None:
        if window is not None and window < 1:
            raise DataError(f"exclusion window is {window}; it must be at least 1 event")
        self.seen = seen
        self.window = window
        self.blocked = _index_set(blocked, "blocked")
        self.allowed = None if allowed is None else _index_set(allowed, "allowed")

    @classmethod
    def from_setting(
        cls,
        exclude: Setting,
        blocked: Sequence[int] | Integers | None = None,
        allowed: Sequence[int] | Integers | None = None,
    ) -> Exclusion:
        """Return the rule of the setting `evaluation.exclude`, and of one request's own lists."""
        if isinstance(exclude, int) and not isinstance(exclude, bool):
            return cls(window=exclude, blocked=blocked, allowed=allowed)
        if exclude not in ("seen", "none"):
            raise DataError(
                f"the rule of exclusion is {exclude!r}; allowed are 'seen', 'none' and a number of "
                "events (the repeat window); set evaluation.exclude to one of them"
            )
        return cls(seen=exclude == "seen", blocked=blocked, allowed=allowed)

    def __repr__(self) -> str:
        allowed = "all" if self.allowed is None else len(self.allowed)
        blocked = len(self.blocked)
        return f"Exclusion({self.describe()}; {blocked} blocked, {allowed} allowed)"

    def describe(self) -> str:
        """Say in words what is done with seen items."""
        if not self.seen:
            return "nothing seen is excluded"
        if self.window is None:
            return "all seen items are excluded"
        return f"items of the newest {self.window} events are excluded"

    def seen_pairs(self, histories: Histories) -> tuple[Int64, Int64]:
        """Return `(row, item)` of what the histories forbid; PAD and repeated pairs may occur."""
        if not self.seen:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        return histories.pairs(self.window)

    def forbidden(self, history: Sequence[int] | Integers) -> Int64:
        """Return one history's seen and blocked items, ascending; `allowed` is not looked at."""
        values = np.asarray(history, dtype=np.int64)
        seen = values[:0] if not self.seen else values[-(self.window or len(values) or 1) :]
        return _index_set(np.concatenate([seen[seen != PAD], self.blocked]), "history")

    def candidates(self, n_items: int) -> Int64 | None:
        """Return the allowed items less the blocked, ascending; None without an allow list."""
        self._check(n_items)
        if self.allowed is None:
            return None
        return np.setdiff1d(self.allowed, self.blocked, assume_unique=True)

    def permitted(self, items: Integers, histories: Histories) -> Bools:
        """Tell which `items` [B, C] may be shown to their row, bool [B, C]; never those below 1."""
        items = np.asarray(items, dtype=np.int64)
        rows, seen = self.seen_pairs(histories)
        width = 1 + max(int(seen.max(initial=0)), int(items.max(initial=0)))
        own = np.arange(len(items), dtype=np.int64)[:, None] * width + items
        allowed: Bools = (items > PAD) & ~np.isin(own, rows * width + seen)
        if len(self.blocked):
            allowed &= ~np.isin(items, self.blocked)
        if self.allowed is not None:
            allowed &= np.isin(items, self.allowed)
        return allowed

    def n_permitted(self, histories: Histories, n_items: int) -> Int64:
        """Count the items that may be recommended to each row, int64 [B]."""
        base = self.candidates(n_items)
        if base is None:
            base = np.setdiff1d(np.arange(1, n_items + 1, dtype=np.int64), self.blocked)
        rows, seen = self.seen_pairs(histories)
        hit = np.isin(seen, base)
        distinct = np.unique(rows[hit] * (n_items + 1) + seen[hit]) // (n_items + 1)
        return len(base) - np.bincount(distinct, minlength=len(histories)).astype(np.int64)

    def mask_(self, scores: Tensor, histories: Histories) -> Tensor:
        """Set the scores [B, n_items + 1] of all forbidden items to -inf, in place.

        Raises:
            DataError: a history, `blocked` or `allowed` names an item beyond the catalogue.
        """
        n_items = scores.shape[1] - 1
        base = self.candidates(n_items)
        lowest = -torch.inf
        scores[:, PAD] = lowest
        if base is not None:
            closed = torch.ones(n_items + 1, dtype=torch.bool)
            closed[torch.from_numpy(base)] = False
            scores.masked_fill_(closed.to(scores.device), lowest)
        elif len(self.blocked):
            scores[:, torch.from_numpy(self.blocked).to(scores.device)] = lowest
        rows, seen = self.seen_pairs(histories)
        check_history_items(seen, n_items)
        device = scores.device
        scores[torch.from_numpy(rows).to(device), torch.from_numpy(seen).to(device)] = lowest
        return scores

    def _check(self, n_items: int) -> None:
        for name, indices in (("blocked", self.blocked), ("allowed", self.allowed)):
            if indices is not None and len(indices) and indices[-1] > n_items:
                raise DataError(
                    f"{name} names item index {indices[-1]}, but the catalogue ends at {n_items}"
                )


def check_history_items(items: Int64, n_items: int) -> None:
    """Raise `DataError` if a history holds an index outside 0..n_items."""
    if len(items) and (items.min() < 0 or items.max() > n_items):
        wrong = items[(items < 0) | (items > n_items)][0]
        raise DataError(f"a history holds item index {wrong}; allowed are 0 (unknown) to {n_items}")


def _index_set(indices: Sequence[int] | Integers | None, name: str) -> Int64:
    if indices is None or len(indices) == 0:
        return np.zeros(0, dtype=np.int64)
    unique = np.unique(np.asarray(indices, dtype=np.int64))
    if unique[0] < 1:
        raise DataError(f"{name} names item index {unique[0]}; items are numbered from 1")
    return unique
