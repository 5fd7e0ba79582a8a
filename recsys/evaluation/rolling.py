"""Ways of keeping a model up to date, compared over the same days.

A way has one ranking a day, all of the same targets. Figures are means by user over the targets of all
compared days, then over users; intervals are bootstraps over users, tests are paired (see `compare`).

Slices: `all`; `new_items`, the targets whose items had no event before the first compared day's stale model
was fitted, which that model cannot know; `known_items`, the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import numpy as np

from recsys.config import EvaluationConfig
from recsys.data.sequences import Int64
from recsys.evaluation.by_user import UserValues
from recsys.evaluation.compare import compare_values
from recsys.evaluation.intervals import bootstrap, user_means
from recsys.evaluation.metrics import Float64, Key, target_metric
from recsys.evaluation.ranked import RankedTargets
from recsys.retrieval.exclusion import Bools

METRICS: Final[tuple[Key, ...]] = (("ndcg", 10), ("hr", 10))
SLICES: Final = ("all", "known_items", "new_items")

Days = Sequence[RankedTargets]


@dataclass(frozen=True)
class Pooled:
    """The targets of several days: whose each is (int32 [T]), its metrics, and its slice."""

    user: Int64
    values: dict[Key, Float64]
    is_new: Bools
    targets: str

    @classmethod
    def of(cls, days: Days, known: Bools) -> Pooled:
        """Join days; `known` is bool [n_items + 1], the items of which the stale model had events."""
        user = np.concatenate([day.user for day in days]).astype(np.int64)
        values = {
            key: np.concatenate([target_metric(day.ranks, day.offsets, key) for day in days])
            for key in METRICS
        }
        new = np.concatenate(
            [np.logical_and.reduceat(~known[d.items], d.offsets[:-1]) for d in days]
        )
        index = b"".join(day.index.tobytes() for day in days)
        return cls(user, values, new, hashlib.sha256(index).hexdigest())

    def by_user(self, key: Key, name: str) -> UserValues:
        """Return a metric of a slice by user."""
        chosen = np.ones(len(self.user), dtype=bool)
        if name != "all":
            chosen = self.is_new if name == "new_items" else ~self.is_new
        user, means = user_means(
            self.values[key][chosen][:, None], self.user[chosen].astype(np.int32)
        )
        return UserValues(user, means[:, 0], f"{self.targets} {name}", int(chosen.sum()))


def compare_days(
    ways: Mapping[str, Days], known: Bools, config: EvaluationConfig, seed: int = 0
) -> dict[str, list[dict[str, Any]]]:
    """Return `rows` (each way's figures with intervals) and `differences` (each pair's, with tests).

    Args:
        ways: name -> its rankings, one a day; all ways rank the same targets.
        known: as in `Pooled.of`.
        config: bootstrap samples, permutations and level.
        seed: of both.
    """
    pooled = {name: Pooled.of(days, known) for name, days in ways.items()}
    rows: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    pairs = [(b, a) for a, b in combinations(ways, 2)]
    for part in SLICES:
        for key in METRICS:
            values = {name: one.by_user(key, part) for name, one in pooled.items()}
            about = {"slice": part, "metric": f"{key[0]}@{key[1]}"}
            if not all(one.n_targets for one in values.values()):
                continue
            rows += [
                {"way": name, **about, **_figure(one, config, seed)} for name, one in values.items()
            ]
            for found in compare_values(values, pairs, key, config, seed=seed):
                names = ("model_a", "model_b", "difference", "low", "high", "p", "p_holm", "users")
                differences.append({**about, **{name: found[name] for name in names}})  # type: ignore[literal-required]
    return {"rows": rows, "differences": differences}


def _figure(values: UserValues, config: EvaluationConfig, seed: int) -> dict[str, Any]:
    means = values.value[:, None]
    low, high = bootstrap(means, config.bootstrap, config.level, np.random.default_rng(seed))
    return {
        "value": float(means.mean()),
        "low": float(low[0]),
        "high": float(high[0]),
        "users": len(means),
        "targets": values.n_targets,
    }


def day_figures(ranked: RankedTargets) -> dict[str, float]:
    """Return the means by user of one day's metrics."""
    found = {}
    for key in METRICS:
        values = target_metric(ranked.ranks, ranked.offsets, key)
        found[f"{key[0]}@{key[1]}"] = float(user_means(values[:, None], ranked.user)[1].mean())
    return found
