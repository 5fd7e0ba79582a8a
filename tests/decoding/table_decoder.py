"""A decoder whose next-item distribution is any function of the items chosen so far."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsys.data.batches import SequenceBatch, batch_from_lists
from recsys.decoding import Catalogue, Lists, Rules, SearchSettings, search
from recsys.models.generation import GenerationState

Row = Callable[[tuple[int, ...]], Sequence[float]]
"""Maps the items so far to log-probabilities of items 1, 2, ..., which need not be normalised."""
PLAIN = {"scope": "step", "sets": False, "distinct": False, "repeats": True}


@dataclass(frozen=True)
class TableState(GenerationState):
    chosen: tuple[tuple[int, ...], ...] = ()

    def select(self, rows: Tensor) -> TableState:
        return TableState(self.query[rows], tuple(self.chosen[i] for i in rows.tolist()))


class TableDecoder:
    """Answers `Generator`; the history is not looked at."""

    temperature = 1.0

    def __init__(self, n_items: int, row: Row) -> None:
        self.n_items, self.row = n_items, row

    def start(self, batch: SequenceBatch, gap: float | None = None) -> TableState:
        return TableState(torch.zeros(len(batch), 1), ((),) * len(batch))

    def step(self, state: GenerationState, items: Tensor) -> TableState:
        assert isinstance(state, TableState)
        pairs = zip(state.chosen, items.tolist(), strict=True)
        return TableState(state.query, tuple((*chosen, item) for chosen, item in pairs))

    def score_next(self, state: GenerationState, items: Tensor | None = None) -> Tensor:
        assert isinstance(state, TableState)
        scores = torch.tensor([[0.0, *self.row(chosen)] for chosen in state.chosen])
        if items is None:
            return scores
        return scores[:, items] if items.ndim == 1 else scores.gather(1, items)


def random_decoder(n_items: int, seed: int) -> TableDecoder:
    """Every prefix has random log-probabilities of its own."""

    def row(chosen: tuple[int, ...]) -> list[float]:
        rng = np.random.default_rng([seed, *chosen])
        logits = rng.normal(size=n_items)
        values: list[float] = (logits - np.log(np.exp(logits).sum())).tolist()
        return values

    return TableDecoder(n_items, row)


def decoder_of(rows: dict[tuple[int, ...], Sequence[float]]) -> TableDecoder:
    """The probabilities of every prefix are given."""
    n_items = len(next(iter(rows.values())))
    return TableDecoder(n_items, lambda chosen: [math.log(p) for p in rows[chosen]])


def nobody(n: int = 1) -> SequenceBatch:
    """N empty histories."""
    return batch_from_lists([[]] * n, None, 4)


def lists_of(
    decoder: TableDecoder, steps: int, rules: Rules | None = None, **settings: object
) -> Lists:
    """Search for one request, with paper-like settings unless others are given."""
    asked = SearchSettings(**{**PLAIN, "candidates": 500, **settings})  # type: ignore[arg-type]
    own = None if rules is None else [rules]
    return search(Catalogue(decoder), nobody(), steps, asked, own)


def every_list(decoder: TableDecoder, steps: int) -> dict[tuple[int, ...], float]:
    """Return the log-probability of every list there is."""
    items = range(1, decoder.n_items + 1)
    return {
        one: sum(decoder.row(one[:i])[item - 1] for i, item in enumerate(one))
        for one in itertools.product(items, repeat=steps)
    }
