"""Samplers of negative items, with the expected counts that logQ correction needs."""

from __future__ import annotations

import math
from typing import Final, Literal

import torch
from torch import Tensor, nn

from recsys.data.sequences import Int64

SamplerName = Literal["uniform", "popularity", "in_batch"]

RESOLUTION: Final = 2**52
"""Probabilities are multiples of one part in this."""


class NegativeSampler(nn.Module):
    """Draws items 1..V with replacement, independently of the targets.

    The probability of item i is, with c_i its training events:

        uniform      1 / V
        popularity   max(c_i, 1)^alpha / sum_j max(c_j, 1)^alpha   (unseen items can be drawn)
        in_batch     c_i / sum_j c_j: the targets of the batch are the negatives of all its tokens

    Args:
        item_counts: int64 [V + 1], training events per item; index 0 is ignored.
        count: negatives per token (`share: token`) or per batch (`share: batch`); `in_batch` has as
            many as the batch has tokens, whatever `count` says.
        shared: one draw for the whole batch.
    """

    log_probability: Tensor  # [V + 1]
    cumulative: Tensor  # [V]

    def __init__(
        self,
        name: SamplerName,
        item_counts: Int64,
        count: int,
        *,
        shared: bool,
        alpha: float = 0.75,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.name = name
        self.n_items = len(item_counts) - 1
        self.count = count
        self.shared = shared or name == "in_batch"
        probability = _probability(name, torch.from_numpy(item_counts).double(), alpha)
        # Integers, because some devices have no float64 and float32 would distort rare items.
        cumulative = (probability[1:].cumsum(0) * RESOLUTION).round().long()
        self.register_buffer("log_probability", probability.log().float(), persistent=False)
        self.register_buffer("cumulative", cumulative, persistent=False)  # [V]
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Restart the stream of negatives."""
        self._seed = seed
        self._generator: torch.Generator | None = None

    def forward(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return `(negatives, log expected count of each)`, both [T, N], or [N] where shared.

        The expected count of an item is N times its probability.
        """
        if self.name == "in_batch":
            return targets, self._log_count(targets)
        return self.draw(len(targets), targets.device)

    def draw(self, tokens: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the same without looking at targets, which `in_batch` cannot do."""
        if self.name == "in_batch":
            raise ValueError("sampler in_batch has no negatives of its own")
        shape = (self.count,) if self.shared else (tokens, self.count)
        negatives = self._draw(shape, device)
        return negatives, self._log_count(negatives)

    def _log_count(self, negatives: Tensor) -> Tensor:
        return self.log_probability[negatives] + math.log(max(1, negatives.shape[-1]))

    def _draw(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        generator = self._generator_on(device)
        if self.name == "uniform":
            return torch.randint(1, self.n_items + 1, shape, generator=generator, device=device)
        places = torch.randint(RESOLUTION, shape, generator=generator, device=device)
        drawn = torch.searchsorted(self.cumulative, places, right=True) + 1
        return drawn.clamp_(
            max=self.n_items
        )  # the last cumulative value may round below RESOLUTION

    def _generator_on(self, device: torch.device) -> torch.Generator:
        if self._generator is None or self._generator.device != device:
            self._generator = torch.Generator(device).manual_seed(self._seed)
        return self._generator


def _probability(name: SamplerName, counts: Tensor, alpha: float) -> Tensor:
    """Return the sampling probability of every item, float64 [V + 1], PAD 0."""
    weights = {
        "uniform": torch.ones_like(counts),
        "popularity": counts.clamp(min=1) ** alpha,
        "in_batch": counts.clone(),
    }[name]
    weights[0] = 0
    return weights / weights.sum()
