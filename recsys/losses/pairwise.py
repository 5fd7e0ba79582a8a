"""Losses of the target against single negatives: BCE, gBCE and BPR."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from recsys.losses.contract import Loss
from recsys.losses.negatives import NegativeSampler
from recsys.losses.scores import sampled_scores


class BCE(Loss):
    """Binary cross-entropy of one target and N negatives, generalised by `beta` to gBCE.

    For a token with target y, negatives J (draws of y itself are left out) and s_i = <q, v_i> /
    temperature:

        loss = -( beta log sigmoid(s_y) + sum_{j in J} log sigmoid(-s_j) ) / (|J| + 1)

    beta = 1 is BCE. gBCE (Petrov and Macdonald 2023) takes `gbce_beta`.
    """

    def __init__(
        self, sampler: NegativeSampler, *, beta: float = 1.0, temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.sampler = sampler
        self.beta = beta
        self.temperature = temperature

    def forward(self, queries: Tensor, targets: Tensor, table: Tensor) -> Tensor:
        """Return the mean loss; shapes as in `Loss.forward`."""
        negatives, _ = self.sampler(targets)
        positive, scores = sampled_scores(queries, targets, negatives, table, self.temperature)
        kept = negatives != targets[:, None]  # [T, N]
        total = self.beta * logsigmoid(positive) + (logsigmoid(-scores) * kept).sum(1)
        losses: Tensor = -total / (kept.sum(1) + 1)
        return losses.sum() / max(1, len(losses))

    def reseed(self, seed: int) -> None:
        """Restart the negative sampler."""
        self.sampler.reseed(seed)


class BPR(Loss):
    """Bayesian personalised ranking (Rendle et al. 2009) against the mean of N negatives.

    For a token with target y, negatives J (draws of y itself are left out) and s_i = <q, v_i> /
    temperature:

        loss = -1 / |J| * sum_{j in J} log sigmoid(s_y - s_j),    0 where J is empty
    """

    def __init__(self, sampler: NegativeSampler, *, temperature: float = 1.0) -> None:
        super().__init__()
        self.sampler = sampler
        self.temperature = temperature

    def forward(self, queries: Tensor, targets: Tensor, table: Tensor) -> Tensor:
        """Return the mean loss; shapes as in `Loss.forward`."""
        negatives, _ = self.sampler(targets)
        positive, scores = sampled_scores(queries, targets, negatives, table, self.temperature)
        kept = negatives != targets[:, None]  # [T, N]
        total = (logsigmoid(positive[:, None] - scores) * kept).sum(1)
        losses: Tensor = -total / kept.sum(1).clamp(min=1)
        return losses.sum() / max(1, len(losses))

    def reseed(self, seed: int) -> None:
        """Restart the negative sampler."""
        self.sampler.reseed(seed)


def gbce_beta(t: float, negatives: int, n_items: int) -> float:
    """Return gBCE's exponent of the positive probability, from calibration `t` in [0, 1].

    With the sampling rate a = negatives / (n_items - 1), beta = a (t (1 - 1/a) + 1/a): t = 0 gives 1
    (plain BCE), t = 1 gives a (calibrated). A rate above 1 counts as 1.
    """
    rate = min(1.0, negatives / max(1, n_items - 1))
    return rate * (t * (1 - 1 / rate) + 1 / rate)
