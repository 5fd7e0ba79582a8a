"""Log Z: what turns scores into log-probabilities, over the whole catalogue or estimated.

log Z = log sum_i exp(s_i) over all items, those that may not be shown included. Lists with different
items before cannot be compared without it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recsys.data.sequences import Int64
from recsys.decoding.shortlist import Catalogue, Closed, Shortlist
from recsys.models.generation import GenerationState, ReencodedState, Windows
from recsys.retrieval.blocks import block_rows
from recsys.schema import PAD

NO_WINDOWS = Windows(torch.empty(0, 0, dtype=torch.int64), torch.empty(0, dtype=torch.int64))
SEED = 0
CHUNK = 1 << 17
"""Items of one product of the exact sum."""


class Estimate:
    """Estimates log Z from a row's candidates, summed exactly, and a fixed sample of the other items.

    Z = sum_candidates exp(s) + (V - n) * mean over sampled others of exp(s), n the candidates: unbiased
    in Z. The sample is the same for all rows, so that what it misses is missed by all of them.

    Args:
        catalogue: the items.
        sample: how many are drawn, uniformly without replacement, with a fixed seed.
    """

    def __init__(self, catalogue: Catalogue, sample: int) -> None:
        self.catalogue = catalogue
        n_items = catalogue.n_items
        rng = np.random.default_rng(SEED)
        drawn = np.sort(rng.permutation(n_items)[: min(sample, n_items)]) + 1
        self.items: Int64 = drawn.astype(np.int64)
        self.place = np.full(n_items + 1, -1, dtype=np.int32)
        self.place[self.items] = np.arange(len(self.items), dtype=np.int32)
        table = catalogue.table
        self.columns = None if table is None else table[torch.from_numpy(self.items)].T.contiguous()

    def outside(self, known: Int64) -> Tensor:
        """Return which sampled items are no candidates of a row, float32 [R, S]; `known` is [R, C]."""
        places = self.place[known]  # [R, C]
        row, column = np.nonzero(places >= 0)
        outside = np.ones((len(known), len(self.items)), dtype=np.float32)
        outside[row, places[row, column]] = 0.0
        return torch.from_numpy(outside)

    def log_z(
        self, state: GenerationState, shortlist: Shortlist, outside: Tensor, closed: Tensor
    ) -> Tensor:
        """Return the estimate for every row, float64 [R].

        Args:
            state: of the rows.
            shortlist: their candidates, with the logits of this step.
            outside: of candidates and closed items.
            closed: logits [R, X] of items that may not be shown; -inf for none.
        """
        sampled = self._sampled(state)  # [R, S]
        inside = torch.cat([torch.from_numpy(shortlist.scores), closed], dim=1)
        top = torch.maximum(inside.amax(1), sampled.amax(1))[:, None].clamp(min=-1e30)  # [R, 1]
        number = torch.isfinite(inside).sum(1)
        rest = (self.catalogue.n_items - number).clamp(min=0).double()
        others = (torch.exp(sampled - top) * outside).sum(1).double()
        mean = others / outside.sum(1).double().clamp(min=1.0)
        total = torch.exp(inside - top).sum(1).double() + rest * mean
        return total.clamp(min=1e-300).log() + top[:, 0].double()

    def closed_logits(self, state: GenerationState, items: Int64) -> Tensor:
        """Return the logits [R, X] of each request's own items int64 [N, X]; PAD has -inf.

        They are summed exactly, too: what was seen is often what is likeliest.
        """
        lists = len(state) // max(1, len(items))
        table, ids = self.catalogue.table, torch.from_numpy(items)
        if table is None:
            logits = self.catalogue.rescore(state, np.repeat(items, lists, axis=0))
        else:
            queries = self.catalogue.logits_of(state.query).view(len(items), lists, -1)
            logits = torch.bmm(queries, table[ids].transpose(1, 2)).flatten(0, 1)
        nothing = (ids == PAD).repeat_interleave(lists, dim=0)
        return logits.masked_fill(nothing, -torch.inf)

    def _sampled(self, state: GenerationState) -> Tensor:
        if self.columns is not None:
            return self.catalogue.logits_of(state.query) @ self.columns
        items = torch.from_numpy(self.items).to(state.query.device)
        scores = self.catalogue.model.score_next(state, items).float().cpu()
        return scores / self.catalogue.model.temperature


def estimate_of(catalogue: Catalogue, sample: int) -> Estimate:
    """Return the catalogue's estimate of this size, made when it is first asked for."""
    if sample not in catalogue.estimates:
        catalogue.estimates[sample] = Estimate(catalogue, sample)
    found = catalogue.estimates[sample]
    assert isinstance(found, Estimate)
    return found


def error_of(
    catalogue: Catalogue, queries: Tensor, candidates: int, sample: int
) -> dict[str, float]:
    """Return how far the estimate is from the truth for these query vectors [Q, D], in nats.

    `bias` is the mean of estimate - truth, `mean_abs` and `max_abs` are of its size; candidates are the
    exact best, as in a step that searches the index.
    """
    assert catalogue.table is not None and catalogue.index is not None
    estimate, state = estimate_of(catalogue, sample), ReencodedState(queries, NO_WINDOWS)
    nothing = Closed([np.zeros(0, dtype=np.int64)] * len(queries))
    found = catalogue.search(state, nothing, 1, min(candidates, catalogue.n_items))
    shortlist = Shortlist.of_found(*found, catalogue.n_items, complete=False)
    outside = estimate.outside(shortlist.known)
    none = torch.empty(len(queries), 0)
    error = estimate.log_z(state, shortlist, outside, none) - exact_log_z(catalogue, queries)
    return {
        "queries": len(queries),
        "candidates": candidates,
        "sample": len(estimate.items),
        "bias": float(error.mean()),
        "mean_abs": float(error.abs().mean()),
        "max_abs": float(error.abs().max()),
    }


def exact_log_z(catalogue: Catalogue, queries: Tensor) -> Tensor:
    """Return log Z of query vectors [Q, D], float64 [Q], in chunks of items; for plain products."""
    assert catalogue.table is not None
    scaled, table = catalogue.logits_of(queries), catalogue.table
    total = torch.full((len(scaled),), -torch.inf, dtype=torch.float64)
    rows = block_rows(CHUNK)
    for at in range(0, len(scaled), rows):
        for low in range(PAD + 1, len(table), CHUNK):
            part = scaled[at : at + rows] @ table[low : low + CHUNK].T
            upto = torch.logsumexp(part, dim=1).double()
            total[at : at + rows] = torch.logaddexp(total[at : at + rows], upto)
    return total
