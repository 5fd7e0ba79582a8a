"""Items made of the items consumed together with them (UniRec's G_phi), for rare ones above all.

    alpha_n = softmax_n( m_i.m_n ),    a_i = sum_n alpha_n m_n,    G(i) = W [m_i ; a_i] + b

over the neighbours n of item i; G may also read a_i alone. Shapes: N neighbours, D width; leading
dimensions are free.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class ItemEnhancer(nn.Module):
    """The map G from an item's vector and its neighbours' to what they say it should be.

    With `reads_own` off, the item's vector only weighs its neighbours.
    """

    def __init__(self, width: int, *, reads_own: bool = True) -> None:
        super().__init__()
        self.reads_own = reads_own
        self.out = nn.Linear(2 * width if reads_own else width, width)
        self.init_weights()

    def init_weights(self) -> None:
        """Draw the map from N(0, 1 / 2 D), without the item's vector N(0, 1 / D); no bias at first."""
        nn.init.normal_(self.out.weight, std=self.out.in_features**-0.5)
        nn.init.zeros_(self.out.bias)

    def forward(self, own: Tensor, neighbours: Tensor, *, frozen: bool = False) -> Tensor:
        """Return G for vectors [..., D] and neighbours' vectors [..., N, D], float [..., D].

        `frozen` keeps the gradient from W and b.
        """
        weight: Tensor = self.out.weight.detach() if frozen else self.out.weight
        bias: Tensor = self.out.bias.detach() if frozen else self.out.bias
        made = aggregate(own, neighbours)
        return F.linear(torch.cat([own, made], dim=-1) if self.reads_own else made, weight, bias)


def aggregate(own: Tensor, neighbours: Tensor) -> Tensor:
    """Return a = sum_n softmax_n(own.n) n, float [..., D], for vectors [..., D] and [..., N, D].

    There are no second derivatives.
    """
    near = neighbours.reshape(-1, *neighbours.shape[-2:])  # [R, N, D]
    flat: Tensor = _Aggregate.apply(own.reshape(-1, own.shape[-1]), near)  # type: ignore[no-untyped-call]
    return flat.view_as(own)


class _Aggregate(torch.autograd.Function):
    """a = sum_n alpha_n n with alpha = softmax_n(own.n), row by row.

    With g the gradient by a: that by alpha is g.n, that by the products own.n is
    s = alpha (g.n - sum_n alpha_n g.n), and those by n and own are alpha_n g + s_n own and sum_n s_n n.
    By hand, because autograd goes over [R, N, D] twice as often and keeps one more of it.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, near: Tensor) -> Tensor:
        alpha = torch.bmm(near, own[..., None])[..., 0].softmax(dim=-1)  # [R, N]
        alpha = alpha.to(near.dtype)  # autocast makes float32 of it on a GPU
        ctx.save_for_backward(own, near, alpha)
        return torch.bmm(alpha[:, None], near)[:, 0]  # [R, D]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        own, near, alpha = ctx.saved_tensors
        grad = grad.to(near.dtype)  # it is that of the product, which autocast makes
        by_alpha = torch.bmm(near, grad[..., None])[..., 0]  # [R, N]
        by_product = alpha * (by_alpha - (alpha * by_alpha).sum(dim=-1, keepdim=True))
        by_own = torch.bmm(by_product[:, None], near)[:, 0]
        by_near = alpha[..., None] * grad[:, None]
        return by_own, by_near.addcmul_(by_product[..., None], own[:, None])
