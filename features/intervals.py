"""Intervals: how many hours lie between an event and the one before it, as the model's gap ids.

    gap_p = clip(h_p - h_(p-1), 0, limit)        h = floor(time / 3600), gap of the first event 0

Not log-scaled; the limit is a year of hours. Source: UniRec's data preparation. Its public code takes
the padding of a sequence for an event at time 0, so that the first real event of a padded sequence gets
the limit: `reference` does the same, `corrected` gives 0.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from recsys.data.sequences import Int64

Bools = npt.NDArray[np.bool_]
Mode = Literal["corrected", "reference"]

HOUR: Final = 3600
LIMIT: Final = 8760
"""Hours of a year: longer gaps are all the same."""


def hours_between(earlier: Int64, later: Int64, limit: int = LIMIT) -> Int64:
    """Return the whole hours from one time to another (int64, any shape), 0 to `limit`.

    Both are cut to their hour first: 09:59 and 10:00 are an hour apart. An event that lies before the
    one it follows counts as simultaneous.
    """
    hours: Int64 = np.clip(later // HOUR - earlier // HOUR, 0, limit).astype(np.int64)
    return hours


def gap_hours(
    times: Int64, real: Bools | None = None, mode: Mode = "corrected", limit: int = LIMIT
) -> Int64:
    """Return the gap ids of sequences, int64 [..., L], oldest event first.

    Args:
        times: int64 [..., L] seconds; 0 in places that are padding, which are on the left.
        real: bool [..., L], which places hold an event; all by default.
        mode: what the first real event after padding gets, see above.
        limit: the largest gap id.
    """
    gaps = np.zeros(times.shape, dtype=np.int64)
    gaps[..., 1:] = hours_between(times[..., :-1], times[..., 1:], limit)
    if real is not None and mode == "corrected":
        gaps[..., 1:][~(real[..., 1:] & real[..., :-1])] = 0
    return gaps


def target_gap_hours(inputs: Int64, targets: Int64, limit: int = LIMIT) -> Int64:
    """Return the gap ids of targets, each measured from the input it follows; same shape."""
    return hours_between(inputs, targets, limit)
