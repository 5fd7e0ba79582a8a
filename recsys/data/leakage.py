"""The leakage table of a split: what the held-out part shares with training, and what it cannot know.

A test event older than the newest training event means that training looked into its future; an item
or user without training events cannot have been learned; a target that shares its time with the event
before it has an order that the clock does not vouch for.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from recsys.config import FilterConfig
from recsys.data.sequences import Int32, Int64, Split, Targets
from recsys.data.splits import Fold, Runs


@dataclass(frozen=True)
class HeldOutCounts:
    """Counts over the targets of one part of a split; those of partitions add up.

    Attributes:
        item_events: int64 [n_items + 1], held-out events per item.
    """

    targets: int
    events: int
    users: int
    users_without_training: int
    targets_without_history: int
    tied_targets: int
    item_events: Int64

    def __add__(self, other: HeldOutCounts) -> HeldOutCounts:
        return HeldOutCounts(*(a + b for a, b in zip(_values(self), _values(other), strict=True)))


@dataclass(frozen=True)
class LeakageCounts:
    """Counts over one partition, or the sum over several.

    Attributes:
        newest_training: newest time of a training event, or None.
        item_training: int64 [n_items + 1], training events per item.
    """

    training_events: int
    training_users: int
    users_in_both: int
    newest_training: int | None
    item_training: Int64
    validation: HeldOutCounts
    test: HeldOutCounts

    def __add__(self, other: LeakageCounts) -> LeakageCounts:
        newest = [t for t in (self.newest_training, other.newest_training) if t is not None]
        return LeakageCounts(
            self.training_events + other.training_events,
            self.training_users + other.training_users,
            self.users_in_both + other.users_in_both,
            max(newest, default=None),
            self.item_training + other.item_training,
            self.validation + other.validation,
            self.test + other.test,
        )


def count_leakage(runs: Runs, items: Int32, n_items: int, split: Split) -> LeakageCounts:
    """Return the counts of one partition's part of a fold (positions local)."""
    begin = runs.offsets[:-1]
    in_training = np.arange(len(items)) < np.repeat(split.train_end, np.diff(runs.offsets))
    times = None if runs.timestamps is None else runs.timestamps[in_training]
    both = np.intersect1d(split.validation.user, split.test.user)
    return LeakageCounts(
        training_events=int(in_training.sum()),
        training_users=int((split.train_end > begin).sum()),
        users_in_both=len(both),
        newest_training=int(times.max()) if times is not None and len(times) else None,
        item_training=np.bincount(items[in_training], minlength=n_items + 1).astype(np.int64),
        validation=_count_held_out(runs, items, n_items, split, split.validation),
        test=_count_held_out(runs, items, n_items, split, split.test),
    )


def _count_held_out(
    runs: Runs, items: Int32, n_items: int, split: Split, targets: Targets
) -> HeldOutCounts:
    local = targets.user.astype(np.int64) - runs.first_user
    users = np.unique(local)
    begin = runs.offsets[:-1]
    has_history = targets.start > begin[local]
    tied = 0
    if runs.timestamps is not None:
        start = targets.start[has_history]
        tied = int((runs.timestamps[start] == runs.timestamps[start - 1]).sum())
    held_out = items[held_out_events(targets)]
    return HeldOutCounts(
        targets=len(targets),
        events=len(held_out),
        users=len(users),
        users_without_training=int((split.train_end[users] == begin[users]).sum()),
        targets_without_history=int((~has_history).sum()),
        tied_targets=tied,
        item_events=np.bincount(held_out, minlength=n_items + 1).astype(np.int64),
    )


def held_out_events(targets: Targets) -> Int64:
    """Return the positions of all events asked for; targets of one split never overlap."""
    lengths = targets.end - targets.start
    before = np.cumsum(lengths) - lengths
    return np.repeat(targets.start - before, lengths) + np.arange(lengths.sum(), dtype=np.int64)


def count_older(timestamps: Int64, targets: Targets, newest_training: int) -> int:
    """Count the held-out events that are older than the newest training event."""
    return int((timestamps[held_out_events(targets)] < newest_training).sum())


def leakage_table(
    counts: LeakageCounts,
    fold: Fold,
    older: dict[str, int] | None,
    cuts_are_times: bool,
    filters: FilterConfig,
) -> dict[str, Any]:
    """Return the table for JSON.

    Args:
        counts: the sum over all partitions.
        fold: the fold and its cuts.
        older: held-out events older than the newest training event, for `validation` and `test`; None
            where the clock is not absolute, so that times of different users cannot be compared.
        cuts_are_times: whether the fold's cuts are moments on the absolute clock.
        filters: the k-core is named in the table where it is on: it counts test events, too.
    """
    names = ("validation_from", "test_from", "test_until")
    cuts = {name: iso(getattr(fold, name)) for name in names} if cuts_are_times else None
    held_out = {"validation": counts.validation, "test": counts.test}
    return {
        "fold": fold.name,
        "cuts": cuts,
        "chosen_over_all_events_test_included": _over_all_events(filters),
        "training": {
            "events": counts.training_events,
            "users": counts.training_users,
            "items": int((counts.item_training > 0).sum()),
            "newest_event": iso(counts.newest_training) if older is not None else None,
        },
        "users_in_validation_and_test": counts.users_in_both,
        **{
            name: _held_out_table(
                part, counts.item_training, None if older is None else older[name]
            )
            for name, part in held_out.items()
        },
    }


def _over_all_events(filters: FilterConfig) -> str:
    """Return what is decided over training, validation and test events together."""
    core = {name: getattr(filters, name) for name in ("min_user_events", "min_item_events")}
    return ", ".join(["catalogue", *(f"{name}={n}" for name, n in core.items() if n > 1)])


def _held_out_table(part: HeldOutCounts, training: Int64, older: int | None) -> dict[str, Any]:
    unseen = (part.item_events > 0) & (training == 0)
    return {
        "targets": part.targets,
        "events": part.events,
        "users": part.users,
        "users_also_in_training": part.users - part.users_without_training,
        "users_without_training": part.users_without_training,
        "targets_without_history": part.targets_without_history,
        "targets_tied_with_predecessor": part.tied_targets,
        "items": int((part.item_events > 0).sum()),
        "items_without_training": int(unseen.sum()),
        "events_of_items_without_training": int(part.item_events[unseen].sum()),
        "events_older_than_newest_training": older,
        "share_older_than_newest_training": (
            None if older is None else older / part.events if part.events else 0.0
        ),
    }


def iso(seconds: int | None) -> str | None:
    """Return a moment as ISO 8601 in UTC, or the bare number where the calendar does not reach."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return str(seconds)


def _values(counts: HeldOutCounts) -> tuple[Any, ...]:
    return tuple(getattr(counts, name) for name in counts.__dataclass_fields__)
