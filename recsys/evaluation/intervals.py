"""Averages by user and their intervals.

A user's (or list's) value is the mean over that user's targets; the figure is the mean over users, so
that nobody counts more for having more targets. Intervals come from resampling users.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recsys.data.sequences import Int32, Int64
from recsys.evaluation.metrics import Float64

BLOCK_VALUES = 1 << 22
"""Weights held at once: 32 MiB of float64."""

JACKKNIFE_GROUPS = 50


def user_means(values: Float64, user: Int32) -> tuple[Int32, Float64]:
    """Return `(users [U] ascending, means float64 [U, M])` of target values [T, M].

    NaN values are left out; a user with nothing but NaN in a column has NaN there.
    """
    users, place = np.unique(user, return_inverse=True)
    means = np.empty((len(users), values.shape[1]))
    for column, value in enumerate(values.T):
        known = ~np.isnan(value)
        count = np.bincount(place[known], minlength=len(users))
        total = np.bincount(place[known], value[known], minlength=len(users))
        means[:, column] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return users, means


def mean_over_users(means: Float64) -> Float64:
    """Return the mean of each column of [U, M] over the users that have a value; NaN if none has."""
    known = ~np.isnan(means)
    count = known.sum(axis=0)
    total = np.where(known, means, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def bootstrap(
    means: Float64, samples: int, level: float, rng: np.random.Generator
) -> tuple[Float64, Float64]:
    """Return `(low [M], high [M])`, the percentile bootstrap interval of the mean over users.

    `samples` times, as many users as there are get drawn with replacement; all columns of [U, M] share
    the draws. The interval holds the middle `level` of the means. Users without a value (NaN) take no
    part. Memory: 32 MiB of weights at a time.
    """
    drawn = resampled_means(means, samples, rng)
    tail = (1.0 - level) / 2.0
    low, high = _quantiles(drawn, tail), _quantiles(drawn, 1.0 - tail)
    return low, high


def resampled_means(means: Float64, samples: int, rng: np.random.Generator) -> Float64:
    """Return the means of `samples` draws of users, float64 [samples, M]; see `bootstrap`."""
    n = len(means)
    known = ~np.isnan(means)
    whole = bool(known.all())
    filled = means if whole else np.where(known, means, 0.0)
    drawn = np.empty((samples, means.shape[1]))
    step = max(1, BLOCK_VALUES // max(n, 1))
    for at in range(0, samples, step):
        stop = min(at + step, samples)
        weights = np.stack(
            [
                np.bincount(rng.integers(0, n, n, dtype=np.int32), minlength=n)
                for _ in range(at, stop)
            ]
        ).astype(np.float64)
        count = n if whole else weights @ known.astype(np.float64)
        with np.errstate(invalid="ignore"):  # a draw without any known user has no mean
            drawn[at:stop] = weights @ filled / count
    return drawn


def _quantiles(drawn: Float64, q: float) -> Float64:
    """Return each column's quantile of what is not NaN; NaN for a column of nothing else."""
    if not np.isnan(drawn).any():
        return np.asarray(np.quantile(drawn, q, axis=0))
    columns = [column[~np.isnan(column)] for column in drawn.T]
    return np.array([np.quantile(c, q) if len(c) else np.nan for c in columns])


def jackknife(
    counts_of: Callable[[Int64 | None], Int64],
    statistic: Callable[[Int64], float],
    user: Int32,
    level: float,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Return a normal interval of a statistic of the whole set of lists, such as coverage.

    Resampling users with replacement would bias these down (a draw holds about 63 % of the users, so
    fewer distinct items). Instead users are dealt into 50 groups (fewer if there are fewer users),
    each is left out once, and s^2 = (G - 1) / G * sum_g (x_g - mean x)^2. The interval is the value
    plus and minus z s, cut to 0..1. NaN with fewer than two users.

    Args:
        counts_of: counts per item over the lists at these rows, or over all lists (None).
        statistic: the figure of such counts.
        user: int32 [T], whose list each row is.
        level: coverage of the interval.
        rng: deals the users.
    """
    users, place = np.unique(user, return_inverse=True)
    groups = min(JACKKNIFE_GROUPS, len(users))
    if groups < 2:
        return float("nan"), float("nan")
    group = (rng.permutation(len(users)) % groups)[place]
    everything = counts_of(None)
    value = statistic(everything)
    left = np.array(
        [statistic(everything - counts_of(np.flatnonzero(group == g))) for g in range(groups)]
    )
    spread = np.sqrt((groups - 1) / groups * ((left - left.mean()) ** 2).sum())
    reach = float(_normal_quantile(level) * spread)
    return max(0.0, value - reach), min(1.0, value + reach)


def _normal_quantile(level: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(0.5 + level / 2.0)
