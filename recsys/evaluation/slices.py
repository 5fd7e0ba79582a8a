"""Slices: the same figures for a part of the targets, to see for whom a model works."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recsys.data.profile import Float64, spread_before
from recsys.data.sequences import Int32, Int64, SequenceStore, Split
from recsys.evaluation.ranked import RankedTargets

Bools = npt.NDArray[np.bool_]

HISTORY_BINS = 4
FIFTHS = 5


def slice_targets(
    ranked: RankedTargets, store: SequenceStore, split: Split, item_counts: Int64, head_share: float
) -> dict[str, Bools]:
    """Return which targets belong to each slice, bool [T]; slices without targets are left out.

    - `all`
    - `history a-b`: events before the target, cut at the quartiles of the positive lengths (equal
      quartiles merge); `history 0` apart.
    - `item head`, `item tail`, `item cold`: by the training events of the target's item (of several,
      their median). Head are the `head_share` most frequent of the items with training events (and
      those as frequent as the last of them), cold have none.
    - `user seen`, `user unseen`: users with and without training events.
    - `gaps 1/5` (most even) to `gaps 5/5` (most irregular): fifths of the users by the standard
      deviation of their training gaps (equal fifths merge); those with fewer than two gaps are in none,
      and without times nobody is in any.
    """
    trained = (split.train_end - store.offsets[:-1])[ranked.user] > 0
    slices = {
        "all": np.ones(len(ranked), dtype=np.bool_),
        **history_bins(ranked.history_length),
        **frequency_classes(ranked, item_counts, head_share),
        "user seen": trained,
        "user unseen": ~trained,
        **gap_fifths(spread_before(store, split.train_end), ranked.user),
    }
    return {name: inside for name, inside in slices.items() if inside.any()}


def history_bins(lengths: Int64) -> dict[str, Bools]:
    """Cut targets by history length at the quartiles of the positive lengths."""
    bins = {"history 0": lengths == 0}
    positive = lengths[lengths > 0]
    if len(positive) == 0:
        return bins
    shares = np.arange(1, HISTORY_BINS + 1) / HISTORY_BINS
    lasts = np.unique(np.quantile(positive, shares, method="lower").astype(np.int64))
    firsts = np.concatenate([[positive.min()], lasts[:-1] + 1])
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
        name = f"history {first}" if first == last else f"history {first}-{last}"
        bins[name] = (lengths >= first) & (lengths <= last)
    return bins


def gap_fifths(spread: Float64, user: Int32) -> dict[str, Bools]:
    """Cut targets by how irregular their users' gaps are, at the fifths of those users.

    Args:
        spread: float64 [U], NaN where unknown.
        user: int32 [T], whose targets they are.
    """
    known = spread[np.unique(user)]
    known = known[~np.isnan(known)]
    if len(known) == 0:
        return {}
    limits = np.unique(np.quantile(known, np.arange(1, FIFTHS + 1) / FIFTHS, method="lower"))
    mine = spread[user]
    place = np.searchsorted(limits, mine)  # a user at a limit belongs below it
    return {
        f"gaps {i + 1}/{len(limits)}": (place == i) & ~np.isnan(mine) for i in range(len(limits))
    }


def frequency_classes(
    ranked: RankedTargets, item_counts: Int64, head_share: float
) -> dict[str, Bools]:
    """Cut targets by how often their item (the median of their items) occurs in training."""
    typical = _median_by_target(item_counts[ranked.items], ranked.offsets)
    limit = head_limit(item_counts, head_share)
    return {
        "item head": (typical > 0) & (typical >= limit),
        "item tail": (typical > 0) & (typical < limit),
        "item cold": typical == 0,
    }


def head_limit(item_counts: Int64, head_share: float) -> int:
    """Return the training events of the least frequent head item; at least one item is head."""
    trained = np.sort(item_counts[item_counts > 0])[::-1]
    if len(trained) == 0:
        return 1
    return int(trained[max(1, round(head_share * len(trained))) - 1])


def _median_by_target(values: Int64, offsets: Int64) -> npt.NDArray[np.float64]:
    target = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    ordered = values[np.lexsort((values, target))]
    counts = np.diff(offsets)
    low, high = offsets[:-1] + (counts - 1) // 2, offsets[:-1] + counts // 2
    return np.asarray((ordered[low] + ordered[high]) / 2.0, dtype=np.float64)
