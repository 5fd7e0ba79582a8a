"""Models against a baseline over several data sets and seeds: means, paired tests, slices, the pooled effect.

A user's value is the mean over his targets and over the seeds that both models have. Differences are
paired by user: percentile bootstrap intervals, sign flip tests with Holm's correction over the sets. The
pooled effect is the mean over the sets of (difference / the baseline's mean); its interval draws users
anew within every set. So intervals and p-values speak of other users of these sets, for these trainings:
not of other sets, and of other trainings only as far as the seeds, whose differences stand beside, agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.data.profile import spread_before
from recsys.data.sequences import Int32, Int64, SequenceStore
from recsys.errors import ArtifactError, DataError
from recsys.evaluation.intervals import resampled_means, user_means
from recsys.evaluation.ranked import RankedTargets
from recsys.evaluation.significance import holm, permutation_test
from recsys.manifest import written_aside

Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Row = dict[str, Any]
WHOLE = "all"
TARGET, USER, VALUE = "target", "user", "value"
SAMPLES = 2000
PERMUTATIONS = 10_000
LEVEL = 0.95
FIFTHS, THIRDS = 5, 3


@dataclass(frozen=True)
class Scored:
    """One model's targets on one set by one seed.

    Attributes:
        index: int64 [T], which targets of the split.
        user: int32 [T], whose they are.
        values: float64 [T], the metric.
        slices: bool [T] by name, `all` among them.
    """

    index: Int64
    user: Int32
    values: Float64
    slices: dict[str, Bools]

    def whole(self) -> Scored:
        """Return the same without slices."""
        return replace(self, slices={WHOLE: self.slices[WHOLE]})

    def save(self, path: Path) -> None:
        """Write one row a target: `target`, `user`, `value`, and each slice under its name.

        Rows are in order and values few, so that the file takes about a byte a row.
        """
        columns = {TARGET: self.index, USER: self.user, VALUE: self.values, **self.slices}
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(path) as aside:
            pq.write_table(
                pa.table(columns),
                aside,
                compression="zstd",
                use_dictionary=[VALUE],
                column_encoding=dict.fromkeys((TARGET, USER), "DELTA_BINARY_PACKED"),
            )

    @classmethod
    def load(cls, path: Path) -> Scored:
        """Read what `save` wrote; `ArtifactError` if it is missing or something else."""
        if not path.is_file():
            raise ArtifactError(f"{path} is missing; run the study again")
        try:
            table = pq.read_table(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise ArtifactError(
                f"{path} is no Parquet file ({error}); delete it, run again"
            ) from error
        if missing := [
            name for name in (TARGET, USER, VALUE, WHOLE) if name not in table.column_names
        ]:
            raise ArtifactError(
                f"{path} has no column {missing[0]}; delete it and run the study again"
            )
        columns = {name: table.column(name).to_numpy() for name in table.column_names}
        return cls(columns.pop(TARGET), columns.pop(USER), columns.pop(VALUE), columns)


Pair = tuple[Scored, Scored]


def over_seeds(by_seed: Mapping[int, Mapping[str, float]]) -> Row:
    """Return mean and standard deviation (None of one) of every figure over the seeds."""
    row: Row = {"seeds": sorted(by_seed)}
    for metric in next(iter(by_seed.values())):
        found = [figures[metric] for figures in by_seed.values()]
        row[metric] = round(mean(found), 5)
        row[f"{metric} sd"] = round(stdev(found), 5) if len(found) > 1 else None
    return row


def compare_with(pairs: Mapping[str, Sequence[Pair]]) -> tuple[list[Row], Row]:
    """Return a model's rows by set, and its effect pooled over the sets.

    A row does not depend on which other sets there are, but for `p_holm`.

    Args:
        pairs: for every set the (model, baseline) of each seed that both have.
    """
    rows, drawn = [], []
    for name, of_set in pairs.items():
        row, samples = compared(of_set, WHOLE, _draws(name, WHOLE))
        difference = np.subtract(*_by_seed(of_set, WHOLE)).mean(axis=0)  # [U]
        p = permutation_test(difference[:, None], PERMUTATIONS, np.random.default_rng(1))[0]
        slices = {
            s: compared(of_set, s, _draws(name, s))[0] for s in of_set[0][0].slices if s != WHOLE
        }
        rows.append({"set": name, **row, "p": round(float(p), 5), "slices": slices})
        drawn.append(samples)
    correct(rows)
    return rows, _pooled(drawn, rows)


def correct(rows: Sequence[Row]) -> None:
    """Give the rows of one family of tests their `p_holm`, Holm's correction of their `p`."""
    for row, p in zip(rows, holm(np.array([r["p"] for r in rows])), strict=True):
        row["p_holm"] = round(float(p), 5)


def _draws(name: str, slice_: str) -> np.random.Generator:
    """Return the generator of a set's slice: sets are drawn independently of each other."""
    return np.random.default_rng(list(f"{name}/{slice_}".encode()))


def compared(
    pairs: Sequence[Pair], name: str, rng: np.random.Generator
) -> tuple[Row, Float64 | None]:
    """Return the comparison on a slice, and the bootstrap's relative differences [SAMPLES].

    `gain`, `low` and `high` are shares of the baseline's mean; None, and no samples, where that is 0 for
    the users at hand or for some draw of them, so that there is nothing to be a share of.

    Raises:
        DataError: the two were evaluated on different targets.
    """
    models, bases = _by_seed(pairs, name)
    each = (models - bases).mean(axis=1)  # [seeds]
    model, base = models.mean(axis=0), bases.mean(axis=0)
    difference = model - base
    draws = resampled_means(np.stack([difference, base], axis=1), SAMPLES, rng)
    relative = draws[:, 0] / draws[:, 1] if (draws[:, 1] > 0).all() else None
    low, high = (None, None) if relative is None else _interval(relative)
    row = {
        "value": round(float(model.mean()), 5),
        "baseline": round(float(base.mean()), 5),
        "difference": round(float(difference.mean()), 5),
        "gain": None if relative is None else round(float(difference.mean() / base.mean()), 4),
        "low": low,
        "high": high,
        "by_seed": [round(float(one), 5) for one in each],
        "users": len(difference),
    }
    return row, relative


def _by_seed(pairs: Sequence[Pair], name: str) -> tuple[Float64, Float64]:
    """Return both models' means by user over the targets of a slice, float64 [seeds, U] each."""
    first = pairs[0][0]
    for one in (one for pair in pairs for one in pair):
        if not (np.array_equal(one.index, first.index) and np.array_equal(one.user, first.user)):
            raise DataError(
                "the models were evaluated on different targets, so they cannot be paired; run the "
                "study again after a change of data or split"
            )
        if name not in one.slices or not np.array_equal(one.slices[name], first.slices[name]):
            raise DataError(
                f"the models' targets are cut differently ({name}), so they cannot be paired; delete "
                "the cells of this set and run the study again"
            )
    inside = first.slices[name]
    model, base = (
        user_means(np.stack([pair[side].values[inside] for pair in pairs], 1), first.user[inside])[
            1
        ].T
        for side in (0, 1)
    )
    return model, base


def _pooled(samples: Sequence[Float64 | None], rows: Sequence[Row]) -> Row:
    """Return the mean gain of the sets that have one."""
    known = [(one, row) for one, row in zip(samples, rows, strict=True) if one is not None]
    if not known:
        return {"gain": None, "low": None, "high": None, "sets": []}
    low, high = _interval(np.mean([one for one, _ in known], axis=0))
    gain = round(mean(row["gain"] for _, row in known), 4)
    return {"gain": gain, "low": low, "high": high, "sets": [row["set"] for _, row in known]}


def _interval(samples: Float64) -> tuple[float, float]:
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return round(float(low), 4), round(float(high), 4)


def slices_of(
    found: RankedTargets, store: SequenceStore, start: Int64, counts: Int64
) -> dict[str, Bools]:
    """Return which targets belong to which slice, bool [T] by name.

    - `uniformity 1/5` (most even) to `5/5`: fifths of the users by how much the gaps before their last
      target differ (`recsys.data.profile.spread_before`); those with fewer than two gaps, or without
      times, are in none.
    - `frequency 1/3` (rarest) to `3/3`: by how often the target's items were trained on, on average, in
      thirds of the targets.

    Equal values stay together, so parts can differ in size.

    Args:
        found: T ranked targets.
        store: all events.
        start: int64, where each target of the split begins among the events.
        counts: int64 [V + 1], training events of every item.
    """
    ends = store.offsets[:-1].copy()
    np.maximum.at(ends, found.user, start[found.index])
    spread = spread_before(store, ends)
    uniformity = cut("uniformity", spread[found.user], FIFTHS, spread[np.unique(found.user)])
    return {
        WHOLE: np.ones(len(found), dtype=np.bool_),
        **uniformity,
        **cut("frequency", mean_count(found, counts), THIRDS),
    }


def mean_count(found: RankedTargets, counts: Int64) -> Float64:
    """Return how often each target's items were trained on, on average."""
    total = np.add.reduceat(counts[found.items].astype(np.float64), found.offsets[:-1])
    return total / np.diff(found.offsets)


def cut(name: str, values: Float64, parts: int, among: Float64 | None = None) -> dict[str, Bools]:
    """Cut what is not NaN at the quantiles of `among` (itself), lowest first; equal values stay together."""
    known, among = ~np.isnan(values), values if among is None else among
    if not known.any():
        return {}
    edges = np.quantile(among[~np.isnan(among)], np.arange(1, parts) / parts)
    place = np.searchsorted(edges, values, side="left")
    slices = {f"{name} {part + 1}/{parts}": known & (place == part) for part in range(parts)}
    return {title: inside for title, inside in slices.items() if inside.any()}
