"""Does order matter here? One trained model, asked with true and with shuffled histories.

For every way to shuffle (`recsys.evaluation.shuffled`) only targets count whose history has something
to move. Per target a metric is taken with the true history and, on average, with the shuffled ones;
means are by user (list), then over users. The drop is the difference, its interval the paired
bootstrap's over users, p the two-sided sign-flip test's. The overlap is the Jaccard index of the first
k items with and without the shuffle: 1 if the model does not read the order at all.

The rule, with `margin` a share of the metric with true histories:

    matters          the drop is at least the margin, and its interval lies above 0
    does not matter  the interval lies below the margin: whatever the drop is, it is smaller
    undecided        neither: too few targets to tell

It says what order is worth to this model, trained on true orders; a model that learned nothing from
order has nothing to lose. Figures of a model that is no better than popularity say little.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypedDict

import numpy as np

from recsys.config import EvaluationConfig
from recsys.data.sequences import SequenceStore, Targets
from recsys.errors import DataError
from recsys.evaluation.intervals import bootstrap, user_means
from recsys.evaluation.metrics import Float64, Key, target_metric
from recsys.evaluation.ranked import RankedTargets
from recsys.evaluation.ranking import rank_targets
from recsys.evaluation.shuffled import WAYS, Shuffled, Way, movable
from recsys.evaluation.significance import permutation_test
from recsys.models.contract import Model

METRICS: Final = ("ndcg", "hr")
"""What drops; the first decides."""

Verdict = Literal["matters", "does not matter", "undecided"]


class OrderRow(TypedDict):
    """One metric under one way to shuffle; `share` is drop / true."""

    way: str
    metric: str
    k: int
    true: float
    true_low: float
    true_high: float
    shuffled: float
    drop: float
    low: float
    high: float
    share: float
    p: float
    overlap: float
    overlap_low: float
    overlap_high: float
    verdict: str
    targets: int
    users: int


@dataclass(frozen=True)
class OrderGround:
    """What is tested on.

    Attributes:
        store: all events.
        targets: what is asked.
        evaluation: the exclusion, and how intervals and tests are made.
        k: cut-off of the metrics and of the overlap.
        shuffles: shuffles of every way, each with a seed of its own.
        margin: see the rule.
        seed: of shuffles and intervals.
    """

    store: SequenceStore
    targets: Targets
    evaluation: EvaluationConfig
    k: int
    shuffles: int
    margin: float
    seed: int = 0


def order_rows(
    model: Model,
    ground: OrderGround,
    *,
    name: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[OrderRow]:
    """Return a row for every way that the data allow and every metric of `METRICS`.

    `progress` is called as (rankings done, rankings in all).

    Raises:
        DataError: no history has two events, so there is no order.
    """
    chosen = {way: movable(ground.store, ground.targets, model.max_length, way) for way in WAYS}
    ways = [way for way in WAYS if chosen[way].any()]
    if not ways:
        raise DataError(
            f"no target has a history with two events that {name or type(model).__name__} reads, so "
            "there is no order to test; look at the split, and at the model's history or max_length"
        )
    total, done, rows = len(ways) * (1 + ground.shuffles), 0, []
    for way in ways:
        targets = _some(ground.targets, chosen[way])
        ranked = []
        for seed in (None, *range(ground.shuffles)):
            asked = model if seed is None else Shuffled(model, way, _seed(ground.seed, seed))
            ranked.append(
                rank_targets(
                    asked, ground.store, targets, ground.evaluation, list_length=ground.k, name=name
                )
            )
            done += 1
            if progress is not None:
                progress(done, total)
        rows += _rows(way, ranked[0], ranked[1:], ground)
    return rows


def _seed(seed: int, shuffle: int) -> int:
    return 1_000_003 * seed + shuffle + 1


def _some(targets: Targets, chosen: Any) -> Targets:
    return Targets(targets.user[chosen], targets.start[chosen], targets.end[chosen])


def _rows(
    way: Way, true: RankedTargets, shuffled: Sequence[RankedTargets], ground: OrderGround
) -> list[OrderRow]:
    """Return the rows of one way; no targets left (all forbidden) give no rows."""
    if not len(true):
        return []
    keys: list[Key] = [(metric, ground.k) for metric in METRICS]
    values = _metrics(true, keys)  # [T, M]
    others = np.mean([_metrics(one, keys) for one in shuffled], axis=0)  # [T, M]
    overlap = np.mean([jaccard(true.top, one.top) for one in shuffled], axis=0)  # [T]
    columns = np.concatenate([values, others, values - others, overlap[:, None]], axis=1)
    _, means = user_means(columns, true.user)  # [U, 3 M + 1]
    config, size = ground.evaluation, len(METRICS)
    low, high = bootstrap(means, config.bootstrap, config.level, np.random.default_rng(ground.seed))
    drops = means[:, 2 * size : 3 * size]
    p = permutation_test(drops, config.permutations, np.random.default_rng((ground.seed, 1)))
    middle = means.mean(axis=0)
    rows = []
    for m, (metric, k) in enumerate(keys):
        whole, drop = float(middle[m]), float(middle[2 * size + m])
        interval = (float(low[2 * size + m]), float(high[2 * size + m]))
        rows.append(
            OrderRow(
                way=way,
                metric=metric,
                k=int(k or 0),
                true=whole,
                true_low=float(low[m]),
                true_high=float(high[m]),
                shuffled=float(middle[size + m]),
                drop=drop,
                low=interval[0],
                high=interval[1],
                share=drop / whole if whole else 0.0,
                p=float(p[m]),
                overlap=float(middle[-1]),
                overlap_low=float(low[-1]),
                overlap_high=float(high[-1]),
                verdict=verdict(drop, interval, ground.margin * whole),
                targets=len(true),
                users=len(means),
            )
        )
    return rows


def _metrics(ranked: RankedTargets, keys: Sequence[Key]) -> Float64:
    return np.stack(
        [target_metric(ranked.ranks, ranked.offsets, key, ranked.order) for key in keys], axis=1
    )


def jaccard(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> Float64:
    """Return |A and B| / |A or B| of the items of two lists a row, float64 [T]; 0 is no item.

    Two empty lists are alike: 1.

    >>> jaccard(np.array([[1, 2, 3]]), np.array([[3, 1, 4]]))
    array([0.5])
    """
    both = ((one[:, :, None] == other[:, None, :]) & (one > 0)[:, :, None]).sum(axis=(1, 2))
    either = (one > 0).sum(axis=1) + (other > 0).sum(axis=1) - both
    return np.where(either > 0, both / np.maximum(either, 1), 1.0)


def verdict(drop: float, interval: tuple[float, float], margin: float) -> Verdict:
    """Return what the rule says of a drop; `margin` in units of the metric.

    >>> verdict(0.1, (0.08, 0.12), 0.02), verdict(0.0, (-0.01, 0.01), 0.02)
    ('matters', 'does not matter')
    >>> verdict(0.02, (-0.01, 0.05), 0.02)
    'undecided'
    """
    low, high = interval
    if low > 0 and drop >= margin:
        return "matters"
    return "does not matter" if high < margin else "undecided"


def verdicts(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the verdict on every way that was tried, by the deciding metric."""
    return {row["way"]: row["verdict"] for row in rows if row["metric"] == METRICS[0]}


def advice(found: Mapping[str, str]) -> list[str]:
    """Return which encoder the verdicts speak for, in sentences.

    Where nothing is decided the simpler encoder is advised: it needs no order.
    """
    whole, rest = found.get("whole"), found.get("but_newest")
    said = []
    if whole == "matters" and rest == "matters":
        said.append(
            "Read histories as sequences: sasrec, or markov with a reach or a table for each lag."
        )
    elif whole == "matters":
        said.append(
            "Which item came last matters, and the order before it "
            f"{'does not' if rest == 'does not matter' else 'was not shown to'}: a markov of the "
            "newest item, or its vector beside a set of the others."
        )
    elif whole is not None:
        doubt = "" if whole == "does not matter" else " (undecided: more targets would tell)"
        said.append(
            f"Read histories as sets: item_knn with decay 1, or an encoder of sets (mean, attention, "
            f"set transformer){doubt}."
        )
    inside = found.get("inside_baskets")
    if inside is not None:
        said.append(
            "Read baskets in the order of their lines (baskets: ordered)."
            if inside == "matters"
            else "Read baskets as sets (baskets: set) and learn them as sets (objective: next_basket or "
            "next_basket_set)." + ("" if inside == "does not matter" else " This is undecided.")
        )
    return said
