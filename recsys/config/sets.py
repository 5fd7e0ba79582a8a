"""Encoders of sets: what a list of items without an order is made into one vector by."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from recsys.config.section import Section


class MeanSetConfig(Section):
    """The mean of the item vectors."""

    kind: Literal["mean"] = "mean"
    width: int = Field(64, ge=1)


class SIFConfig(Section):
    """The mean weighted against frequent items, without its most common direction."""

    kind: Literal["sif"] = "sif"
    width: int = Field(64, ge=1)
    smoothing: float = Field(1e-3, gt=0)
    """An item of training share p weighs smoothing / (smoothing + p)."""


class DeepSetsConfig(Section):
    """A network of each item, pooled, and a network of the pool."""

    kind: Literal["deep_sets"] = "deep_sets"
    width: int = Field(64, ge=1)
    pooling: Literal["sum", "mean", "max"] = "mean"


class AttentionPoolConfig(Section):
    """A mean whose weights are learned from the items."""

    kind: Literal["attention"] = "attention"
    width: int = Field(64, ge=1)
    heads: int = Field(2, ge=1)

    @model_validator(mode="after")
    def _fits_together(self) -> AttentionPoolConfig:
        _check_heads(self.width, self.heads)
        return self


class SetTransformerConfig(Section):
    """Items that see one another, then one learned query that reads them."""

    kind: Literal["set_transformer"] = "set_transformer"
    width: int = Field(64, ge=1)
    heads: int = Field(2, ge=1)
    blocks: int = Field(2, ge=1)
    inducing: int | None = Field(None, ge=1)
    """Items see one another through so many learned points, at n times as many steps; by default
    directly, at n^2."""

    @model_validator(mode="after")
    def _fits_together(self) -> SetTransformerConfig:
        _check_heads(self.width, self.heads)
        return self


class ReadProcessConfig(Section):
    """An LSTM without input that reads the set by attention, again and again."""

    kind: Literal["read_process"] = "read_process"
    width: int = Field(64, ge=2)
    steps: int = Field(5, ge=0)
    """Processing steps; without any the vector says nothing of the set."""

    @model_validator(mode="after")
    def _fits_together(self) -> ReadProcessConfig:
        if self.width % 2:
            raise ValueError(
                f"width ({self.width}) must be even: a query and what it read, a half each"
            )
        return self


SetEncoderConfig = Annotated[
    MeanSetConfig
    | SIFConfig
    | DeepSetsConfig
    | AttentionPoolConfig
    | SetTransformerConfig
    | ReadProcessConfig,
    Field(discriminator="kind"),
]


def _check_heads(width: int, heads: int) -> None:
    if width % heads:
        raise ValueError(f"width ({width}) must be a multiple of heads ({heads})")
