"""Cold items on purpose: a share of the catalogue of which nothing can be learned.

Their events before the test window are dropped, from training, validation and histories alike; what the
test asks for stays. So every model meets them for the first time where it is tested, and the report has
them as `item cold`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from recsys.data.ordering import seeded_hash
from recsys.data.sequences import Int32, Int64
from recsys.data.splits import Runs, Windows

Bools = npt.NDArray[np.bool_]


def choose_cold(n_items: int, share: float, seed: int) -> Bools:
    """Return a seeded choice of this share of the items (rounded), bool [n_items + 1]; never PAD."""
    draw = seeded_hash(seed + 2, np.arange(1, n_items + 1))  # + 2: not the draws of lists or events
    chosen = np.zeros(n_items + 1, dtype=np.bool_)
    chosen[1 + np.argsort(draw, kind="stable")[: round(share * n_items)]] = True
    return chosen


def events_kept(runs: Runs, items: Int32, cold: Bools, test_from: Int64) -> Bools:
    """Return which events stay, bool [E]: of cold items those from `test_from` [U] (local) on."""
    tested = np.arange(len(items)) >= test_from[runs.owner()]
    return tested | ~cold[items]


def without(runs: Runs, windows: Windows, kept: Bools) -> tuple[Runs, Windows]:
    """Return runs and windows without the events that are not kept; a run may be empty then."""
    place = np.append(0, np.cumsum(kept)).astype(np.int64)  # where an event, or an end, is now

    def moved(window: tuple[Int64, Int64]) -> tuple[Int64, Int64]:
        return place[window[0]], place[window[1]]

    smaller = replace(
        runs,
        offsets=place[runs.offsets],
        timestamps=None if runs.timestamps is None else runs.timestamps[kept],
        baskets=None if runs.baskets is None else runs.baskets[kept],
    )
    return smaller, Windows(
        place[windows.train_end],
        place[windows.refit_end],
        moved(windows.validation),
        moved(windows.test),
    )
