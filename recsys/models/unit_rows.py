"""Vectors of length 1, with a gradient that costs only the rows that have one.

A sampled loss reads a few of a table's rows, but autograd takes every row of the table back through the
division by its length, which is several passes over memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

SMALLEST = 1e-12
"""Lengths below it count as it, as in `torch.nn.functional.normalize`."""


def unit_rows(table: Tensor) -> Tensor:
    """Return the rows of [V, D] divided by their Euclidean lengths; a row of zeros stays.

    The same as `F.normalize(table, dim=-1)`, gradients included: what autograd would do is done to the
    rows of the table whose gradient is not 0. On the CPU only: on a GPU, to find these rows would make
    the host wait for the device. A row of NaN that nothing reads has a gradient of 0; PyTorch's would be
    NaN. There are no second derivatives.
    """
    plain = table.device.type != "cpu" or torch.compiler.is_compiling()
    if plain or table.dim() != 2 or not (table.requires_grad and torch.is_grad_enabled()):
        return F.normalize(table, dim=-1)
    rows: Tensor = _UnitRows.apply(table)  # type: ignore[no-untyped-call]
    return rows


class _UnitRows(torch.autograd.Function):
    """y = x / n with n = max(|x|, SMALLEST), row by row.

    With g the gradient by y and c = sum(-g x / n^2) that by n, the gradient by x is g / n + c x / |x|;
    the second part is 0 where the length is below SMALLEST. The order of the operations is
    autograd's, so that the result is.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(table, dim=1, keepdim=True)  # [V, 1]
        ctx.save_for_backward(table, length)
        return table / length.clamp_min(SMALLEST)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        table, length = ctx.saved_tensors
        # The largest of a row is the cheapest question, and it is NaN where one of them is.
        rows = grad.abs().amax(1).nonzero()[:, 0]  # [R]
        x, size, g = (tensor.index_select(0, rows) for tensor in (table, length, grad))
        n = size.clamp_min(SMALLEST)
        by_length = (x / n).div_(n).mul_(g).neg_().sum(1, keepdim=True)  # [R, 1]
        by_length = by_length.masked_fill(size < SMALLEST, 0.0)
        found = (x / size).masked_fill_(size == 0, 0.0).mul_(by_length).add_(g.div_(n))
        return torch.zeros_like(grad).index_copy_(0, rows, found)
