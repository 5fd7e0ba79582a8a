"""Recformer: where its encoder comes from, its shape, how it is fine-tuned."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from recsys.config.section import Section
from recsys.config.text_encoder import TextEncoderConfig
from recsys.config.training import TrainingConfig


class LexicalConfig(Section):
    """The words that an item shares with the history, beside the encoder's cosine."""

    weight: float = Field(2.0, gt=0)
    """Of the cosine of the two bags of tokens; the encoder's cosine has weight 1."""
    decay: float = Field(0.8, gt=0, le=1)
    """Weight of each step into the past."""
    history: int = Field(20, ge=1)
    """Newest events whose words count."""


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
    lexical: LexicalConfig | None = None
    """Whether shared words score, too; the encoder learns without them."""
    train_words: bool = True
    """Whether the vectors of words learn."""
    temperature: float = Field(0.05, gt=0)
    """What cosines are divided by in the loss; `training.loss.temperature` is not read."""
    training: TrainingConfig = TrainingConfig(lr=5e-5, schedule="linear")
    """Epochs and patience are those of each stage; an epoch has one prefix of every user."""
    needs_sentences: ClassVar[bool] = True
    places_texts: ClassVar[bool] = True

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
