"""What one group chooses in one step: the best extensions of its lists, each set of items once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.data.sequences import Int64
from recsys.decoding.settings import SearchSettings
from recsys.decoding.shortlist import Float32
from recsys.evaluation.metrics import Float64
from recsys.schema import PAD

UInt64 = npt.NDArray[np.uint64]
SHORT = 64
"""Candidates that are sorted as they are."""


@dataclass(frozen=True)
class Choice:
    """Extensions of N requests, best first, -inf and PAD where there are fewer.

    Attributes:
        parent: int64 [N, m], which list of the group is extended.
        column: int64 [N, m], by which of its candidates.
        item: int64 [N, m].
        score: float64 [N, m].
    """

    parent: Int64
    column: Int64
    item: Int64
    score: Float64

    def take(self, which: Int64) -> Choice:
        """Return the extensions `which` [N, b], -1 for none."""
        row, at = np.arange(len(which))[:, None], np.maximum(which, 0)
        nothing = which < 0
        return Choice(
            self.parent[row, at],
            self.column[row, at],
            np.where(nothing, PAD, self.item[row, at]),
            np.where(nothing, -np.inf, self.score[row, at]),
        )


def choose(
    settings: SearchSettings,
    base: Float64,
    steps: Float32,
    ids: Int64,
    own: Int64,
    required: Int64,
) -> Choice:
    """Return a group's best extensions: `beams` of them, twice as many where lists may end.

    Args:
        settings: `beams`, `sets` and `end`.
        base: float64 [N, b], the lists' scores.
        steps: float32 [N, b, C], what each candidate adds.
        ids: int64 [N, b, C].
        own: int64 [N, b, S], the lists.
        required: int64 [N, Q], what all of them will hold.
    """
    n, beams, width = steps.shape
    wanted = 2 * beams if settings.end is not None else beams
    # No two extensions of one list have the same set: so many hold enough distinct ones.
    alike = settings.sets and beams > 1 and own.shape[2] > 0 and settings.end is None
    number = min(wanted * beams if alike else wanted, beams * width)
    total = (base[:, :, None] + steps).reshape(n, -1)
    place = _largest(total, number)  # [N, m]
    parent, column = place // width, place % width
    row = np.arange(n)[:, None]
    score = total[row, place]
    item = np.where(np.isneginf(score), PAD, ids[row, parent, column])
    found = Choice(parent, column, item, score)
    which = np.broadcast_to(np.arange(number), (n, number))
    if alike:
        which = _distinct(found, own, required, wanted)
    if which.shape[1] < wanted:
        fill = np.full((n, wanted - which.shape[1]), -1, dtype=np.int64)
        which = np.concatenate([which, fill], axis=1)
    return found.take(which[:, :wanted])


def _largest(values: Float64, k: int) -> Int64:
    """Return the columns of each row's k largest values, greatest first, ties by column, int64 [N, k].

    What `topk_rows` does for a few short rows, without what that costs before it begins.
    """
    n, width = values.shape
    if width <= SHORT:
        return np.argsort(-values, axis=1, kind="stable")[:, :k]
    limit = np.partition(values, width - k, axis=1)[:, width - k, None]
    keep = values >= limit
    if np.count_nonzero(keep) > n * k:  # more values equal the k-th than there is room for
        above = values > limit
        room = k - above.sum(1, keepdims=True)
        keep = above | (~above & keep & (np.cumsum(~above & keep, axis=1) <= room))
    columns = (np.flatnonzero(keep) % width).reshape(n, k)
    row = np.arange(n)[:, None]
    ranked: Int64 = columns[row, np.argsort(-values[row, columns], axis=1, kind="stable")]
    return ranked


def _distinct(found: Choice, own: Int64, required: Int64, wanted: int) -> Int64:
    """Return the first `wanted` extensions with sets of their own, int64 [N, wanted], -1 for none."""
    row = np.arange(len(own))[:, None]
    sums = signature(unless_required(own, required), True)[row, found.parent]  # [N, m]
    sums = signature(unless_required(found.item, required)[..., None], True, sums)
    same = np.tril(sums[:, :, None] == sums[:, None, :], k=-1).any(2)
    copies = same | (found.item == PAD)
    order = np.argsort(copies, axis=1, kind="stable")[:, :wanted]
    return np.where(copies[row, order], -1, order)


def unless_required(items: Int64, required: Int64) -> Int64:
    """Return items [N, ...] with PAD for those of their request's required ones [N, Q].

    So all lists look as if they had what they must hold, whenever they come to it.
    """
    if not required.shape[1]:
        return items
    shape = (len(items), *[1] * (items.ndim - 1), required.shape[1])
    return np.where((items[..., None] == required.reshape(shape)).any(-1), PAD, items)


def signature(items: Int64, sets: bool, start: UInt64 | None = None) -> UInt64:
    """Return a number [...] for each list of items [..., S]: equal for equal lists (or sets).

    Different ones collide with a chance of 2^-64; PAD counts for nothing in a set. With `start`, the
    signature of longer lists that go on with these items.
    """
    hashed = np.where(items == PAD, np.uint64(0), _mixed(items))
    if sets:
        total: UInt64 = hashed.sum(-1, dtype=np.uint64)
        return total if start is None else total + start
    total = np.zeros(items.shape[:-1], dtype=np.uint64) if start is None else start
    for place in range(items.shape[-1]):
        total = total * np.uint64(0x9E3779B97F4A7C15) + hashed[..., place]
    return total


def _mixed(items: Int64) -> UInt64:
    """Scatter numbers over 64 bits (the finaliser of splitmix64)."""
    x = items.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: UInt64 = x ^ (x >> np.uint64(31))
    return mixed
