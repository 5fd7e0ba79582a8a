"""One metric by user, from the rows that an evaluation keeps, and who wins between two models."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recsys.data.sequences import Int32
from recsys.errors import ArtifactError
from recsys.evaluation.intervals import user_means
from recsys.evaluation.metrics import Float64, Key, target_metric
from recsys.evaluation.targets_file import read_ranks

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class UserValues:
    """A model's metric by user.

    Attributes:
        user: int32 [U], ascending.
        value: float64 [U], the mean over the user's targets.
        targets: hash of the targets that were ranked; only equal ones can be compared.
        n_targets: how many.
    """

    user: Int32
    value: Float64
    targets: str
    n_targets: int


def user_values(path: Path, key: Key) -> UserValues:
    """Return the metric and cut-off `key` of every user in a file of rows per target.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    ranked = read_ranks(path)
    values = target_metric(ranked.ranks, ranked.offsets, key)
    user, means = user_means(values[:, None], ranked.user)
    digest = hashlib.sha256(ranked.index.tobytes() + ranked.user.tobytes()).hexdigest()
    return UserValues(user, means[:, 0], digest, len(values))


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
            "the two were evaluated on different targets, so their users cannot be paired; evaluate "
            "both with the same data, split and exclusion"
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
