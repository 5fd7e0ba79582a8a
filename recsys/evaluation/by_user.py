"""One metric by user, from the rows that an evaluation keeps, and who wins between two models."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from recsys.data.sequences import Int32, Int64
from recsys.errors import ArtifactError
from recsys.evaluation.intervals import user_means
from recsys.evaluation.metrics import Float64, Key, target_metric
from recsys.evaluation.targets_file import ORDER, flat, order_column, read_columns

MIXER: Final = np.uint64(0x9E3779B97F4A7C15)
"""An odd number with well mixed bits, so that sums of different items differ."""


@dataclass(frozen=True)
class UserValues:
    """A model's metric by user.

    Attributes:
        user: int32 [U], ascending.
        value: float64 [U], the mean over the user's targets.
        targets: hash of the targets that were ranked, and the rule of exclusion they were ranked by
            where it is known; only equal ones can be compared.
        n_targets: how many.
    """

    user: Int32
    value: Float64
    targets: str
    n_targets: int


@dataclass(frozen=True)
class UserRanks:
    """What every accuracy metric of a file of rows follows from.

    Attributes:
        user: int32 [T], whose target each is.
        offsets: int64 [T + 1]; target t owns `offsets[t]:offsets[t + 1]` of the ranks.
        ranks: float64 [P], of the relevant items.
        targets: hash of the targets that were ranked.
        order: int32 [P], as in `RankedTargets`, or None.
    """

    user: Int32
    offsets: Int64
    ranks: Float64
    targets: str
    order: Int32 | None = None

    def values(self, key: Key) -> UserValues:
        """Return the metric and cut-off `key` by user."""
        values = target_metric(self.ranks, self.offsets, key, self.order)
        user, means = user_means(values[:, None], self.user)
        return UserValues(user, means[:, 0], self.targets, len(values))


def read_user_ranks(path: Path) -> UserRanks:
    """Return the ranks in a file of rows per target, without its lists.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    table = read_columns(path, ("target", "user", "n_relevant", "items", "ranks", ORDER))
    user, index, count = (flat(table, name) for name in ("user", "target", "n_relevant"))
    offsets = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    relevant = _sums(flat(table, "items").astype(np.uint64) * MIXER, offsets)
    parts = (index, user, count, relevant)
    digest = hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()
    return UserRanks(user, offsets, flat(table, "ranks"), digest, order_column(table))


def _sums(values: npt.NDArray[np.uint64], offsets: Int64) -> npt.NDArray[np.uint64]:
    """Return the sum of each target's values, uint64 [T]: the same in whatever order its items stand."""
    running = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values, dtype=np.uint64)])
    return np.asarray(
        running[offsets[1:]] - running[offsets[:-1]]
    )  # wraps around, which is as good


def user_values(path: Path, key: Key) -> UserValues:
    """Return one metric of every user in a file of rows per target; see `read_user_ranks`."""
    return read_user_ranks(path).values(key)


@dataclass(frozen=True)
class Wins:
    """How many users one model serves better than another, equally, and worse."""

    better: int
    equal: int
    worse: int


def differences(one: UserValues, other: UserValues) -> Float64:
    """Return `one` less `other` by user, float64 [U].

    Raises:
        ArtifactError: they were measured on different targets.
    """
    if one.targets != other.targets:
        raise ArtifactError(
            "the two were evaluated on different targets or by different rules of exclusion, so their "
            "users cannot be paired; evaluate both with the same data, split and evaluation.exclude"
        )
    return np.asarray(one.value - other.value, dtype=np.float64)


def wins(difference: Float64) -> Wins:
    """Count users by the sign of their difference; differences of rounding alone are equal.

    >>> wins(np.array([0.5, 0.0, -0.1, 0.2]))
    Wins(better=2, equal=1, worse=1)
    """
    better = int((difference > 1e-12).sum())
    worse = int((difference < -1e-12).sum())
    return Wins(better, len(difference) - better - worse, worse)
