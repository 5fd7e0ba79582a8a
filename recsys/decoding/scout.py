"""Finds the candidates of every list's next place and their log-probabilities.

Shapes: N requests, R = N * B lists, R' <= R rows of the state, one for each distinct list (all requests
have equally many), C candidates, V items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsys.data.sequences import Int64
from recsys.decoding.normaliser import NO_WINDOWS, Estimate, estimate_of
from recsys.decoding.rules import Rules
from recsys.decoding.settings import SearchSettings
from recsys.decoding.shortlist import Buffer, Catalogue, Closed, Float32, Shortlist
from recsys.models.generation import GenerationState, ReencodedState
from recsys.schema import PAD

WIDER = 4
"""Factor by which a shortlist grows that leaves a group too few candidates."""


@dataclass(frozen=True)
class Found:
    """Candidates of R lists and their log-probabilities float32 [R, C] (logits without log Z)."""

    shortlist: Shortlist
    gains: Float32

    def select(self, rows: Int64) -> Found:
        """Return the candidates of these rows."""
        return Found(self.shortlist.select(rows), self.gains[rows])


class Scout:
    """Looks for candidates step by step.

    Where log Z is exact and needed, every step scores the whole catalogue. Otherwise the index is
    searched every `refresh` steps, and between two searches lists keep their candidates.

    Args:
        catalogue: the items.
        settings: of the search.
        rules: of each request.
        candidates: how many to look for.
        normalise: subtract log Z.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        settings: SearchSettings,
        rules: Sequence[Rules],
        candidates: int,
        normalise: bool,
    ) -> None:
        self.catalogue, self.settings, self.n = catalogue, settings, len(rules)
        self.closed = Closed([r.forbidden for r in rules], rules[0].allowed if rules else None)
        self.most = self.closed.n_permitted(catalogue.n_items)
        self.k = max(1, min(candidates, self.most))
        self.all_scores = normalise and settings.exact(catalogue.n_items)
        self.always = _always(rules, settings)  # [N, Q]
        self.kept: Shortlist | None = None
        self.pool: Tensor | None = (
            None  # vectors of all candidates of the last search [N, l * C, D], of l rows a request
        )
        self.origin = np.zeros(0, dtype=np.int64)  # which of its l rows each row's come from [R']
        self.buffer = Buffer()
        self.outside: Tensor | None = None
        self.estimate: Estimate | None = None
        if normalise and not self.all_scores:
            self.estimate = estimate_of(catalogue, settings.sample)
            self.closed_items = _padded(self.closed.forbidden)  # [N, X]

    def look(self, state: GenerationState, step: int, home: Int64) -> Found:
        """Return what may come next [R, C]; list i stands at row `home[i]` of the state."""
        kept = self.kept
        if self.all_scores:
            return self._look_at_all(state, home)
        if kept is None or (step % self.settings.refresh == 0 and not kept.complete):
            found = self._look_anew(state)
        else:
            found = self._normalised(state, kept.rescored(self._rescore(state, kept)))
        return found.select(home)

    def wider(self, state: GenerationState, home: Int64) -> Found:
        """Look again, for more candidates: the rules leave too few of those found."""
        self.k = min(self.k * WIDER, self.most)
        if self.all_scores:
            return self._look_at_all(state, home)
        return self._look_anew(state).select(home)

    def follow(self, rows: Int64) -> None:
        """Give every row the candidates of the row `rows` int64 [R'] of the state that it comes from."""
        if self.kept is not None:
            self.kept = self.kept.select(rows)
            self.origin = self.origin[rows]
        if self.outside is not None:
            self.outside = self.outside[torch.from_numpy(rows)]

    def _look_at_all(self, state: GenerationState, home: Int64) -> Found:
        """Score everything, for a plain product only where a list stands: other rows are repeats."""
        requests = np.arange(len(state)) // max(1, len(state) // max(1, self.n))
        if self.catalogue.table is not None:
            used, home = np.unique(home, return_inverse=True)
            state = ReencodedState(state.query[torch.from_numpy(used)], NO_WINDOWS)
            requests = requests[used]
        items, scores, log_z = self.catalogue.search_all(
            state, self.closed, requests, self.k, self.buffer
        )
        shortlist = self._with_always(state, items, scores, requests)
        gains = (shortlist.scores - log_z.numpy()[:, None]).astype(np.float32)
        return Found(shortlist, gains).select(home)

    def _look_anew(self, state: GenerationState) -> Found:
        lists = len(state) // max(1, self.n)
        items, scores = self.catalogue.search(state, self.closed, lists, self.k)
        requests = np.arange(len(state)) // max(1, lists)
        self.kept = self._with_always(state, items, scores, requests)
        if self.estimate is not None:
            closed = np.repeat(self.closed_items, lists, axis=0)
            known = np.concatenate([self.kept.known, closed], axis=1)
            self.outside = self.estimate.outside(known)
        found = self._normalised(state, self.kept)
        self.origin, self.pool = np.arange(len(state)) % lists, None
        if self.catalogue.table is not None and self.settings.refresh > 1:
            every = torch.from_numpy(found.shortlist.known.reshape(-1))
            pool = self.catalogue.table.index_select(0, every)
            self.pool = pool.view(self.n, -1, pool.shape[1])
        return found

    def _rescore(self, state: GenerationState, kept: Shortlist) -> Float32:
        """Return the logits of the candidates float32 [R', C] at this step.

        Vectors were gathered when the candidates were found. All lists of a request are multiplied with
        all of them, which is cheaper than to keep vectors in the order of the lists.
        """
        if self.pool is None:
            scores: Float32 = self.catalogue.rescore(state, kept.known).numpy()
            return scores
        lists = len(state) // self.n
        queries = self.catalogue.logits_of(state.query).view(self.n, lists, -1)
        every = torch.bmm(queries, self.pool.transpose(1, 2)).numpy()  # [N, B, l * C]
        every = every.reshape(len(state), -1, kept.ids.shape[1])
        found: Float32 = every[np.arange(len(state)), self.origin]
        return found

    def _with_always(
        self, state: GenerationState, items: Tensor, scores: Tensor, requests: Int64
    ) -> Shortlist:
        """Add what has to be among the candidates, whatever its score."""
        if self.always.shape[1]:
            extra = self.always[requests]
            logits = self.catalogue.rescore(state, extra)
            logits = logits.masked_fill(torch.from_numpy(extra == PAD), -torch.inf)
            items = torch.cat([items, torch.from_numpy(extra)], dim=1)
            scores = torch.cat([scores, logits], dim=1)
        complete = self.k >= self.most
        return Shortlist.of_found(items, scores, self.catalogue.n_items, complete)

    def _normalised(self, state: GenerationState, shortlist: Shortlist) -> Found:
        if self.estimate is None or self.outside is None:
            return Found(shortlist, shortlist.scores)
        closed = self.estimate.closed_logits(state, self.closed_items)
        log_z = self.estimate.log_z(state, shortlist, self.outside, closed)
        return Found(shortlist, (shortlist.scores - log_z.numpy()[:, None]).astype(np.float32))


def _always(rules: Sequence[Rules], settings: SearchSettings) -> Int64:
    """Return required items, and the token that ends a list, int64 [N, Q], filled up with PAD."""
    end = [] if settings.end is None else [settings.end]
    return _padded([np.array([*r.required, *end], dtype=np.int64) for r in rules])


def _padded(lists: Sequence[Int64]) -> Int64:
    """Return lists as one array int64 [N, X], filled up with PAD."""
    width = max(map(len, lists), default=0)
    padded = np.full((len(lists), width), PAD, dtype=np.int64)
    for row, items in zip(padded, lists, strict=True):
        row[: len(items)] = items
    return padded
