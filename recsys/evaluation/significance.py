"""Is one model better than another: paired tests over users, corrected for their number."""

from __future__ import annotations

import numpy as np

from recsys.evaluation.metrics import Float64

BLOCK_SIGNS = 1 << 22
"""Signs held at once: 32 MiB of float64."""


def permutation_test(differences: Float64, permutations: int, rng: np.random.Generator) -> Float64:
    """Return the two-sided p-value of each column's mean difference, float64 [M].

    `differences` [U, M] are model A less model B, one row a user. Were the models equally good, each
    user's difference could as well have the other sign; so the signs are flipped at random,
    `permutations` times (all columns share the flips). p = (1 + h) / (1 + permutations), where h
    counts the flips whose mean is at least as far from zero as the real one. Without any difference
    p is 1.
    """
    n, columns = differences.shape
    total = differences.sum(axis=0)
    # Sums of other signs can miss the real one by rounding only; they count as equal.
    limit = np.abs(total) * (1.0 - 1e-9) - 1e-12
    beyond = np.zeros(columns, dtype=np.int64)
    step = max(1, BLOCK_SIGNS // max(n, 1))
    for at in range(0, permutations, step):
        rows = min(step, permutations - at)
        # Whole 64-bit words a row, so that the flips do not depend on the size of a block.
        bits = np.frombuffer(rng.bytes(rows * 8 * -(-n // 64)), dtype=np.uint8).reshape(rows, -1)
        positive = np.unpackbits(bits, axis=1, count=n).astype(np.float64)
        flipped = 2.0 * (positive @ differences) - total
        beyond += (np.abs(flipped) >= limit).sum(axis=0)
    return np.asarray((1.0 + beyond) / (1.0 + permutations), dtype=np.float64)


def holm(p_values: Float64) -> Float64:
    """Return Holm's corrected p-values: the i-th smallest of m times (m - i + 1), never decreasing.

    Rejecting where the result is below alpha keeps the chance of any false rejection below alpha. At
    most 1; ties by position.

    >>> holm(np.array([0.01, 0.04, 0.03]))
    array([0.03, 0.06, 0.06])
    """
    m = len(p_values)
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * (m - np.arange(m)))
    corrected = np.empty(m)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected
