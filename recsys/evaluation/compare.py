"""Compare models that were evaluated on the same targets, from their per-target rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import NormalDist
from typing import Final, TypedDict

import numpy as np

from recsys.config import EvaluationConfig
from recsys.errors import ArtifactError, ConfigError
from recsys.evaluation.by_user import UserValues, differences
from recsys.evaluation.intervals import bootstrap, user_means
from recsys.evaluation.metrics import Float64, Key, target_metrics
from recsys.evaluation.significance import holm, permutation_test
from recsys.evaluation.targets_file import read_targets, targets_path
from recsys.schema import SplitName

MANY_USERS: Final = 20_000
"""Beyond, resampling a difference takes seconds and tells no more than its limit."""


class Comparison(TypedDict):
    """How much better `model_a` is than `model_b` in one metric, over the same `users` users."""

    split: str
    metric: str
    k: int | None
    model_a: str
    model_b: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    users: int


def compare_models(
    directory: Path,
    models: Sequence[str],
    config: EvaluationConfig,
    *,
    split_name: SplitName = "test",
    seed: int = 0,
) -> list[Comparison]:
    """Return every accuracy metric's difference for every pair of models, with test and interval.

    Values are means by user. The interval is the paired percentile bootstrap's, p the two-sided sign
    flip test's; `p_holm` is corrected over the pairs compared, for each metric and cut-off by itself.
    Pairs are all pairs in the order of `models`, or each model against `config.baseline`.

    Raises:
        ConfigError: the baseline is not among the models.
        ArtifactError: rows are missing, or the models were evaluated on different targets.
    """
    pairs = _pairs(models, config.baseline)
    if not pairs:
        return []
    keys, means = _means_by_model(directory, models, config, split_name)
    users = len(means[models[0]])
    if users == 0:
        return []
    figures = []
    for one, other in pairs:
        difference = means[one] - means[other]
        # The same seed for every pair: all pairs see the same draws and flips.
        low, high = bootstrap(
            difference, config.bootstrap, config.level, np.random.default_rng((seed, 0))
        )
        p = permutation_test(difference, config.permutations, np.random.default_rng((seed, 1)))
        figures.append((difference.mean(axis=0), low, high, p))
    corrected = np.stack([holm(column) for column in np.stack([f[3] for f in figures], axis=1)], 1)
    return [
        _comparison(key, pair, tuple(x[column] for x in (*figure, adjusted)), split_name, users)
        for column, key in enumerate(keys)
        for pair, figure, adjusted in zip(pairs, figures, corrected, strict=True)
    ]


def compare_values(
    values: Mapping[str, UserValues],
    pairs: Sequence[tuple[str, str]],
    key: Key,
    config: EvaluationConfig,
    *,
    split_name: SplitName = "test",
    seed: int = 0,
) -> list[Comparison]:
    """Return the difference of one metric for the given pairs, whatever reports they come from.

    The same as `compare_models` gives for the same pairs, with p corrected over them. With more than
    `MANY_USERS` users the interval and the test are the normal limits of the same two, to which they
    then agree in all that is shown: the bootstrap's mean +- z sd / sqrt(U), and for the sign flips the
    sum over the root of the sum of squares.

    Raises:
        ArtifactError: two models of a pair were evaluated on different targets.
    """
    found = []
    for one, other in pairs:
        try:
            difference = differences(values[one], values[other])
        except ArtifactError as error:
            raise ArtifactError(f"{one} and {other}: {error}") from error
        found.append((*_paired(difference, config, seed), len(difference)))
    corrected: Sequence[float] = holm(np.array([row[3] for row in found])).tolist() if found else []
    return [
        _comparison(key, pair, (mean, low, high, p, adjusted), split_name, users)
        for pair, (mean, low, high, p, users), adjusted in zip(pairs, found, corrected, strict=True)
    ]


def _paired(
    difference: Float64, config: EvaluationConfig, seed: int
) -> tuple[float, float, float, float]:
    """Return `(mean, low, high, p)` of differences by user [U]."""
    if len(difference) > MANY_USERS:
        return normal_limit(difference, config.level)
    column = difference[:, None]
    rng = np.random.default_rng((seed, 0))
    low, high = bootstrap(column, config.bootstrap, config.level, rng)
    p = permutation_test(column, config.permutations, np.random.default_rng((seed, 1)))
    return float(difference.mean()), float(low[0]), float(high[0]), float(p[0])


def normal_limit(difference: Float64, level: float) -> tuple[float, float, float, float]:
    """Return `(mean, low, high, p)` of many differences by user [U], see `compare_values`."""
    normal = NormalDist()
    mean, n = float(difference.mean()), len(difference)
    reach = normal.inv_cdf(0.5 + level / 2) * float(difference.std()) / n**0.5
    squares = float((difference**2).sum())
    p = 1.0 if squares == 0 else 2 * normal.cdf(-abs(float(difference.sum())) / squares**0.5)
    return mean, mean - reach, mean + reach, p


def _pairs(models: Sequence[str], baseline: str | None) -> list[tuple[str, str]]:
    if baseline is None:
        return list(combinations(models, 2))
    if baseline not in models:
        raise ConfigError(
            f"evaluation.baseline is {baseline!r}; allowed are the models {', '.join(models)}"
        )
    return [(model, baseline) for model in models if model != baseline]


def _means_by_model(
    directory: Path, models: Sequence[str], config: EvaluationConfig, split_name: SplitName
) -> tuple[list[Key], dict[str, Float64]]:
    """Return `(metrics [M], model -> means by user [U, M])`."""
    keys: list[Key] = []
    means: dict[str, Float64] = {}
    first = None
    for model in models:
        path = targets_path(directory, model, split_name)
        ranked = read_targets(path)
        first = first or ranked
        if not np.array_equal(ranked.index, first.index):
            raise ArtifactError(
                f"{path} holds other targets than those of {models[0]}, so the models cannot be "
                "compared; evaluate all of them with the same split and exclusion"
            )
        columns = target_metrics(ranked.ranks, ranked.offsets, config.ks, ranked.order)
        keys = list(columns)
        means[model] = user_means(np.stack(list(columns.values()), axis=1), ranked.user)[1]
    return keys, means


def _comparison(
    key: Key, pair: tuple[str, str], figures: tuple[float, ...], split_name: str, users: int
) -> Comparison:
    difference, low, high, p, p_holm = (float(figure) for figure in figures)
    return Comparison(
        split=split_name,
        metric=key[0],
        k=key[1],
        model_a=pair[0],
        model_b=pair[1],
        difference=difference,
        low=low,
        high=high,
        p=p,
        p_holm=p_holm,
        users=users,
    )
