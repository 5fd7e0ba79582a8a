"""The encoder of item sentences: its shape, and how it saves memory."""

from __future__ import annotations

from typing import Literal, TypedDict

from pydantic import Field, model_validator

from recsys.config.section import Section


class Limits(TypedDict):
    """How much of a history is read: `recsys.data.item_sentences`."""

    max_items: int
    max_tokens: int
    item_tokens: int | None


class TextEncoderConfig(Section):
    """A bidirectional transformer over the tokens of items, newest item first."""

    width: int = Field(128, ge=1)
    """Model width, and size of item and sequence vectors (D)."""
    blocks: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)
    inner: int = Field(512, ge=1)
    """Width of the feed-forward's inner layer."""
    dropout: float = Field(0.1, ge=0, lt=1)
    max_tokens: int = Field(256, ge=2)
    """Tokens of a sequence at most, the first one (CLS) included; what is older is cut off."""
    item_tokens: int | None = Field(None, ge=1)
    """Tokens of an item that are read, its first ones; by default all that its sentence has."""
    max_items: int = Field(50, ge=1)
    """Newest items of a history that are read."""
    structure: bool = True
    """Whether a token knows which item it is of and whether it is of an attribute's name or value (the
    embeddings of item positions and token types); without, its place in the sequence alone."""
    window: int | None = Field(None, ge=2, multiple_of=2)
    """Tokens see so many tokens around them, half on either side, and CLS; by default all. It saves
    nothing below about 1,000 tokens."""
    global_projections: Literal["tied", "separate"] = "tied"
    """Whether CLS attends by projections of its own, as Longformer's do."""
    norm_eps: float = Field(1e-5, gt=0)
    checkpointing: bool = False
    """Compute blocks anew in the backward pass, instead of keeping what they computed."""
    bucket_tokens: int = Field(16_384, ge=1)
    """Sequences of like length are encoded together, up to so many tokens at once."""

    @property
    def limits(self) -> Limits:
        """How much of a history is read."""
        return Limits(
            max_items=self.max_items, max_tokens=self.max_tokens, item_tokens=self.item_tokens
        )

    @model_validator(mode="after")
    def _fits_together(self) -> TextEncoderConfig:
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        return self
