"""Sampled softmax with logQ correction, for catalogues too large for the full softmax."""

from __future__ import annotations

import torch
from torch import Tensor

from recsys.losses.contract import Loss
from recsys.losses.negatives import NegativeSampler
from recsys.losses.scores import sampled_scores


class SampledSoftmax(Loss):
    """Softmax cross-entropy against drawn negatives.

    For a token with target y, negatives j_1..j_N drawn with probability Q and s_i = <q, v_i> /
    temperature:

        loss = -s_y + log( exp(s_y) + sum over n with j_n != y of exp(s_jn - log(N Q(jn))) )

    N Q(i) is how often item i is expected among the negatives, so the sum is an unbiased estimate
    of the rest of the softmax's denominator, and the loss tends to the full softmax as N grows. The
    target itself is in the sum exactly once: its expected count is 1 and its correction log 1 = 0.
    Draws of the target (accidental hits) are left out. Without `logq`, log(N Q) is replaced by 0.
    """

    def __init__(
        self, sampler: NegativeSampler, *, logq: bool = True, temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.sampler = sampler
        self.logq = logq
        self.temperature = temperature

    def forward(self, queries: Tensor, targets: Tensor, table: Tensor) -> Tensor:
        """Return the mean loss; shapes as in `Loss.forward`."""
        negatives, log_count = self.sampler(targets)
        positive, scores = sampled_scores(queries, targets, negatives, table, self.temperature)
        if self.logq:
            scores = scores - log_count.to(scores.dtype)
        scores = scores.masked_fill(negatives == targets[:, None], -torch.inf)  # [T, N]
        losses = torch.cat([positive[:, None], scores], 1).logsumexp(1) - positive
        return losses.sum() / max(1, len(losses))

    def reseed(self, seed: int) -> None:
        """Restart the negative sampler."""
        self.sampler.reseed(seed)
