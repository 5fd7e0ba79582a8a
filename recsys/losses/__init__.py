"""Training losses; `build_loss` makes the one a configuration asks for."""

from __future__ import annotations

import logging

from recsys.config import LossConfig
from recsys.data.sequences import Int64
from recsys.errors import ConfigError
from recsys.losses.contract import Loss
from recsys.losses.negatives import NegativeSampler
from recsys.losses.pairwise import BCE, BPR, gbce_beta
from recsys.losses.sampled import SampledSoftmax
from recsys.losses.softmax import Softmax

__all__ = ["BCE", "BPR", "Loss", "NegativeSampler", "SampledSoftmax", "Softmax", "build_loss"]

AUTO_ROWS = 512
"""`auto` wants room for this many tokens' logits over the catalogue, or for those of one step."""

logger = logging.getLogger(__name__)


def build_loss(config: LossConfig, item_counts: Int64, tokens_per_step: int) -> Loss:
    """Return the loss a configuration asks for.

    `auto` is the full softmax while the float32 logits of min(tokens_per_step, 512) tokens over all
    items fit `memory_mb` (at the default 256 MB: up to 125,000 items), where it is the best and, in
    one dense product, hardly slower than sampling; sampled softmax beyond.

    Args:
        item_counts: int64 [n_items + 1], training events per item, for the samplers.
        tokens_per_step: how many tokens a training step is expected to have.
    """
    n_items = len(item_counts) - 1
    kind = _resolve_auto(config, n_items, tokens_per_step) if config.kind == "auto" else config.kind
    if kind == "softmax":
        return Softmax(
            temperature=config.temperature,
            label_smoothing=config.label_smoothing,
            memory_mb=config.memory_mb,
        )
    if config.label_smoothing:
        raise ConfigError(
            f"loss.label_smoothing is {config.label_smoothing}, but only the full softmax has it "
            f"and this loss is {kind}; set it to 0 or choose kind: softmax"
        )
    sampler = NegativeSampler(
        config.sampler,
        item_counts,
        config.negatives,
        shared=config.share == "batch",
        alpha=config.alpha,
    )
    match kind:
        case "sampled_softmax":
            return SampledSoftmax(sampler, logq=config.logq, temperature=config.temperature)
        case "bpr":
            return BPR(sampler, temperature=config.temperature)
        case "bce":
            return BCE(sampler, temperature=config.temperature)
    beta = gbce_beta(config.gbce_t, config.negatives, n_items)
    return BCE(sampler, beta=beta, temperature=config.temperature)


def _resolve_auto(config: LossConfig, n_items: int, tokens_per_step: int) -> str:
    block_mb = 4e-6 * min(tokens_per_step, AUTO_ROWS) * n_items
    kind = "softmax" if block_mb <= config.memory_mb else "sampled_softmax"
    logger.info("loss auto: %s for %d items (block %.0f MB)", kind, n_items, block_mb)
    return kind
