"""Items made of the items consumed together with them (UniRec's G_phi), for rare ones above all.

    alpha_n = softmax_n( m_i.m_n ),    a_i = sum_n alpha_n m_n,    G(i) = W [m_i ; a_i] + b

over the neighbours n of item i. Shapes: N neighbours, D width; leading dimensions are free.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ItemEnhancer(nn.Module):
    """The map G from an item's vector and its neighbours' to what they say it should be."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = nn.Linear(2 * width, width)
        self.init_weights()

    def init_weights(self) -> None:
        """Draw the map from N(0, 1 / 2 D); no bias at first."""
        nn.init.normal_(self.out.weight, std=self.out.in_features**-0.5)
        nn.init.zeros_(self.out.bias)

    def forward(self, own: Tensor, neighbours: Tensor, *, frozen: bool = False) -> Tensor:
        """Return G for vectors [..., D] and neighbours' vectors [..., N, D], float [..., D].

        `frozen` keeps the gradient from W and b.
        """
        weight: Tensor = self.out.weight.detach() if frozen else self.out.weight
        bias: Tensor = self.out.bias.detach() if frozen else self.out.bias
        return F.linear(torch.cat([own, aggregate(own, neighbours)], dim=-1), weight, bias)


def aggregate(own: Tensor, neighbours: Tensor) -> Tensor:
    """Return a = sum_n softmax_n(own.n) n, float [..., D]."""
    alpha = (neighbours @ own[..., None]).softmax(dim=-2)  # [..., N, 1]
    return (alpha * neighbours).sum(dim=-2)
