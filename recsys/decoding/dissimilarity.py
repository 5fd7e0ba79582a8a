"""How much a candidate of a later group is like what earlier groups chose: the penalty, at least 0.

Every kind returns what is to be *subtracted*, times the strength, from a candidate's log-probability.
(The paper, Vijayakumar et al. 2016, arXiv 1610.02424, adds a dissimilarity; its cumulative form is
printed as a similarity, which added would reward copies.)

    hamming      how often earlier lists chose the item
    presence     1 if any of them did
    cumulative   sum over earlier lists of exp(-places where the two lists differ / decay)
    ngram        how often the n-gram that ends with the item stands anywhere in earlier lists
    vector       sum over earlier items of max(0, cosine of the item vectors)
    category     how many earlier items have the item's label

"Earlier" are the lists of the groups before in this step. The first, second and last two look at the
items chosen in the same step, or in the whole list so far (`scope`).

Shapes: N requests, b lists of the group, C candidates, E lists of earlier groups, S places so far, this
one included for earlier lists.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recsys.data.sequences import Int64
from recsys.decoding.settings import SearchSettings
from recsys.decoding.shortlist import Float32, Shortlist
from recsys.schema import PAD

FEW = 256
"""Pairs of a candidate and an item, in each row, that are compared as they are."""


@dataclass(frozen=True)
class ItemFacts:
    """What tells items apart besides their numbers.

    Attributes:
        vectors: float32 [n_items + 1, D] for `vector`.
        labels: int64 [n_items + 1] for `category`, below 0 where an item has none.
    """

    vectors: Tensor | None = None
    labels: Int64 | None = None


def penalty(
    settings: SearchSettings,
    shortlist: Shortlist,
    own: Int64,
    earlier: Int64,
    facts: ItemFacts,
) -> Float32:
    """Return the penalties float32 [N, b, C] of a group's candidates.

    Args:
        settings: kind, scope and its numbers.
        shortlist: the candidates, N * b rows.
        own: int64 [N, b, S - 1], the group's lists so far.
        earlier: int64 [N, E, S], those of the groups before; PAD stands for a list that has ended.
        facts: for the kinds that need them.
    """
    n, lists, _ = own.shape
    scoped = earlier[:, :, -1] if settings.scope == "step" else earlier.reshape(n, -1)
    match settings.dissimilarity:
        case "hamming":
            return _count(shortlist, _for_rows(scoped, lists)).reshape(n, lists, -1)
        case "presence":
            counted = _count(shortlist, _for_rows(scoped, lists))
            return counted.clip(max=1.0).reshape(n, lists, -1)
        case "cumulative":
            return _cumulative(settings.decay, shortlist, own, earlier)
        case "ngram":
            return _ngrams(settings.ngram, shortlist, own, earlier)
        case "vector":
            assert facts.vectors is not None
            return _cosine(facts.vectors, shortlist, scoped).reshape(n, lists, -1)
        case "category":
            assert facts.labels is not None
            return _labels(facts.labels, shortlist, scoped, lists).reshape(n, lists, -1)


def _for_rows(items: Int64, lists: int) -> Int64:
    """Give every list of a request the request's items [N, X], [N * b, X]."""
    return np.repeat(items, lists, axis=0)


def _count(shortlist: Shortlist, items: Int64, weights: Float32 | None = None) -> Float32:
    """Add up how often (or with what weight) each candidate is among `items` [R, X], [R, C]."""
    if shortlist.ids.shape[1] * items.shape[1] <= FEW:
        alike = shortlist.ids[:, :, None] == items[:, None, :]  # [R, C, X]; PAD is no candidate
        each = np.float32(1.0) if weights is None else weights[:, None]
        few: Float32 = np.where(alike, each, np.float32(0.0)).sum(2)
        return few
    column = shortlist.find(np.where(items == PAD, -1, items))
    counted = np.zeros(shortlist.ids.shape, dtype=np.float32)
    row, _ = hit = np.nonzero(column >= 0)
    np.add.at(counted, (row, column[hit]), 1.0 if weights is None else weights[hit])
    return counted


def _cumulative(decay: float, shortlist: Shortlist, own: Int64, earlier: Int64) -> Float32:
    """exp(-m / decay), m the places where the lists differ, the candidate's place included."""
    n, lists, before = own.shape
    differ = (own[:, :, None, :] != earlier[:, None, :, :before]).sum(3)  # [N, b, E]
    ended = (earlier[:, :, -1] == PAD)[:, None]  # [N, 1, E]
    kept = np.where(ended, 0.0, np.exp(-differ / decay)).astype(np.float32)  # [N, b, E]
    other = np.float32(np.exp(-1.0 / decay))  # of a candidate that differs, too
    weights = (kept * (1.0 - other)).reshape(n * lists, -1)
    equal = _count(shortlist, _for_rows(earlier[:, :, -1], lists), weights)
    total: Float32 = equal.reshape(n, lists, -1) + other * kept.sum(2, keepdims=True)
    return total


def _ngrams(size: int, shortlist: Shortlist, own: Int64, earlier: Int64) -> Float32:
    n, lists, before = own.shape
    total = earlier.shape[2]
    nothing = np.zeros((n, lists, shortlist.ids.shape[1]), dtype=np.float32)
    if before < size - 1:  # no n-gram ends here yet
        return nothing
    context = own[:, :, before - size + 1 :]  # [N, b, n - 1]
    windows = np.lib.stride_tricks.sliding_window_view(earlier, size, axis=2)  # [N, E, P, n]
    match = (windows[:, None, :, :, : size - 1] == context[:, :, None, None, :]).all(4)
    last = np.broadcast_to(windows[:, None, :, :, -1], match.shape)  # [N, b, E, P]
    assert match.shape[3] == total - size + 1
    items = np.where(match, last, PAD).reshape(n * lists, -1)
    return _count(shortlist, items).reshape(nothing.shape)


def _cosine(vectors: Tensor, shortlist: Shortlist, items: Int64) -> Float32:
    """Sum over the request's earlier items [N, X] of max(0, cosine), [R, C]; PAD is like nothing."""
    n = len(items)
    normalise = torch.nn.functional.normalize
    candidates = normalise(vectors[torch.from_numpy(shortlist.known)], dim=-1)  # [R, C, D]
    others = normalise(vectors[torch.from_numpy(items)], dim=-1)  # [N, X, D]
    others = others.masked_fill(torch.from_numpy(items == PAD)[:, :, None], 0.0)
    flat = candidates.reshape(n, -1, candidates.shape[2])  # [N, b * C, D]
    alike = torch.bmm(flat, others.transpose(1, 2)).clamp_(min=0.0).sum(2)
    found: Float32 = alike.reshape(shortlist.ids.shape).numpy()
    return found


def _labels(labels: Int64, shortlist: Shortlist, items: Int64, lists: int) -> Float32:
    """Count the request's earlier items [N, X] of each candidate's label, [R, C]."""
    earlier = np.where(items == PAD, -1, labels[items])  # [N, X]
    earlier = np.where(earlier < 0, -1, earlier)
    own = labels[shortlist.known]  # [R, C]
    own = np.where((own < 0) | (shortlist.known == PAD), -2, own)
    same = own[:, :, None] == _for_rows(earlier, lists)[:, None, :]
    counted: Float32 = same.sum(2).astype(np.float32)
    return counted
