"""The models, their losses and their training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from recsys.config.section import Section


class PopularityConfig(Section):
    """The most popular training items."""

    kind: Literal["pop"] = "pop"


class OwnPopularityConfig(Section):
    """What this user (list) repeats most, filled up with popularity."""

    kind: Literal["own_pop"] = "own_pop"


class MarkovConfig(Section):
    """Weighted item-to-next-item transition counts, filled up with popularity."""

    kind: Literal["markov"] = "markov"
    history: int = Field(10, ge=1)
    """How many of the newest events vote, each weighted 1/distance."""
    half_life: float | None = Field(None, gt=0)
    """Transitions lose half their count in this many users/lists (in order of their last event)."""
    reach: int = Field(1, ge=1)
    """Training events up to this far apart count as a transition, each 1/distance."""


class ItemKNNConfig(Section):
    """Cosine item-to-item neighbours over users, weighted by the age of the history event."""

    kind: Literal["item_knn"] = "item_knn"
    neighbours: int = Field(100, ge=1)
    history: int = Field(50, ge=1)
    shrinkage: float = Field(10.0, ge=0)
    decay: float = Field(1.0, gt=0, le=1)
    """Weight of each step into the past."""


class LossConfig(Section):
    """Which training loss and how its negatives are drawn."""

    kind: Literal["auto", "softmax", "sampled_softmax", "gbce", "bce", "bpr"] = "auto"
    """`auto`: full softmax while its largest block fits `memory_mb`, sampled softmax beyond."""
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
    batch_size: int = Field(128, ge=1)
    """Sequences per step and process."""
    windows: Literal["last", "all"] = "all"
    objective: Literal["next_event", "next_basket"] = "next_event"
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


class SASRecConfig(Section):
    """Causal self-attention over the event sequence with a tied item table."""

    kind: Literal["sasrec"] = "sasrec"
    width: int = Field(64, ge=1)
    """Model width and item-vector size (D)."""
    blocks: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    max_length: int = Field(50, ge=1)
    block: Literal["prenorm", "ligr"] = "ligr"
    ffn: float = Field(4.0, gt=0)
    """Feed-forward width as a multiple of `width`."""
    dropout: float = Field(0.2, ge=0, lt=1)
    positions: Literal["learned", "none"] = "learned"
    normalise: bool = False
    """Unit-length sequence and item vectors (cosine scores)."""
    baskets: Literal["ordered", "set"] = "ordered"
    """`set`: events of one basket share a position and see one another; needs objective next_basket."""
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> SASRecConfig:
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        if self.baskets == "set" and self.training.objective != "next_basket":
            raise ValueError(
                "baskets: set lets an event see its whole basket, so training.objective must be "
                f"next_basket (it is {self.training.objective})"
            )
        return self


ModelConfig = Annotated[
    PopularityConfig | OwnPopularityConfig | MarkovConfig | ItemKNNConfig | SASRecConfig,
    Field(discriminator="kind"),
]
