"""What metrics are called on a page, in a table and on a chart, and which way is better."""

from __future__ import annotations

from typing import Final

LABELS: Final = {
    "hr": "HR",
    "recall": "Recall",
    "ndcg": "NDCG",
    "mrr": "MRR",
    "map": "MAP",
    "precision": "Precision",
    "r_precision": "R-precision",
    "clicks": "Clicks",
    "next_hr": "Next-item HR",
    "next_recall": "Recall of the next k",
    "coverage": "Coverage",
    "gini": "Gini",
    "novelty": "Novelty",
    "ild": "Intra-list distance",
}
LOWER_IS_BETTER: Final = ("gini", "clicks")
PREFERRED_K: Final = 10


def label(metric: str, k: int | None = None) -> str:
    """Return a metric's name with its cut-off.

    >>> label("ndcg", 10)
    'NDCG@10'
    """
    name = LABELS.get(metric, metric)
    return name if k is None else f"{name}@{k}"


def nearest_k(ks: list[int]) -> int:
    """Return the cut-off that is shown first: 10, or the nearest that was measured."""
    return min(ks, key=lambda value: (abs(value - PREFERRED_K), value))


def number(value: float | None) -> str:
    """Return a figure as tables show it: four decimals below ten, two above; n/a for none."""
    if value is None:
        return "n/a"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def p_text(value: float) -> str:
    """Return a p-value as tables show it."""
    return f"{value:.4f}" if value >= 0.0001 else f"{value:.1e}"
