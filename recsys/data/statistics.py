"""What training events say of regularity and frequency: gap variances, counts, neighbours.

`features/` makes these numbers, a model's objective reads them; nothing here looks at an event after the
training part. A variance is the sample variance (ddof 1) of consecutive gaps in seconds. Source: UniRec
(CIKM 2024, arXiv 2406.18470), sections 2 and 3 of its public code, with training events only.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from recsys.data.sequences import Int32, Int64
from recsys.errors import ArtifactError

Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
FrequencyBy = Literal["gap_variance", "count"]


@dataclass(frozen=True)
class TrainingStatistics:
    """Statistics of one fold's training events.

    Attributes:
        user_gap_variance: float64 [U], variance of a user's gaps in seconds; NaN with fewer than two gaps
            (three events). Low is uniform. None when the clock carries no gaps.
        item_gap_variance: float64 [n_items + 1], variance of the gaps between consecutive events of an
            item over all users; NaN with fewer than two gaps. None when times of different users
            cannot be compared.
        item_counts: int64 [n_items + 1], training events per item; 0 for PAD.
        neighbours: int32 [n_items + 1, K], the items most consumed together with each, best first, filled
            up with the item itself; None if they were not asked for.
    """

    user_gap_variance: Float64 | None
    item_gap_variance: Float64 | None
    item_counts: Int64
    neighbours: Int32 | None = None

    def uniform_users(self, share: float = 0.4) -> Bools:
        """Tell the `floor(share * U)` users of lowest gap variance, bool [U].

        Users whose variance is undefined are never uniform and do not count; equal variances go by the
        smaller index.
        """
        if self.user_gap_variance is None:
            raise ArtifactError(
                "this data set's clock carries no gaps, so no user is uniform or irregular; "
                "switch the sequence enhancement off"
            )
        defined = np.flatnonzero(~np.isnan(self.user_gap_variance))
        order = defined[np.argsort(self.user_gap_variance[defined], kind="stable")]
        chosen = np.zeros(len(self.user_gap_variance), dtype=np.bool_)
        chosen[order[: int(share * len(defined))]] = True
        return chosen

    def frequent_items(self, share: float = 0.3, by: FrequencyBy = "gap_variance") -> Bools:
        """Tell the `floor(share * T)` most frequent of the T items that are trained on, bool [n_items + 1].

        By gap variance the lowest are frequent and items of an undefined one never are; by count the
        highest. Ties go by the smaller index. PAD and items without training events never are.
        """
        key = self._frequency_key(by)
        order = np.argsort(key, kind="stable")
        chosen = np.zeros(len(key), dtype=np.bool_)
        chosen[order[: int(share * np.count_nonzero(self.item_counts))]] = True
        return chosen & np.isfinite(key)

    def frequency_rank(self, by: FrequencyBy = "gap_variance") -> Float64:
        """Return the percentile rank v of every item in rarity, float64 [n_items + 1], 0 to 100.

        0 is the most frequent item that is trained on, 100 the rarest; equal ones share the mean of their
        ranks. PAD and items without training events are 100.
        """
        trained = self.item_counts > 0
        key = self._frequency_key(by)[trained]
        _, where, counts = np.unique(key, return_inverse=True, return_counts=True)
        last = np.cumsum(counts)
        mean_rank = (last - counts + last - 1) / 2.0  # of ranks from 0
        ranks = np.full(len(trained), 100.0)
        ranks[trained] = mean_rank[where] * (100.0 / max(1, len(key) - 1))
        return ranks

    def _frequency_key(self, by: FrequencyBy) -> Float64:
        """Return what sorts items from frequent to rare; infinite where they can never be frequent."""
        if by == "count":
            key = -self.item_counts.astype(np.float64)
        elif self.item_gap_variance is None:
            raise ArtifactError(
                "items have no gap variance here: the times say nothing of it (see the features "
                "manifest's clock); use frequency by count"
            )
        else:
            key = self.item_gap_variance
        return np.where(np.isnan(key) | (self.item_counts == 0), np.inf, key)

    def save(self, directory: Path) -> None:
        """Write every array that there is as `<name>.npy` into `directory`."""
        directory.mkdir(parents=True, exist_ok=True)
        for name in _ARRAYS:
            if (array := getattr(self, name)) is not None:
                np.save(directory / f"{name}.npy", array)

    @classmethod
    def load(cls, directory: Path, *, memory_map: bool = True) -> TrainingStatistics:
        """Open saved statistics; arrays are memory-mapped unless told otherwise."""
        if not (directory / "item_counts.npy").is_file():
            raise ArtifactError(f"{directory} holds no statistics; run the features stage")
        mode: Any = "r" if memory_map else None
        paths = {name: directory / f"{name}.npy" for name in _ARRAYS}
        arrays: dict[str, Any] = {n: np.load(p, mode) for n, p in paths.items() if p.is_file()}
        arrays = dict.fromkeys(_ARRAYS) | arrays
        return cls(**arrays)


_ARRAYS = tuple(field.name for field in fields(TrainingStatistics))
