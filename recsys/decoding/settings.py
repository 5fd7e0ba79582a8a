"""What a search for lists may be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from recsys.errors import DataError

Dissimilarity = Literal["hamming", "presence", "cumulative", "ngram", "vector", "category"]
Scope = Literal["step", "list"]
LogZ = Literal["auto", "exact", "estimate"]

EXACT_BELOW = 20_000
"""Items up to which `log_z: auto` sums over the whole catalogue."""


@dataclass(frozen=True)
class SearchSettings:
    """How lists are searched. One group without diversity is plain beam search.

    Attributes:
        groups: groups, one after another in every step; later ones avoid what earlier ones chose.
        beams: lists of each group (its beam width).
        diversity: strength of the penalty, in nats of log-probability; 0 makes all groups equal.
        dissimilarity: what counts as alike, see `recsys.decoding.dissimilarity`.
        scope: which items of earlier groups count for `hamming`, `presence`, `vector` and `category`:
            those chosen in the same step, or in the whole list so far. A shift by one place defeats
            the first.
        ngram: length of the n-grams of `ngram`.
        decay: Gamma of `cumulative`, in items.
        accumulate: penalties stay in the score by which later steps choose; otherwise each counts in
            its own step only.
        candidates: items that compete at each place of each list.
        refresh: steps between two searches of the index; between them a list keeps its candidates,
            scored exactly anew. 1 with an exact `log_z`, which needs all scores anyhow.
        log_z: how the log-probability is normalised: exactly, over the whole catalogue, or by an
            estimate whose error is measured. `auto` is exact up to 20,000 items. With one beam a group
            the search does not need it, and it is computed once at the end.
        sample: items drawn for the estimate.
        sets: two lists of a group with the same items in another order are one, the better one.
        distinct: no list equals one of an earlier group (with `sets`, neither in another order).
        repeats: an item may come several times in a list.
        end: a token that ends a list before the last step; None where all lists are of one length.
        length_penalty: a finished list's score is divided by its length to this power; only with `end`.
    """

    groups: int = 4
    beams: int = 2
    diversity: float = 0.5
    dissimilarity: Dissimilarity = "hamming"
    scope: Scope = "list"
    ngram: int = 2
    decay: float = 5.0
    accumulate: bool = True
    candidates: int = 500
    refresh: int = 5
    log_z: LogZ = "auto"
    sample: int = 4096
    sets: bool = True
    distinct: bool = True
    repeats: bool = False
    end: int | None = None
    length_penalty: float = 0.0

    def __post_init__(self) -> None:
        for name in ("groups", "beams", "ngram", "candidates", "refresh", "sample"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.diversity < float("inf"):
            raise DataError(f"diversity is {self.diversity}; it must be a number of at least 0")
        if not 0 < self.decay < float("inf"):
            raise DataError(f"decay is {self.decay}; it must be above 0")
        for name, kind in _CHOICES.items():
            if getattr(self, name) not in get_args(kind):
                allowed = ", ".join(get_args(kind))
                raise DataError(f"{name} is {getattr(self, name)!r}; allowed are {allowed}")
        if self.candidates < self.width:
            raise DataError(
                f"{self.candidates} candidates are too few for {self.width} lists; give at least that"
            )

    @property
    def width(self) -> int:
        """Lists in all: groups x beams."""
        return self.groups * self.beams

    def exact(self, n_items: int) -> bool:
        """Tell whether log-probabilities are exact for a catalogue of this size."""
        return self.log_z == "exact" or (self.log_z == "auto" and n_items <= EXACT_BELOW)


_CHOICES = {"dissimilarity": Dissimilarity, "scope": Scope, "log_z": LogZ}
