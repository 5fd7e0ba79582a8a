"""The models, their losses and their training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, get_args

from pydantic import Field, model_validator

from recsys.config.section import Section
from recsys.config.text import ItemVectors, TextItems, TextVotes
from recsys.config.text_encoder import TextEncoderConfig


class PopularityConfig(Section):
    """The most popular training items."""

    kind: Literal["pop"] = "pop"
    recency_half_life: float | None = Field(None, gt=0)
    """Days in which what an event counts halves; needs an absolute clock."""


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
    recency_half_life: float | None = Field(None, gt=0)
    """Days in which what a transition counts halves; needs an absolute clock."""
    reach: int = Field(1, ge=1)
    """Training events up to this far apart count as a transition, each 1/distance."""

    @model_validator(mode="after")
    def _fits_together(self) -> MarkovConfig:
        if self.half_life is not None and self.recency_half_life is not None:
            raise ValueError(
                "half_life (in users or lists) and recency_half_life (in days) both forget what is "
                "old; set one of them"
            )
        return self


class ItemKNNConfig(Section):
    """Cosine item-to-item neighbours over users, weighted by the age of the history event."""

    kind: Literal["item_knn"] = "item_knn"
    neighbours: int = Field(100, ge=1)
    history: int = Field(50, ge=1)
    shrinkage: float = Field(10.0, ge=0)
    decay: float = Field(1.0, gt=0, le=1)
    """Weight of each step into the past."""
    text: TextVotes | None = None
    """Items of alike texts are neighbours, too: those without a single event as well."""

    @property
    def item_vectors(self) -> ItemVectors | None:
        """The text vectors that it reads."""
        return None if self.text is None else self.text.vectors


class BagOfTokensConfig(Section):
    """Likeness of an item's tokens, weighted by how rare they are, to those of the history."""

    kind: Literal["bag_of_tokens"] = "bag_of_tokens"
    history: int = Field(20, ge=1)
    decay: float = Field(0.8, gt=0, le=1)
    """Weight of each step into the past."""
    needs_sentences: ClassVar[bool] = True


class TextVectorsConfig(Section):
    """Likeness of an item's text vector to the mean of the history's; nothing is learned."""

    kind: Literal["text_vectors"] = "text_vectors"
    vectors: ItemVectors = ItemVectors()
    history: int = Field(20, ge=1)
    decay: float = Field(0.8, gt=0, le=1)
    """Weight of each step into the past."""

    @property
    def item_vectors(self) -> ItemVectors:
        """The text vectors that it reads."""
        return self.vectors


SetLossKind = Literal["set_softmax", "set_mass", "set_plackett_luce", "set_bce"]
SET_LOSSES: Final = get_args(SetLossKind)
"""Losses of a whole basket; the others are of one item."""


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
    objective: Literal["next_event", "next_basket", "next_basket_set"] = "next_event"
    """What a place predicts: the next event, one drawn from the next basket, or that whole basket (by
    one of the losses of sets)."""
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
        kind, sets = self.loss.kind, self.objective == "next_basket_set"
        if sets and kind not in ("auto", *SET_LOSSES):
            raise ValueError(
                f"objective next_basket_set learns a whole basket, but loss.kind {kind} is of one item; "
                f"use one of {', '.join(SET_LOSSES)}, or objective: next_basket"
            )
        if not sets and (kind in SET_LOSSES or self.loss.against != "auto"):
            said = f"kind {kind}" if kind in SET_LOSSES else f"against {self.loss.against}"
            raise ValueError(
                f"loss.{said} is of sets, but objective {self.objective} predicts one item; use "
                "objective: next_basket_set"
            )
        return self


Baskets = Literal["ordered", "set"]


def _check_heads(width: int, heads: int) -> None:
    if width % heads:
        raise ValueError(f"width ({width}) must be a multiple of heads ({heads})")


def _check_baskets(baskets: Baskets, training: TrainingConfig) -> None:
    if baskets == "set" and training.objective == "next_event":
        raise ValueError(
            "baskets: set lets an event see its whole basket, so training.objective must be "
            "next_basket or next_basket_set (it is next_event)"
        )


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
    baskets: Baskets = "ordered"
    """`set`: events of one basket share a position and see one another; needs objective next_basket or
    next_basket_set."""
    text: TextItems | None = None
    """Items have what is written about them, beside or instead of a vector of their own."""
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> SASRecConfig:
        if self.text is not None:
            self.text.check(self.width)
        _check_heads(self.width, self.heads)
        _check_baskets(self.baskets, self.training)
        return self

    @property
    def item_vectors(self) -> ItemVectors | None:
        """The text vectors that it reads."""
        return None if self.text is None else self.text.vectors


class TiSASRecConfig(Section):
    """Self-attention that also sees how much time lies between any two events of a history."""

    kind: Literal["tisasrec"] = "tisasrec"
    width: int = Field(64, ge=1)
    """Model width and item-vector size (D)."""
    blocks: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    max_length: int = Field(50, ge=1)
    block: Literal["prenorm", "ligr"] = "ligr"
    ffn: float = Field(4.0, gt=0)
    """Feed-forward width as a multiple of `width`."""
    dropout: float = Field(0.2, ge=0, lt=1)
    intervals: int = Field(256, ge=1)
    """Largest interval told apart, in units of the history's shortest one."""
    normalise: bool = False
    """Unit-length sequence and item vectors (cosine scores)."""
    baskets: Baskets = "ordered"
    """As in `sasrec`."""
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> TiSASRecConfig:
        _check_heads(self.width, self.heads)
        _check_baskets(self.baskets, self.training)
        return self


CalendarFeature = Literal["year", "month", "day", "weekday", "day_of_year", "week", "hour"]


class UniRecConfig(Section):
    """Calendar and interval branches, uniformity and item frequency; each part is a switch.

    The defaults are the published mechanism with its defects mended. Weights, shares and schedules
    are those of the paper's code.
    """

    kind: Literal["unirec"] = "unirec"
    mode: Literal["corrected", "reference"] = "corrected"
    """`reference` keeps the harmless quirks of the published code, and no leakage."""
    width: int = Field(64, ge=1)
    """Item-vector size (D); a mixture block works on 2 D, half item and half time."""
    blocks: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    max_length: int = Field(50, ge=1)
    block: Literal["mixture", "prenorm", "ligr"] = "mixture"
    """`mixture`: the published attention over items and times; the others are those of `sasrec`, on
    the sum of item, position and time vectors."""
    fusion: Literal["branches", "sum"] = "branches"
    """`sum`: calendar and interval in one encoder, which costs half; not with `block: mixture`."""
    ffn: float = Field(1.0, gt=0)
    """Feed-forward width as a multiple of what it reads."""
    dropout: float = Field(0.2, ge=0, lt=1)
    normalise: bool = False
    """Unit-length sequence and item vectors (cosine scores)."""
    baskets: Baskets = "ordered"
    """As in `sasrec`."""
    calendar: bool = True
    """The calendar branch; needs an absolute clock."""
    calendar_features: list[CalendarFeature] = Field(
        default=["year", "month", "day", "weekday", "day_of_year", "week", "hour"], min_length=1
    )
    interval: bool = True
    """The interval branch; needs a clock."""
    gaps: Literal["hours", "log"] = "hours"
    """A vector for every hour of a gap up to a year, or for every half power of two of its seconds."""
    interval_context: Literal["calendar", "own"] = "calendar"
    """What the first mixture block of the interval branch attends by beside the items."""
    separate_interval: bool = False
    """The interval branch has weights of its own."""
    time_bias: bool = False
    """Attention prefers or avoids events by how long ago they were, per head; needs a clock."""
    uniformity: bool = False
    """Every event also has a vector for how regular the gaps up to it were; needs a clock."""
    attention_noise: float = Field(0.1, ge=0)
    """Noise on a mixture block's scores while training has the square of this as its deviation, at first."""
    global_term: bool = True
    """The global branch: likeness of an item to the whole history, re-scored on the shortlist."""
    global_items: int = Field(20, ge=1)
    """Distinct newest items of the history that the global branch compares by."""
    global_weight: float = Field(0.1, gt=0)
    sequence_enhancement: bool = True
    """Users of regular habits also learn from an irregular part of their history; needs a clock."""
    sequence_teacher: Literal["encoding", "target"] = "encoding"
    """What the irregular part must come to: the whole's encoding (published), or its next item."""
    sequence_weight: float = Field(0.2, gt=0)
    uniform_share: float = Field(0.4, gt=0, lt=1)
    item_enhancement: bool = True
    """Items learn to be made of the items consumed together with them; rare ones later."""
    frequent_weight: float = Field(0.3, ge=0)
    rare_weight: float = Field(0.1, ge=0)
    frequent_share: float = Field(0.3, gt=0, lt=1)
    frequency_by: Literal["gap_variance", "count"] = "gap_variance"
    """Which items are frequent; `gap_variance` needs an absolute clock."""
    drawn_neighbours: int = Field(3, ge=1)
    """Neighbours drawn for an item each time it is learned from."""
    kept_neighbours: int = Field(10, ge=1)
    """Neighbours an item has; `inject_tail` carries them in the model."""
    inject_tail: Literal["off", "inputs", "both"] = "off"
    """Rare items are read (`both`: and scored) as made of their neighbours, more and more in training."""
    item_bias: bool = False
    """Every item has a score of its own beside the likeness."""
    text: TextItems | None = None
    """As in `sasrec`."""
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> UniRecConfig:
        if self.text is not None:
            self.text.check(self.width)
        _check_heads(self.width * (2 if self.block == "mixture" else 1), self.heads)
        _check_baskets(self.baskets, self.training)
        if self.training.objective == "next_basket_set":
            raise ValueError(
                "training.objective next_basket_set is not for unirec, whose parts each predict one item; "
                "use next_basket, which draws one of the basket"
            )
        if self.block == "mixture" and self.fusion == "sum":
            raise ValueError(
                "fusion: sum adds the times to the items, which block: mixture keeps apart; use "
                "fusion: branches, or block: ligr or prenorm"
            )
        if self.block == "mixture" and not (self.calendar or self.interval):
            raise ValueError(
                "block: mixture mixes items with times, so calendar or interval must be on; use "
                "block: ligr or prenorm to be without both"
            )
        return self

    @property
    def needs_statistics(self) -> bool:
        """Whether training needs the statistics of the training events."""
        return self.sequence_enhancement or self.needs_neighbours

    @property
    def needs_neighbours(self) -> bool:
        """Whether training needs the neighbours of the items."""
        return self.item_enhancement or self.inject_tail != "off"

    @property
    def item_vectors(self) -> ItemVectors | None:
        """The text vectors that it reads."""
        return None if self.text is None else self.text.vectors


class RecformerConfig(Section):
    """Items as sentences, histories as sequences of sentences; the data need a section `text`."""

    kind: Literal["recformer"] = "recformer"
    pretrained: Path | None = None
    """Directory of a pre-training (`recsys pretrain`), or of a local Hugging Face checkpoint; from
    scratch without. Its shape must be the encoder's, its tokenizer that of the sentences."""
    encoder: TextEncoderConfig = TextEncoderConfig()
    stages: Literal["two", "second", "none"] = "two"
    """`two`: learn while items are encoded anew every epoch, then go on from the best with items that
    stand still. `second`: that alone. `none`: do not learn (zero-shot)."""
    train_words: bool = True
    """Whether the vectors of words learn."""
    temperature: float = Field(0.05, gt=0)
    """What cosines are divided by in the loss; `training.loss.temperature` is not read."""
    training: TrainingConfig = TrainingConfig(lr=5e-5, schedule="linear")
    """Epochs and patience are those of each stage; an epoch has one prefix of every user."""
    needs_sentences: ClassVar[bool] = True

    @model_validator(mode="after")
    def _fits_together(self) -> RecformerConfig:
        training = self.training
        if training.objective != "next_event":
            raise ValueError(
                f"training.objective is {training.objective}, but a history is one sentence here and "
                "predicts one item; use next_event"
            )
        if training.loss.temperature != 1.0:
            raise ValueError(
                f"training.loss.temperature is {training.loss.temperature}, but recformer has a "
                "temperature of its own beside `training`; set that"
            )
        if training.ema is not None:
            raise ValueError(
                "training.ema would average the item encoder away from the item vectors that it made; "
                "leave it out"
            )
        if self.stages == "none" and self.pretrained is None:
            raise ValueError(
                "stages: none does not learn, so there must be something learned: set pretrained"
            )
        return self


ModelConfig = Annotated[
    PopularityConfig
    | OwnPopularityConfig
    | MarkovConfig
    | ItemKNNConfig
    | BagOfTokensConfig
    | TextVectorsConfig
    | SASRecConfig
    | TiSASRecConfig
    | UniRecConfig
    | RecformerConfig,
    Field(discriminator="kind"),
]
