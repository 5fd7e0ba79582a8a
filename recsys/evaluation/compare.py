"""Compare models that were evaluated on the same targets, from their per-target rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import TypedDict

import numpy as np

from recsys.config import EvaluationConfig
from recsys.errors import ArtifactError, ConfigError
from recsys.evaluation.intervals import bootstrap, user_means
from recsys.evaluation.metrics import Float64, Key, target_metrics
from recsys.evaluation.significance import holm, permutation_test
from recsys.evaluation.targets_file import read_targets, targets_path
from recsys.schema import SplitName


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
        columns = target_metrics(ranked.ranks, ranked.offsets, config.ks)
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
