"""How a learned model is fitted: its loss and its training."""

from __future__ import annotations

from typing import Final, Literal, get_args

from pydantic import Field, model_validator

from recsys.config.section import Section

SetLossKind = Literal["set_softmax", "set_mass", "set_plackett_luce", "set_bce"]
SET_LOSSES: Final = get_args(SetLossKind)
"""Losses of a whole basket; the others are of one item."""

Objective = Literal["next_event", "next_basket", "next_basket_set", "rest_set"]
SET_OBJECTIVES: Final = ("next_basket_set", "rest_set")
"""Objectives whose target is a set, learned by one of the losses of sets."""


class LossConfig(Section):
    """Which training loss and how its negatives are drawn."""

    kind: Literal["auto", "softmax", "sampled_softmax", "gbce", "bce", "bpr", SetLossKind] = "auto"
    """`auto`: full softmax while its largest block fits `memory_mb`, sampled softmax beyond; where
    baskets are learned as sets, `set_softmax`.

    Of sets: `set_softmax` wants all members equally likely, `set_mass` any of them, `set_plackett_luce`
    all of them drawn before anything else, `set_bce` asks of each item whether it is a member.
    """
    against: Literal["auto", "all", "sampled"] = "auto"
    """What a set competes with: the whole catalogue or drawn negatives; `auto` by `memory_mb`, as
    above. `set_bce` always draws."""
    negatives: int = Field(256, ge=1)
    sampler: Literal["uniform", "popularity", "in_batch"] = "uniform"
    alpha: float = Field(0.75, ge=0)
    """Exponent of popularity sampling."""
    share: Literal["token", "batch"] = "token"
    """Negatives drawn for every token, or once for the whole batch."""
    logq: bool = True
    """Correct sampled softmax for the sampling probability."""
    gbce_t: float = Field(0.75, ge=0, le=1)
    temperature: float = Field(1.0, gt=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    memory_mb: float = Field(256.0, gt=0)
    """Largest block of logits held at once."""

    @model_validator(mode="after")
    def _fits_together(self) -> LossConfig:
        if self.kind in SET_LOSSES and self.sampler == "in_batch":
            raise ValueError(
                f"kind {self.kind} learns sets, and the targets of a batch of sets are no sample of "
                "items; use sampler: uniform or popularity"
            )
        if self.kind == "set_bce" and self.against == "all":
            raise ValueError("kind set_bce draws its negatives; leave `against` out")
        if self.kind == "gbce" and self.sampler == "in_batch":
            # beta is made for `negatives` draws; here a step has as many as its batch has tokens.
            raise ValueError(
                "kind gbce is calibrated for the number of negatives, which sampler in_batch leaves "
                "to the batch; use sampler: uniform or popularity, or kind: bce or sampled_softmax"
            )
        return self


class TrainingConfig(Section):
    """How a learned model is fitted."""

    epochs: int = Field(30, ge=1)
    users: float = Field(1.0, gt=0, le=1)
    """Share of the users, drawn by the seed, whose events are learned from and validate: how good is
    the model where there are few? All users are tested."""
    batch_size: int = Field(128, ge=1)
    """Sequences per step and process."""
    windows: Literal["last", "all"] = "all"
    objective: Objective = "next_event"
    """What a place predicts: the next event, one drawn from the next basket, that whole basket, or
    (`rest_set`) the rest of the list, each of the last two by one of the losses of sets."""
    repeats: Literal["keep", "mask"] = "keep"
    """`mask` does not train on targets the user has had before; right where seen items are excluded."""
    recency_half_life: float | None = Field(None, gt=0)
    """Days in which a target's chance to be trained on in an epoch halves, counted back from the newest
    training event; needs an absolute clock. What sells now is worth more than what sold in spring."""
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    warmup_steps: int = Field(100, ge=0)
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    clip: float | None = Field(5.0, gt=0)
    """Gradient norm limit."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of an exponential moving average of the weights, used for validation and kept."""
    patience: int = Field(5, ge=1)
    """Validations without a better NDCG@10 before training stops."""
    validate_every: int = Field(1, ge=1)
    """Epochs between validations."""
    validation_targets: int | None = Field(None, ge=1)
    """Validate on a seeded sample of this many targets; all by default."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    loss: LossConfig = LossConfig()

    @model_validator(mode="after")
    def _loss_fits_objective(self) -> TrainingConfig:
        kind, sets = self.loss.kind, self.objective in SET_OBJECTIVES
        if sets and kind not in ("auto", *SET_LOSSES):
            raise ValueError(
                f"objective {self.objective} learns a whole set, but loss.kind {kind} is of one item; "
                f"use one of {', '.join(SET_LOSSES)}, or objective: next_basket"
            )
        if not sets and (kind in SET_LOSSES or self.loss.against != "auto"):
            said = f"kind {kind}" if kind in SET_LOSSES else f"against {self.loss.against}"
            raise ValueError(
                f"loss.{said} is of sets, but objective {self.objective} predicts one item; use "
                "objective: next_basket_set or rest_set"
            )
        return self
