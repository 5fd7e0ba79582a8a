"""What an event is worth by its age: half as much every so many days, counted from the newest event."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from recsys.data.sequences import Int64, TrainingData
from recsys.errors import DataError

DAY = 86_400

Float64 = npt.NDArray[np.float64]


class Recency:
    """worth(event) = 0.5 ** (age / half-life), with the age in days before the newest training event.

    Times of different users are compared, so the data need an absolute clock.

    Args:
        data: the training events; those after them are never looked at.
        half_life: days; None makes every event worth 1.
    """

    def __init__(self, data: TrainingData, half_life: float | None) -> None:
        self.data = data
        self.half_life = half_life

    @cached_property
    def _times(self) -> tuple[Int64, int]:
        """`(times of the store, time of the newest training event)` in seconds."""
        times = self.data.store.timestamps
        if times is None:
            raise DataError(
                f"recency_half_life is {self.half_life}, but the data have no times; leave it out, or "
                "map timestamp and set data.clock to absolute"
            )
        last = self.data.train_end[self.data.lengths > 0] - 1  # a user's events are in order
        return times, int(times[last].max(initial=0))

    def worth(self, places: Int64) -> Float64:
        """Return the worth of the training events at these places of the store, float64 [T] in (0, 1]."""
        if self.half_life is None:
            return np.ones(len(places))
        times, newest = self._times
        return np.exp2((times[places] - newest) / (DAY * self.half_life))
