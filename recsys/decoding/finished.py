"""Lists that have ended, kept by group: a heap for all groups would fill with one group's near-copies."""

from __future__ import annotations

import numpy as np

from recsys.data.sequences import Int64
from recsys.decoding.choice import Choice
from recsys.decoding.settings import SearchSettings
from recsys.decoding.shortlist import Float32
from recsys.evaluation.metrics import Float64
from recsys.schema import PAD

Ended = tuple[float, list[int], list[float]]
"""Score, items with the end token, and their log-probabilities."""


class Finished:
    """The best finished lists of every group, `beams` of each at most.

    A list that ends counts where it is among the group's `beams` best extensions. A group is done when
    it has as many finished lists and no running one can still get better than the worst of them; it
    then chooses nothing more, and nobody is penalised for what it did not choose.
    """

    def __init__(self, settings: SearchSettings) -> None:
        self.settings = settings
        self.kept: dict[tuple[int, int], list[Ended]] = {}

    def take(
        self, group: int, found: Choice, items: Int64, gains: Float64, values: Float32
    ) -> Choice:
        """Keep what has ended among a group's extensions; return the best that go on, [N, beams].

        Args:
            group: its number.
            found: its extensions, best first, twice as many as it has lists.
            items: int64 [N, b, S], its lists.
            gains: float64 [N, b, S], of these.
            values: float32 [N, b, C], log-probabilities of the candidates.
        """
        beams = self.settings.beams
        which = np.full((len(items), beams), -1, dtype=np.int64)
        for row in range(len(items)):
            going: list[int] = []
            for rank, item in enumerate(found.item[row].tolist()):
                if item == self.settings.end:
                    if rank < beams:
                        self._keep(row, group, self._ended(found, row, rank, items, gains, values))
                elif item != PAD and len(going) < beams:
                    going.append(rank)
            if not self._done(row, group, float(found.score[row].max()), items.shape[2] + 1):
                which[row, : len(going)] = going
        return found.take(which)

    def join(self, items: Int64, gains: Float64, score: Float64) -> tuple[Int64, Float64, Float64]:
        """Return the best `beams` of each group's finished and running lists, best first."""
        joined_items, joined_gains = np.zeros_like(items), np.zeros_like(gains)
        joined_score = np.full_like(score, -np.inf)
        beams, steps = self.settings.beams, items.shape[2]
        for row in range(len(items)):
            for group in range(self.settings.groups):
                for at in range(group * beams, (group + 1) * beams):
                    if not np.isneginf(score[row, at]):
                        list_, gain = items[row, at].tolist(), gains[row, at].tolist()
                        self._keep(
                            row, group, (self._per_length(score[row, at], steps), list_, gain)
                        )
                for at, (best, list_, gain) in enumerate(self.kept.get((row, group), [])):
                    place = group * beams + at
                    joined_items[row, place, : len(list_)] = list_
                    joined_gains[row, place, : len(gain)] = gain
                    joined_score[row, place] = best
        return joined_items, joined_gains, joined_score

    def _keep(self, row: int, group: int, ended: Ended) -> None:
        kept = self.kept.setdefault((row, group), [])
        score, items, gains = ended
        kept.append((score, items, gains))
        kept.sort(key=lambda one: -one[0])  # stable: of equals the earlier one stays
        del kept[self.settings.beams :]

    def _done(self, row: int, group: int, best: float, length: int) -> bool:
        kept = self.kept.get((row, group), [])
        return len(kept) == self.settings.beams and kept[-1][0] >= self._per_length(best, length)

    def _per_length(self, score: float, length: int) -> float:
        divisor: float = length**self.settings.length_penalty
        return float(score) / divisor

    def _ended(
        self,
        found: Choice,
        row: int,
        rank: int,
        items: Int64,
        gains: Float64,
        values: Float32,
    ) -> Ended:
        parent, column = int(found.parent[row, rank]), int(found.column[row, rank])
        list_ = [*items[row, parent].tolist(), int(found.item[row, rank])]
        gain = [*gains[row, parent].tolist(), float(values[row, parent, column])]
        return self._per_length(float(found.score[row, rank]), len(list_)), list_, gain
