"""The query vector for somebody without a history."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.data.sequences import Int64


def popularity_query(table: Tensor, item_counts: Int64) -> Tensor:
    """Return the q [D] that minimises KL(popularity || softmax(table q)) over items 1..V.

    The problem is convex in q; a small ridge keeps it bounded when the table cannot tell items apart.

    Args:
        table: item vectors float [V + 1, D]; row 0 (PAD) is left out.
        item_counts: training events per item, int64 [V + 1].
    """
    counts = torch.from_numpy(item_counts[1:]).double()
    if counts.sum() == 0:
        return torch.zeros(table.shape[1])
    share = counts / counts.sum()
    items = table[1:].detach().cpu().double()
    query = torch.zeros(items.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([query], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = items @ query
        loss = torch.logsumexp(logits, 0) - share @ logits + 1e-6 * query.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    return query.detach().float()
