"""Full softmax cross-entropy over the catalogue, in chunks: [T, V] is never whole in memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recsys.losses.contract import Loss

CPU_CHUNK = 384
"""Tokens per chunk on a CPU: enough for efficient products, few enough to stay near the cache."""


class Softmax(Loss):
    """Cross-entropy of the softmax over all V items.

    For a token with query q, target y and scores s_i = <q, v_i> / temperature, i = 1..V:

        loss = logsumexp_i(s_i) - (1 - e) s_y - e / V * sum_i s_i,    e = label_smoothing

    averaged over tokens. Equal to `torch.nn.functional.cross_entropy` on the whole logits, but
    logits exist for one chunk of tokens at a time, in float32 (float64 for float64 inputs) also
    under autocast, and the gradient is made in the forward pass while the chunk is at hand: three
    matrix products per chunk, nothing is computed twice. The table's gradient is dense.

    Args:
        memory_mb: largest block of logits, in 10^6 bytes; at least one token is processed at a time.
    """

    def __init__(
        self, *, temperature: float = 1.0, label_smoothing: float = 0.0, memory_mb: float = 256.0
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.label_smoothing = label_smoothing
        self.memory_mb = memory_mb

    def forward(self, queries: Tensor, targets: Tensor, table: Tensor) -> Tensor:
        """Return the mean cross-entropy; shapes as in `Loss.forward`."""
        if not torch.is_grad_enabled():  # then nothing of the gradient is computed
            queries, table = queries.detach(), table.detach()
        with torch.autocast(queries.device.type, enabled=False):
            loss: Tensor = _ChunkedSoftmax.apply(  # type: ignore[no-untyped-call]
                queries,
                table,
                targets,
                self.temperature,
                self.label_smoothing,
                chunk_rows(queries, table, self.memory_mb),
            )
        return loss


def chunk_rows(queries: Tensor, table: Tensor, memory_mb: float) -> int:
    """Return how many tokens' logits fit `memory_mb`, capped on a CPU where larger is slower."""
    row_bytes = (len(table) - 1) * max(4, queries.element_size())
    rows = max(1, int(memory_mb * 1e6 / max(1, row_bytes)))
    return min(rows, CPU_CHUNK) if queries.device.type == "cpu" else rows


class _ChunkedSoftmax(torch.autograd.Function):
    """Loss and gradients in one sweep over chunks of tokens."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,  # [T, D]
        table: Tensor,  # [V + 1, D]
        targets: Tensor,  # [T]
        temperature: float,
        smoothing: float,
        chunk: int,
    ) -> Tensor:
        dtype = torch.promote_types(torch.promote_types(queries.dtype, table.dtype), torch.float32)
        scaled = queries.to(dtype) / temperature  # [T, D]
        real = table.to(dtype)[1:]  # [V, D], PAD left out
        want_queries, want_table = ctx.needs_input_grad[:2]
        grad_queries = torch.empty_like(scaled) if want_queries else None
        grad_table = torch.zeros_like(table, dtype=dtype) if want_table else None
        mean_item = real.mean(0)  # the smoothed part needs no logits: sum_i s_i = <q, sum_i v_i>
        losses = torch.empty(len(scaled), dtype=dtype, device=scaled.device)
        block = torch.empty(min(chunk, len(scaled)), len(real), dtype=dtype, device=scaled.device)
        for start in range(0, len(scaled), chunk):
            part = slice(start, start + chunk)
            query, label = scaled[part], targets[part] - 1  # [C, D], [C]
            aim = (1 - smoothing) * real[label] + smoothing * mean_item  # [C, D]
            weights = torch.mm(query, real.T, out=block[: len(query)])  # [C, V] logits
            top = weights.amax(1, keepdim=True)
            total = weights.sub_(top).exp_().sum(1, keepdim=True)  # weights are exp(s - max) now
            losses[part] = (total.log() + top).squeeze(1) - (query * aim).sum(1)
            if grad_queries is not None:
                torch.mm(weights, real, out=grad_queries[part]).div_(total).sub_(aim)
            if grad_table is not None:
                grad_table[1:].addmm_(weights.T, query / total)
        if grad_table is not None:
            grad_table.index_add_(0, targets, scaled, alpha=smoothing - 1)
            grad_table[1:].sub_(scaled.sum(0), alpha=smoothing / len(real))
        count = max(1, len(scaled))
        ctx.grads = (
            None
            if grad_queries is None
            else grad_queries.div_(count * temperature).to(queries.dtype),
            None if grad_table is None else grad_table.div_(count).to(table.dtype),
        )
        return losses.sum() / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [None if g is None else g * grad for g in ctx.grads]
        return (*scaled, None, None, None, None)
