"""Encoders of sets: each takes items and a mask and returns one vector, whatever the items' order."""

from __future__ import annotations

from recsys.config.sets import (
    AttentionPoolConfig,
    DeepSetsConfig,
    MeanSetConfig,
    ReadProcessConfig,
    SetEncoderConfig,
    SetTransformerConfig,
    SIFConfig,
)
from recsys.models.sets.contract import SetEncoder

__all__ = ["SetEncoder", "build_set_encoder"]


def build_set_encoder(config: SetEncoderConfig, n_items: int) -> SetEncoder:
    """Return an untrained encoder of sets of a catalogue of `n_items` items."""
    match config:
        case MeanSetConfig():
            from recsys.models.sets.mean import MeanSet

            return MeanSet(n_items, config.width)
        case SIFConfig():
            from recsys.models.sets.mean import SIF

            return SIF(n_items, config.width, config.smoothing)
        case DeepSetsConfig():
            from recsys.models.sets.deep_sets import DeepSets

            return DeepSets(n_items, config.width, config.pooling)
        case AttentionPoolConfig():
            from recsys.models.sets.attention import AttentionPool

            return AttentionPool(n_items, config.width, config.heads)
        case SetTransformerConfig():
            from recsys.models.sets.set_transformer import SetTransformer

            return SetTransformer(config, n_items)
        case ReadProcessConfig():
            from recsys.models.sets.read_process import ReadProcessSet

            return ReadProcessSet(n_items, config.width, config.steps)
