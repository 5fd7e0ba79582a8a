"""Re-rankers: a diverse list chosen from scored candidates."""

from __future__ import annotations

from recsys.decoding.rerank.dpp import dpp
from recsys.decoding.rerank.mmr import mmr
from recsys.decoding.rerank.quotas import round_robin, within_quota

__all__ = ["dpp", "mmr", "round_robin", "within_quota"]
