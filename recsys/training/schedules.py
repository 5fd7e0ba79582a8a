"""When UniRec's enhancements act: weights by the progress of training, the history's length, rarity.

The published code counts epochs e of 220 planned ones; here progress = e / 220, so that a schedule fits
any number of planned epochs. Source: UniRec (CIKM 2024, arXiv 2406.18470), public code.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

PLANNED: Final = 220.0
BEGINS: Final = 100.0 / PLANNED
"""When the sequence enhancement begins, and the item enhancement turns from easy items to hard ones."""
RISE: Final = 120.0 / PLANNED
SHORTEST: Final = 3


def sequence_weight(progress: float, kept: Tensor, max_length: int) -> Tensor:
    """Return |sin(pi/2 [(progress - 100/220) / (120/220) + (kept - 3) / max_length])|, float.

    `kept` is how many events the irregular part of a history has.
    """
    angle = (progress - BEGINS) / RISE + (kept - SHORTEST) / float(max_length)
    return torch.sin(0.5 * math.pi * angle).abs()


def frequent_weight(progress: float, rank: Tensor, *, signed: bool = False) -> Tensor:
    """Return sin(pi/2 [(progress - 100/220) / (120/220) + (100 - rank) / 100]), not below 0.

    `rank` is an item's rarity, 0 (most frequent) to 100: frequent items first, rarer ones later.
    `signed` keeps negative weights, as the published code does.
    """
    angle = (progress - BEGINS) / RISE + (100.0 - rank) / 100.0
    weight = torch.sin(0.5 * math.pi * angle)
    return weight if signed else weight.clamp(min=0.0)


def rare_weight(progress: float) -> float:
    """Return sin(pi/2 progress): the rare items' part grows from 0 to 1."""
    return math.sin(0.5 * math.pi * progress)
