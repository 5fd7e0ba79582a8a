"""Items that are like an item: by the cosine of their vectors, or by what follows them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from recsys.bundle import Bundle
from recsys.data.batches import batch_from_lists
from recsys.data.sequences import Int64
from recsys.recommender.resolve import check_k
from recsys.retrieval import Exclusion, Histories, topk_rows
from recsys.retrieval.blocks import block_rows
from recsys.schema import PAD

Pair = tuple[list[int], list[float]]
"""Item indices, best first, and their scores."""


class Likeness:
    """Finds the items most like others.

    Args:
        bundle: a loaded bundle.
        device: where the model is.
    """

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        self.bundle = bundle
        self._device = device
        self.removed: Int64 = np.zeros(0, dtype=np.int64)
        self._lengths = None if bundle.index is None else bundle.index.lengths

    def answer(self, requests: Sequence[tuple[Sequence[str], int]]) -> list[dict[str, Pair]]:
        """Answer several requests `(item ids, k)` together, in order; unknown ids are left out.

        An item that several ask for is compared once; memory is bounded by blocks of items.
        """
        for _, k in requests:
            check_k(k)
        distinct = list(dict.fromkeys(name for item_ids, _ in requests for name in item_ids))
        if not distinct:
            return [{} for _ in requests]
        indices = self.bundle.item_ids.encode(distinct).astype(np.int64)
        names = [name for name, index in zip(distinct, indices, strict=True) if index != PAD]
        answers = self.nearest(indices[indices != PAD], max(k for _, k in requests))
        found = dict(zip(names, answers, strict=True))
        return [
            {name: _cut(found[name], k) for name in dict.fromkeys(item_ids) if name in found}
            for item_ids, k in requests
        ]

    def nearest(self, known: Int64, k: int) -> list[Pair]:
        """Return the k items most like each known one, never itself nor a removed one."""
        n_items, answers = self.bundle.model.n_items, list[Pair]()
        step = block_rows(n_items + 1)
        for at in range(0, len(known), step):
            part = known[at : at + step]
            own = [[index] for index in part.tolist()]
            scores = self._scores(part, own)  # [b, n_items + 1]
            Exclusion(blocked=self.removed).mask_(scores, Histories.from_lists(own))
            answers += pairs(*topk_rows(scores, min(k, n_items)))
        return answers

    def _scores(self, known: Int64, own: list[list[int]]) -> Tensor:
        """Return how like every item is to each known one, [B, n_items + 1]."""
        if self.bundle.index is not None and self._lengths is not None:
            columns, mine = self.bundle.index.columns, torch.from_numpy(known)
            unit = columns[:, mine] / self._lengths[mine]  # [D, B]
            return (unit.T @ columns).div_(self._lengths)
        zeros = [[0]] * len(own)
        # Of one event there are no gaps, so any time will do.
        batch = batch_from_lists(own, zeros, 1, zeros)
        return self.bundle.model.score(batch.to(self._device)).float().cpu().clone()


def _cut(pair: Pair, k: int) -> Pair:
    return pair[0][:k], pair[1][:k]


def pairs(items: Tensor, scores: Tensor) -> list[Pair]:
    """Turn padded rows into lists without padding."""
    lengths = (items >= 0).sum(1).tolist()
    rows = zip(items.tolist(), scores.tolist(), lengths, strict=True)
    return [(i[:n], s[:n]) for i, s, n in rows]
