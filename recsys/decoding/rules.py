"""What lists must and must not hold: rules of a request, and what they leave open at every place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from recsys.data.sequences import Int64
from recsys.decoding.shortlist import Shortlist
from recsys.errors import DataError
from recsys.retrieval.exclusion import Bools
from recsys.schema import PAD


def _nothing() -> Int64:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Quota:
    """At most so many items of one label in a list.

    Attributes:
        name: of the attribute, for messages.
        labels: int64 [n_items + 1], equal for items that share one; below 0 for items without any,
            which are not limited.
        limit: at least 1.
    """

    name: str
    labels: Int64
    limit: int

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise DataError(f"at most {self.limit} items of one {self.name}: it must be at least 1")


@dataclass(frozen=True, eq=False)
class Rules:
    """The rules of one request's lists.

    Attributes:
        forbidden: items that may not come, ascending.
        allowed: if given, only these may, ascending.
        required: items that every list must hold, each once.
        quotas: limits on items of one label, history not counted.
    """

    forbidden: Int64 = field(default_factory=_nothing)
    allowed: Int64 | None = None
    required: Int64 = field(default_factory=_nothing)
    quotas: tuple[Quota, ...] = ()

    def check(self, steps: int, n_items: int, repeats: bool, name: str = "the request") -> None:
        """Raise `DataError` where no list of `steps` items can keep the rules, saying which."""
        required = self.required
        if len(np.unique(required)) < len(required):
            raise DataError(f"{name}: an item is required twice; name each once")
        if len(required) > steps:
            raise DataError(f"{name}: {len(required)} required items do not fit a list of {steps}")
        closed = np.isin(required, self.forbidden)
        if self.allowed is not None:
            closed |= ~np.isin(required, self.allowed)
        if closed.any():
            raise DataError(
                f"{name}: {int(closed.sum())} of the required items may not be shown (seen, excluded, "
                "or missing from the allowed ones); the first is number "
                f"{int(np.flatnonzero(closed)[0]) + 1} of the required"
            )
        self._check_room(steps, n_items, repeats, name)

    def _check_room(self, steps: int, n_items: int, repeats: bool, name: str) -> None:
        if self.allowed is None:
            room = n_items - len(self.forbidden)
        else:
            room = len(np.setdiff1d(self.allowed, self.forbidden))
        if room < (1 if repeats else steps):
            raise DataError(
                f"{name}: lists of {steps} items are wanted, but only {room} items may be shown; ask for "
                "fewer, exclude fewer, or allow more"
            )
        for quota in self.quotas:
            most = int(np.unique(quota.labels[self.required], return_counts=True)[1].max(initial=0))
            if len(self.required) and most > quota.limit and quota.labels[self.required].min() >= 0:
                raise DataError(
                    f"{name}: {most} required items share one {quota.name}, at most {quota.limit} may"
                )
            if not repeats and (room := self._room_under(quota, n_items)) < steps:
                raise DataError(
                    f"{name}: lists of {steps} items are wanted, but with at most {quota.limit} of one "
                    f"{quota.name} only {room} fit; ask for fewer, or raise the limit"
                )

    def _room_under(self, quota: Quota, n_items: int) -> int:
        permitted = np.ones(n_items + 1, dtype=bool)
        if self.allowed is not None:
            permitted[:] = False
            permitted[self.allowed] = True
        permitted[self.forbidden] = False
        permitted[PAD] = False
        labels = quota.labels[permitted]
        per_label = np.bincount(labels[labels >= 0])
        return int(np.minimum(per_label, quota.limit).sum()) + int((labels < 0).sum())


class RulesOfLists:
    """The rules of a batch of requests, applied to all their lists at once.

    Shapes: N requests, B lists each, R = N * B rows, C candidates, S items chosen so far.
    """

    def __init__(self, rules: Sequence[Rules], lists: int, steps: int, repeats: bool) -> None:
        self.lists, self.steps, self.repeats = lists, steps, repeats
        width = max((len(r.required) for r in rules), default=0)
        required = np.full((len(rules), width), PAD, dtype=np.int64)
        for row, one in zip(required, rules, strict=True):
            row[: len(one.required)] = one.required
        self.required = np.repeat(required, lists, axis=0)  # [R, Q], PAD where there are fewer
        self.quotas = rules[0].quotas if rules else ()

    def close(self, values: np.ndarray, shortlist: Shortlist, chosen: Int64) -> None:
        """Set the values float32 [R, C] of candidates that may not come next to -inf.

        A list has to take what is required when no more places are left than required items; a label's
        quota keeps room for them.
        """
        known = shortlist.known
        if not self.repeats and chosen.shape[1]:
            column = shortlist.find(np.where(chosen == PAD, -1, chosen))
            row, _ = hit = np.nonzero(column >= 0)
            values[row, column[hit]] = -np.inf
        wanted = None
        if self.required.shape[1]:
            missing = self._missing(chosen)  # [R, Q]
            wanted = _member(known, np.where(missing, self.required, -1))  # [R, C]
            forced = missing.sum(1) >= self.steps - chosen.shape[1]
            values[forced[:, None] & ~wanted] = -np.inf
        for quota in self.quotas:
            self._close_quota(values, quota, known, chosen, wanted)

    def missing(self, chosen: Int64) -> Int64:
        """Count the required items that a group's lists int64 [N * b, S] do not have yet, [N * b]."""
        every = len(self.required) // max(1, len(chosen))
        required = self.required[::every] if every else self.required
        number: Int64 = ((required != PAD) & ~_member(required, chosen)).sum(1)
        return number

    def _missing(self, chosen: Int64) -> Bools:
        """Tell which required items a list does not have yet, bool [R, Q]."""
        missing: Bools = (self.required != PAD) & ~_member(self.required, chosen)
        return missing

    def _close_quota(
        self, values: np.ndarray, quota: Quota, known: Int64, chosen: Int64, wanted: Bools | None
    ) -> None:
        held = np.where(chosen == PAD, -1, quota.labels[chosen])  # [R, S]
        if wanted is not None:  # room for what is still to come
            missing = np.where(self._missing(chosen), quota.labels[self.required], -1)
            held = np.concatenate([held, missing], axis=1)
        own = quota.labels[known]  # [R, C]
        count = (own[:, :, None] == held[:, None, :]).sum(2)
        full = (own >= 0) & (count >= quota.limit)
        if wanted is not None:
            full &= ~wanted
        values[full] = -np.inf


def _member(items: Int64, of: Int64) -> Bools:
    """Tell which items [R, X] are among the row's own [R, Y], bool [R, X]."""
    found: Bools = (items[:, :, None] == of[:, None, :]).any(2)
    return found
