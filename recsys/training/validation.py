"""Validation while training: full ranking by the same code as the evaluation's."""

from __future__ import annotations

import numpy as np

from recsys.evaluation.intervals import user_means
from recsys.evaluation.metrics import Float64, Places, hit_rate, ndcg
from recsys.evaluation.ranked import RankedTargets

CUTOFF = 10


def means_by_user(ranked: RankedTargets) -> Float64:
    """Return each user's mean NDCG@10 and HR@10 over his targets, float64 [users, 2]."""
    places = Places.of(ranked.ranks, ranked.offsets)
    values = np.stack([ndcg(places, CUTOFF), hit_rate(places, CUTOFF)], axis=1)
    return user_means(values, ranked.user)[1]
