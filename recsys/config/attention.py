"""SASRec and TiSASRec, and what is asked of every model of their kind."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from recsys.config.section import Section
from recsys.config.text import ItemsWithTexts
from recsys.config.training import TrainingConfig

Baskets = Literal["ordered", "set"]


def check_heads(width: int, heads: int) -> None:
    """Refuse a width that heads cannot share."""
    if width % heads:
        raise ValueError(f"width ({width}) must be a multiple of heads ({heads})")


def check_baskets(baskets: Baskets, training: TrainingConfig) -> None:
    """Refuse an objective that a model of baskets as sets would see the answer of."""
    if baskets == "set" and training.objective in ("next_event", "rest_set"):
        raise ValueError(
            "baskets: set lets an event see its whole basket, so training.objective must be "
            f"next_basket or next_basket_set (it is {training.objective})"
        )


class SASRecConfig(ItemsWithTexts):
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
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> SASRecConfig:
        if self.text is not None:
            self.text.check(self.width)
        check_heads(self.width, self.heads)
        check_baskets(self.baskets, self.training)
        return self


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
        check_heads(self.width, self.heads)
        check_baskets(self.baskets, self.training)
        return self
