"""Paired comparisons of chosen runs: those a report holds, or computed from the rows per target."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, cast

import numpy as np
import polars as pl

from recsys.config import EvaluationConfig
from recsys.evaluation.by_user import differences, wins
from recsys.evaluation.compare import Comparison, compare_values
from recsys.evaluation.measured import RunChoice, stored_comparisons, values_of
from recsys.evaluation.metrics import Key
from recsys.evaluation.significance import holm

COMPUTED: dict[tuple[Any, ...], Comparison] = {}
"""Comparisons by the two files, their times and the metric: an hour of clicks computes each once."""
MOST_COMPUTED = 4096


def names(runs: Sequence[RunChoice]) -> list[str]:
    """Return what to call each run: its model, with the report where two have the same."""
    models = [run.model for run in runs]
    return [
        run.model if models.count(run.model) == 1 else f"{run.model} ({run.report.id})"
        for run in runs
    ]


def compared(
    runs: Sequence[RunChoice], key: Key, config: EvaluationConfig, *, seed: int = 0
) -> list[Comparison]:
    """Return the difference of one metric for every pair, p corrected by Holm over these pairs.

    A pair of one report is taken from its `comparisons.json`; the figures are those of the report.

    Raises:
        ArtifactError: rows are missing, or two runs were evaluated on different targets.
    """
    called = names(runs)
    found = []
    for (i, one), (j, other) in combinations(enumerate(runs), 2):
        row = _stored(one, other, key) or _computed(one, other, key, config, seed)
        found.append(Comparison(**{**row, "model_a": called[i], "model_b": called[j]}))
    corrected = holm(np.array([row["p"] for row in found]))
    return [
        Comparison(**{**row, "p_holm": float(p)}) for row, p in zip(found, corrected, strict=True)
    ]


def _stored(one: RunChoice, other: RunChoice, key: Key) -> Comparison | None:
    """Return the comparison that the report of both holds; the other way round it changes its sign."""
    if one.report != other.report:
        return None
    rows = stored_comparisons(one.report).filter(
        (pl.col("dataset") == one.dataset)
        & (pl.col("split") == one.split)
        & (pl.col("metric") == key[0])
        & (pl.col("k").is_null() if key[1] is None else pl.col("k") == key[1])
    )
    for first, second, sign in ((one, other, 1), (other, one, -1)):
        pair = rows.filter((pl.col("model_a") == first.model) & (pl.col("model_b") == second.model))
        if len(pair) == 1:
            row = pair.drop("dataset").row(0, named=True)
            if sign < 0:
                row |= {
                    "difference": -row["difference"],
                    "low": -row["high"],
                    "high": -row["low"],
                }
            return cast("Comparison", row)
    return None


def _computed(
    one: RunChoice, other: RunChoice, key: Key, config: EvaluationConfig, seed: int
) -> Comparison:
    values = {run.address: values_of(run, key) for run in (one, other)}
    stamps = [run.targets.stat().st_mtime_ns for run in (one, other)]
    name = (one.targets, other.targets, *stamps, key, seed)
    if name not in COMPUTED:
        if len(COMPUTED) > MOST_COMPUTED:
            COMPUTED.clear()
        pair = [(one.address, other.address)]
        [COMPUTED[name]] = compare_values(
            values, pair, key, config, split_name=one.split, seed=seed
        )
    return COMPUTED[name]


def win_rows(runs: Sequence[RunChoice], key: Key) -> pl.DataFrame:
    """Return, for every pair, how many users the first serves better, equally and worse."""
    called = names(runs)
    rows = []
    for (i, one), (j, other) in combinations(enumerate(runs), 2):
        found = wins(differences(values_of(one, key), values_of(other, key)))
        rows.append(
            {
                "pair": f"{called[i]} - {called[j]}",
                "better": found.better,
                "equal": found.equal,
                "worse": found.worse,
            }
        )
    schema = {"pair": pl.String, "better": pl.Int64, "equal": pl.Int64, "worse": pl.Int64}
    return pl.DataFrame(rows, schema=schema)
