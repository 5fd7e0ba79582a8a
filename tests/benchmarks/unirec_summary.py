"""What the cells of the UniRec study say together: means, paired tests, slices, the pooled effect.

A user's value is the mean over his targets and over the seeds that both models have. Differences are
paired by user: percentile bootstrap intervals, sign flip tests with Holm's correction over the sets. The
pooled effect is the mean over the sets of (difference / SASRec's mean); its interval draws users anew
within every set.

Slices cut each set's targets by the uniformity of the history (the sample variance of its gaps before
the target, in quintiles, those with fewer than three events left out) and by how often the target's
item was trained on (in thirds of the targets' items by frequency, ties together).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.evaluate import finished_report
from pipelines.runs import tested_run
from recsys.config import ExperimentConfig
from recsys.data.sequences import Int64, SequenceStore, TrainingData
from recsys.evaluation.intervals import user_means
from recsys.evaluation.metrics import Places, ndcg
from recsys.evaluation.ranking import RankedTargets
from recsys.evaluation.significance import holm, permutation_test
from recsys.evaluation.targets_file import read_targets, targets_path

Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
BASELINE = "sasrec"
CHALLENGER = "unirec"
SAMPLES = 2000
PERMUTATIONS = 10_000
CUTOFF = 10
Cells = dict[tuple[str, str], dict[int, dict[str, Any]]]


@dataclass(frozen=True)
class Ranked:
    """One cell's targets: NDCG@10 of each, whose they are, and to which slices they belong."""

    index: Int64
    user: Int64
    values: Float64
    slices: dict[str, Bools]


def summarise(
    folder: Path, config_of: Callable[[dict[str, Any]], ExperimentConfig]
) -> dict[str, Any]:
    """Return the summary of all cells whose figures lie in a folder."""
    cells: Cells = defaultdict(dict)
    for path in sorted(folder.glob("*.json")):
        cell = json.loads(path.read_text())
        cells[cell["set"], cell["model"]][cell["seed"]] = cell
    return {
        "over_seeds": over_seeds(cells),
        "against_sasrec": against(cells, config_of),
    }


def over_seeds(cells: Cells) -> list[dict[str, Any]]:
    """Return mean and standard deviation of every model's figures over its seeds."""
    rows = []
    for (name, model), by_seed in cells.items():
        row: dict[str, Any] = {"set": name, "model": model, "seeds": sorted(by_seed)}
        for metric in next(iter(by_seed.values()))["metrics"]:
            found = [cell["metrics"][metric][0] for cell in by_seed.values()]
            row[metric] = round(mean(found), 5)
            row[f"{metric} sd"] = round(stdev(found), 5) if len(found) > 1 else None
        row["train_seconds"] = round(
            mean(cell["training"]["train_seconds"] for cell in by_seed.values()), 1
        )
        rows.append(row)
    return rows


def against(
    cells: Cells, config_of: Callable[[dict[str, Any]], ExperimentConfig]
) -> dict[str, Any]:
    """Return each model's difference to SASRec by set, pooled over the sets, and by slice."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    drawn: dict[str, list[Float64]] = defaultdict(list)
    for (name, model), by_seed in cells.items():
        base = cells.get((name, BASELINE), {})
        seeds = sorted(by_seed.keys() & base.keys())
        if model == BASELINE or not seeds:
            continue
        pairs = [
            (ranked(by_seed[seed], config_of), ranked(base[seed], config_of)) for seed in seeds
        ]
        row, samples = _compared(pairs, "all")
        row = {"set": name, "model": model, "seeds": seeds, **row}
        names = dict.fromkeys(s for pair in pairs for s in pair[0].slices)
        row["slices"] = {s: _compared(pairs, s)[0] for s in names if s != "all"}
        rows[model].append(row)
        drawn[model].append(samples)
    for of_model in rows.values():
        for row, p in zip(of_model, holm(np.array([r["p"] for r in of_model])), strict=True):
            row["p_holm"] = round(float(p), 5)
    pooled = {model: _pooled(drawn[model], rows[model]) for model in rows}
    return {"by_set": rows, "pooled": pooled}


def _compared(pairs: list[tuple[Ranked, Ranked]], name: str) -> tuple[dict[str, Any], Float64]:
    """Return the paired comparison on a slice, and the bootstrap's relative differences [SAMPLES]."""
    model, base = _by_user(pairs, name)
    difference = model - base
    rng = np.random.default_rng(0)
    draws = np.empty((SAMPLES, 2))
    for sample in range(SAMPLES):
        chosen = rng.integers(0, len(difference), len(difference))
        draws[sample] = difference[chosen].mean(), base[chosen].mean()
    relative = draws[:, 0] / np.maximum(draws[:, 1], 1e-12)
    low, high = np.quantile(relative, [0.025, 0.975])
    p = permutation_test(difference[:, None], PERMUTATIONS, np.random.default_rng(1))[0]
    row = {
        "ndcg@10": round(float(model.mean()), 5),
        "sasrec": round(float(base.mean()), 5),
        "gain": round(float(difference.mean() / max(base.mean(), 1e-12)), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "p": round(float(p), 5),
        "users": len(difference),
    }
    return row, relative


def _by_user(pairs: list[tuple[Ranked, Ranked]], name: str) -> tuple[Float64, Float64]:
    """Return both models' means by user over seeds and targets of a slice, float64 [U] each."""
    sides = []
    for side in (0, 1):
        means = []
        for pair in pairs:
            if not np.array_equal(pair[0].index, pair[1].index):
                raise ValueError("the models were evaluated on different targets")
            one, inside = pair[side], pair[0].slices[name]
            means.append(user_means(one.values[inside, None], one.user[inside])[1][:, 0])
        sides.append(np.mean(means, axis=0))
    return sides[0], sides[1]


def _pooled(samples: Iterable[Float64], rows: list[dict[str, Any]]) -> dict[str, Any]:
    together = np.mean(list(samples), axis=0)
    low, high = np.quantile(together, [0.025, 0.975])
    return {
        "gain": round(mean(row["gain"] for row in rows), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "sets": [row["set"] for row in rows],
    }


def ranked(cell: dict[str, Any], config_of: Callable[[dict[str, Any]], ExperimentConfig]) -> Ranked:
    """Read a cell's targets and cut them into slices."""
    config = config_of({name: cell[name] for name in ("set", "model", "seed")})
    found = read_targets(targets_path(finished_report(config), cell["model"], "test"))
    run = tested_run(config, cell["model"], "main")
    counts = TrainingData(run.store, run.split.train_end).item_counts()
    values = ndcg(Places.of(found.ranks, found.offsets), CUTOFF)
    slices = {"all": np.ones(len(found), dtype=np.bool_)}
    slices |= _cut("uniformity", history_variance(found, run.store, run.split.test.start), 5)
    slices |= _cut("frequency", mean_count(found, counts), 3)
    return Ranked(found.index, found.user.astype(np.int64), values, slices)


def history_variance(found: RankedTargets, store: SequenceStore, start: Int64) -> Float64:
    """Return the sample variance of the gaps of each target's history, NaN with fewer than two."""
    if store.timestamps is None:
        return np.full(len(found), np.nan)
    out = np.full(len(found), np.nan)
    for row, (user, end) in enumerate(zip(found.user, start[found.index], strict=True)):
        times = store.timestamps[store.offsets[user] : end]
        if len(times) > 2:
            out[row] = np.diff(times).astype(np.float64).var(ddof=1)
    return out


def mean_count(found: RankedTargets, counts: Int64) -> Float64:
    """Return how often each target's items were trained on, on average."""
    total = np.add.reduceat(counts[found.items].astype(np.float64), found.offsets[:-1])
    return total / np.diff(found.offsets)


def _cut(name: str, values: Float64, parts: int) -> dict[str, Bools]:
    """Cut what is not NaN into equal parts, lowest first; equal values stay together."""
    known = ~np.isnan(values)
    if not known.any():
        return {}
    edges = np.quantile(values[known], np.arange(1, parts) / parts)
    place = np.searchsorted(edges, values, side="left")
    slices = {f"{name} {part + 1}/{parts}": known & (place == part) for part in range(parts)}
    return {title: inside for title, inside in slices.items() if inside.any()}
