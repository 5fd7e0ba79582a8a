"""Evaluate a model: rank every target, keep the rows, derive the figures with their intervals."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypedDict

import numpy as np
import torch

from recsys.config import EvaluationConfig
from recsys.data.sequences import Int32, Int64, SequenceStore, Split, Targets
from recsys.evaluation.beyond import (
    Float32,
    coverage,
    gini,
    intra_list_distance,
    list_counts,
    novelty,
)
from recsys.evaluation.intervals import bootstrap, jackknife, mean_over_users, user_means
from recsys.evaluation.metrics import Float64, Key, target_metrics
from recsys.evaluation.ranked import RankedTargets
from recsys.evaluation.ranking import Progress, rank_targets
from recsys.evaluation.slices import slice_targets
from recsys.evaluation.targets_file import targets_path, write_targets
from recsys.models.contract import Model
from recsys.schema import PAD, SplitName

logger = logging.getLogger(__name__)

AMONG_COLD: Final = "item cold, among cold"


class MetricRow(TypedDict):
    """One figure: the mean over `users` users (or lists) and its interval; null where undefined."""

    dataset: str
    split: str
    model: str
    metric: str
    k: int | None
    slice: str
    value: float | None
    low: float | None
    high: float | None
    users: int


@dataclass(frozen=True)
class Ground:
    """What a model is judged on; the same for all models of a report.

    Attributes:
        dataset: its name, for the rows.
        store: all events.
        split: the fold.
        split_name: which of its targets.
        config: the evaluation section.
        item_counts: int64 [n_items + 1], training events of each item.
        item_vectors: float32 [n_items + 1, D], the same for all models, or None: then the
            intra-list distance is left out.
        seed: of the intervals.
    """

    dataset: str
    store: SequenceStore
    split: Split
    split_name: SplitName
    config: EvaluationConfig
    item_counts: Int64
    item_vectors: Float32 | None = None
    seed: int = 0


def evaluate_model(
    name: str,
    model: Model,
    ground: Ground,
    directory: Path,
    *,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> list[MetricRow]:
    """Rank all targets, write `targets/<name>.parquet` below `directory`, return the metric rows.

    Lists are as long as `list_length` or the greatest cut-off, whichever is more.

    Raises:
        DataError: the model gives scores that are not finite.
    """
    config = ground.config
    ranked = rank_targets(
        model,
        ground.store,
        ground.split.targets(ground.split_name),
        config,
        list_length=max(config.list_length, *config.ks),
        device=device,
        name=name,
        progress=progress,
    )
    if ranked.forbidden:
        what = "dropped" if config.repeats == "drop" else "counted as misses"
        logger.info(
            "%s, %s: %d relevant items are excluded by the rule and %s; %d of %d targets left out",
            *(name, ground.split_name, ranked.forbidden, what, ranked.dropped, ranked.n_targets),
        )
    write_targets(targets_path(directory, name, ground.split_name), ranked)
    rows = metric_rows(name, ranked, ground)
    if config.among_cold:
        among = rank_among_cold(name, model, ground, device)
        write_targets(targets_path(directory, f"{name}.among-cold", ground.split_name), among)
        rows += cold_rows(name, among, ground)
    return rows


def rank_among_cold(
    name: str, model: Model, ground: Ground, device: torch.device | str | None = None
) -> RankedTargets:
    """Rank the targets all of whose items are cold among the cold items alone."""
    cold = ground.item_counts == 0
    cold[PAD] = False
    targets = ground.split.targets(ground.split_name)
    seen = np.append(0, np.cumsum(~cold[ground.store.items]))  # warm events up to each place
    chosen = seen[targets.end] == seen[targets.start]
    some = Targets(targets.user[chosen], targets.start[chosen], targets.end[chosen])
    length = max(ground.config.list_length, *ground.config.ks)
    return rank_targets(
        model,
        ground.store,
        some,
        ground.config,
        list_length=length,
        device=device,
        name=name,
        among=cold,
    )


def cold_rows(name: str, among: RankedTargets, ground: Ground) -> list[MetricRow]:
    """Return the accuracy of cold targets that were ranked among cold items."""
    if not len(among):
        return []
    columns = target_metrics(among.ranks, among.offsets, ground.config.ks)
    values = np.stack(list(columns.values()), axis=1)
    return _slice_rows(name, AMONG_COLD, list(columns), values, among.user, ground)


def metric_rows(name: str, ranked: RankedTargets, ground: Ground) -> list[MetricRow]:
    """Return every figure of every slice; all are functions of the per-target rows.

    Accuracy, novelty and intra-list distance: mean by user, then over users, with a percentile
    bootstrap interval. Coverage and Gini: of all lists together, with a jackknife interval.
    """
    keys, values = target_values(ranked, ground)
    slices = slice_targets(
        ranked, ground.store, ground.split, ground.item_counts, ground.config.head_share
    )
    rows = []
    for slice_name, inside in slices.items():
        rows += _slice_rows(name, slice_name, keys, values[inside], ranked.user[inside], ground)
    return rows + _catalogue_rows(name, ranked, ground)


def target_values(ranked: RankedTargets, ground: Ground) -> tuple[list[Key], Float64]:
    """Return the metrics that every target has a value of: `(names and cut-offs [M], [T, M])`."""
    ks = ground.config.ks
    columns = target_metrics(ranked.ranks, ranked.offsets, ks, ranked.order)
    for k, bits in novelty(ranked.top, ks, ground.item_counts).items():
        columns["novelty", k] = bits
    if ground.item_vectors is not None:
        for k, distance in intra_list_distance(ranked.top, ks, ground.item_vectors).items():
            columns["ild", k] = distance
    else:
        logger.info("no item vectors: the intra-list distance is left out")
    return list(columns), np.stack(list(columns.values()), axis=1)


def _slice_rows(
    name: str, slice_name: str, keys: Sequence[Key], values: Float64, user: Int32, ground: Ground
) -> list[MetricRow]:
    config = ground.config
    _, means = user_means(values, user)
    rng = np.random.default_rng(ground.seed)
    low, high = bootstrap(means, config.bootstrap, config.level, rng)
    users = (~np.isnan(means)).sum(axis=0)
    figures = zip(keys, mean_over_users(means), low, high, users, strict=True)
    return [
        _row(name, slice_name, key, (value, lower, upper), int(count), ground)
        for key, value, lower, upper, count in figures
    ]


def _catalogue_rows(name: str, ranked: RankedTargets, ground: Ground) -> list[MetricRow]:
    n_items = ground.store.n_items
    users = len(np.unique(ranked.user))
    rows: list[MetricRow] = []
    if not len(ranked):
        return rows
    for metric, statistic in (("coverage", coverage), ("gini", gini)):
        for k in ground.config.ks:

            def counts_of(lists: Int64 | None, k: int = k) -> Int64:
                top = ranked.top if lists is None else ranked.top[lists]
                return list_counts(top, k, n_items)

            rng = np.random.default_rng(ground.seed)
            low, high = jackknife(counts_of, statistic, ranked.user, ground.config.level, rng)
            figures = (statistic(counts_of(None)), low, high)
            rows.append(_row(name, "all", (metric, k), figures, users, ground))
    return rows


def _row(
    name: str, slice_name: str, key: Key, figures: tuple[float, float, float], users: int, g: Ground
) -> MetricRow:
    value, low, high = (None if math.isnan(x) else float(x) for x in figures)
    return MetricRow(
        dataset=g.dataset,
        split=g.split_name,
        model=name,
        metric=key[0],
        k=key[1],
        slice=slice_name,
        value=value,
        low=low,
        high=high,
        users=users,
    )
