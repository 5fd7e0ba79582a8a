"""Retrieval: which items may be recommended, and the best of them."""

from __future__ import annotations

from recsys.retrieval.exclusion import Exclusion, Histories
from recsys.retrieval.topk import exact_topk, topk_rows

__all__ = ["Exclusion", "Histories", "exact_topk", "topk_rows"]
