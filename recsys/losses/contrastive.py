"""In-batch contrastive loss: every history's own next item against the next items of the others.

    loss = - mean_i log( exp(cos(a_i, b_i) / t) / sum_j exp(cos(a_i, b_j) / t) )

over the pairs (a_i, b_i) of a batch, of all processes together; j runs over i and over the b_j that are
another item than b_i (equal items would be their own negatives). Source: Li et al. 2023 (arXiv
2305.13731), whose batches keep the duplicates and whose gather has no gradient, so that with W
processes this loss counts 1 / W of what it should beside others.

To have more pairs than fit into memory, encode them by `TextEncoder.encode(..., cached=True)`, which is
GradCache (Gao et al. 2021, arXiv 2101.06983).

Shapes: B pairs, D width, W processes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


def in_batch_contrast(
    anchors: Tensor, positives: Tensor, items: Tensor, temperature: float
) -> Tensor:
    """Return the mean loss over this process's pairs, a scalar; no pairs cost 0.

    The mean over processes is the loss of all pairs, and so is its gradient.

    Args:
        anchors: float [B, D], any length; compared in float32 also under autocast.
        positives: float [B, D].
        items: int64 [B], which item each positive is; equal ones do not compete.
        temperature: t above.
    """
    if len(anchors) == 0:
        return (anchors.sum() + positives.sum()) * 0.0
    with torch.autocast(anchors.device.type, enabled=False):
        a = F.normalize(anchors.float(), dim=1)
        b = F.normalize(positives.float(), dim=1)
        everything, every_item, first = gather_pairs(b, items)
        scores = a @ everything.T / temperature  # [B, W B]
        own = torch.arange(len(a), device=a.device) + first
        equal = items[:, None] == every_item
        equal[torch.arange(len(a), device=a.device), own] = False
        return F.cross_entropy(scores.masked_fill(equal, -torch.inf), own)


def gather_pairs(vectors: Tensor, items: Tensor) -> tuple[Tensor, Tensor, int]:
    """Return the vectors and items of all processes, and where one's own begin among them.

    The processes must have equally many. Gradients flow back to the process that a vector is of.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return vectors, items, 0
    if distributed.get_world_size() == 1:
        return vectors, items, 0
    gathered: Tensor = _Gather.apply(vectors)  # type: ignore[no-untyped-call]
    return gathered, _all_gather(items), distributed.get_rank() * len(vectors)


def _all_gather(own: Tensor) -> Tensor:
    parts = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, own.contiguous())
    return torch.cat(parts)


class _Gather(torch.autograd.Function):
    """Rows of all processes; the gradient of a row is the sum of what all processes have for it."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        ctx.rows = len(own)
        return _all_gather(own)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.contiguous()
        distributed.all_reduce(total)
        first = distributed.get_rank() * ctx.rows
        return total[first : first + ctx.rows]
