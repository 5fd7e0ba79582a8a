"""Training losses; `build_loss` makes the one a configuration asks for."""

from __future__ import annotations

import logging

from recsys.config import LossConfig
from recsys.data.sequences import Int64
from recsys.errors import ConfigError
from recsys.losses.catalogue_sets import FullSets, SampledSets, SetBCE, SetForm
from recsys.losses.contract import Loss, SetLoss
from recsys.losses.negatives import NegativeSampler
from recsys.losses.pairwise import BCE, BPR, gbce_beta
from recsys.losses.plackett_luce import plackett_luce_set
from recsys.losses.sampled import SampledSoftmax
from recsys.losses.sets import any_of, multi_positive
from recsys.losses.softmax import Softmax

__all__ = [
    "BCE",
    "BPR",
    "FullSets",
    "Loss",
    "NegativeSampler",
    "SampledSets",
    "SampledSoftmax",
    "SetBCE",
    "SetLoss",
    "Softmax",
    "build_loss",
    "build_set_loss",
]

AUTO_ROWS = 512
"""`auto` wants room for this many tokens' logits over the catalogue, or for those of one step."""

logger = logging.getLogger(__name__)


def build_loss(config: LossConfig, item_counts: Int64, tokens_per_step: int) -> Loss:
    """Return the loss of single items that a configuration asks for.

    `auto` is the full softmax while the float32 logits of min(tokens_per_step, 512) tokens over all
    items fit `memory_mb` (at the default 256 MB: up to 125,000 items), where it is the best and, in
    one dense product, hardly slower than sampling; sampled softmax beyond.

    Args:
        item_counts: int64 [n_items + 1], training events per item, for the samplers.
        tokens_per_step: how many tokens a training step is expected to have.
    """
    n_items = len(item_counts) - 1
    kind = config.kind
    if kind == "auto":
        full = _whole_fits(config, n_items, tokens_per_step)
        kind = "softmax" if full else "sampled_softmax"
    if kind == "softmax":
        return Softmax(
            temperature=config.temperature,
            label_smoothing=config.label_smoothing,
            memory_mb=config.memory_mb,
        )
    _refuse_smoothing(config, kind)
    sampler = _sampler(config, item_counts)
    match kind:
        case "sampled_softmax":
            return SampledSoftmax(sampler, logq=config.logq, temperature=config.temperature)
        case "bpr":
            return BPR(sampler, temperature=config.temperature)
        case "bce":
            return BCE(sampler, temperature=config.temperature)
    beta = gbce_beta(config.gbce_t, config.negatives, n_items)
    return BCE(sampler, beta=beta, temperature=config.temperature)


def build_set_loss(config: LossConfig, item_counts: Int64, tokens_per_step: int) -> SetLoss:
    """Return the loss of sets that a configuration asks for; arguments as for `build_loss`.

    `auto` is `set_softmax`. Against the whole catalogue or a sample: by the same rule as there.
    """
    kind = "set_softmax" if config.kind == "auto" else config.kind
    _refuse_smoothing(config, kind)
    if kind == "set_bce":
        return SetBCE(_sampler(config, item_counts), temperature=config.temperature)
    forms: dict[str, SetForm] = {
        "set_softmax": multi_positive,
        "set_mass": any_of,
        "set_plackett_luce": plackett_luce_set,
    }
    n_items = len(item_counts) - 1
    if config.against == "all" or (
        config.against == "auto" and _whole_fits(config, n_items, tokens_per_step)
    ):
        return FullSets(forms[kind], temperature=config.temperature, memory_mb=config.memory_mb)
    sampler = _sampler(config, item_counts)
    return SampledSets(forms[kind], sampler, logq=config.logq, temperature=config.temperature)


def _sampler(config: LossConfig, item_counts: Int64) -> NegativeSampler:
    return NegativeSampler(
        config.sampler,
        item_counts,
        config.negatives,
        shared=config.share == "batch",
        alpha=config.alpha,
    )


def _refuse_smoothing(config: LossConfig, kind: str) -> None:
    if config.label_smoothing:
        raise ConfigError(
            f"loss.label_smoothing is {config.label_smoothing}, but only the full softmax has it "
            f"and this loss is {kind}; set it to 0 or choose kind: softmax"
        )


def _whole_fits(config: LossConfig, n_items: int, tokens_per_step: int) -> bool:
    """Tell whether the logits of a chunk of tokens over the whole catalogue fit `memory_mb`."""
    block_mb = 4e-6 * min(tokens_per_step, AUTO_ROWS) * n_items
    fits = block_mb <= config.memory_mb
    against = "all of them" if fits else "drawn negatives"
    logger.info("loss auto: %d items, against %s (block %.0f MB)", n_items, against, block_mb)
    return fits
