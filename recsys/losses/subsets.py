"""Exact sums over all orders of a few things, by their 2^K subsets instead of their K! orders.

For steps with a log weight that depends on what came before as a set only, the sum over orders of the
product of the steps' weights obeys

    f(empty) = 1,    f(A) = sum_{i in A} f(A without i) step(A without i, i)

(Plackett-Luce without a given order, permanents, decoders that pool what they have written.) Every term
is positive, so it is stable in the log domain; it costs K 2^K.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor

from recsys.losses.set_scores import NONE

MAX_MEMBERS = 14
"""Larger sets are refused: 2^14 subsets of 14 steps each, in float64, are two megabytes a set."""


class Layer(NamedTuple):
    """All subsets of one size c; a subset is written as the number whose bits are its members.

    Attributes:
        subsets: int64 [N].
        members: int64 [N, c], ascending.
        smaller: int64 [N, c], the subset without that member, as its place in the layer below.
        smaller_bits: int64 [N, c], the same as a number.
    """

    subsets: Tensor
    members: Tensor
    smaller: Tensor
    smaller_bits: Tensor


def sum_over_orders(log_steps: Tensor, mask: Tensor) -> Tensor:
    """Return log f of each row's whole set, float [B]; 0 for an empty one.

    Args:
        log_steps: float [B, 2^K, K], log step(A, i) at [b, A, i]; read where i is not in A.
        mask: bool [B, K], which things a row has; steps of the others are not read.
    """
    count = log_steps.shape[2]
    steps = log_steps.masked_fill(~mask[:, None, :], NONE)
    values = steps.new_zeros(len(steps), 1)  # log f of the layer's subsets, [B, N]
    found, bits = [values], [torch.zeros(1, dtype=torch.int64)]
    for layer in layers(count):
        into = steps[:, layer.smaller_bits, layer.members]  # [B, N, c]
        values = (values[:, layer.smaller] + into).logsumexp(2)
        found.append(values)
        bits.append(layer.subsets)
    place = torch.cat(bits).argsort().to(steps.device)  # of a subset's number in `found`
    whole = (mask.long() << torch.arange(count, device=mask.device)).sum(1)  # [B]
    return torch.cat(found, 1).gather(1, place[whole][:, None])[:, 0]


@lru_cache(maxsize=MAX_MEMBERS + 1)
def layers(count: int) -> tuple[Layer, ...]:
    """Return the layers of size 1 to `count` of `count` things."""
    if count > MAX_MEMBERS:
        raise ValueError(
            f"{count} members have {2**count:,} subsets; at most {MAX_MEMBERS} are summed exactly"
        )
    result = []
    below = {0: 0}
    for size in range(1, count + 1):
        members = list(combinations(range(count), size))
        subsets = [sum(1 << i for i in group) for group in members]
        bits = [[s - (1 << i) for i in group] for s, group in zip(subsets, members, strict=True)]
        result.append(
            Layer(
                torch.tensor(subsets),
                torch.tensor(members),
                torch.tensor([[below[one] for one in row] for row in bits]),
                torch.tensor(bits),
            )
        )
        below = {subset: place for place, subset in enumerate(subsets)}
    return tuple(result)


def membership(count: int, device: torch.device) -> Tensor:
    """Return which of `count` things are in each subset, by its number, bool [2^K, K]."""
    if count > MAX_MEMBERS:
        layers(count)  # refuses
    numbers = torch.arange(2**count, device=device)
    return (numbers[:, None] >> torch.arange(count, device=device)) % 2 == 1
