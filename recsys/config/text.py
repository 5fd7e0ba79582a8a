"""Item texts: which attributes make an item's sentence, how long it may be, how it is tokenised."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from recsys.config.section import Count, Section


def _without_repeats(values: list[str] | None) -> list[str] | None:
    repeated = sorted({value for value in values or () if (values or []).count(value) > 1})
    if repeated:
        raise ValueError(f"each attribute once, but {', '.join(repeated)} is repeated")
    return values


class TextConfig(Section):
    """The sentences of the items. A sequence's limits are the model's that reads them."""

    attributes: Annotated[
        list[str] | None, Field(min_length=1), AfterValidator(_without_repeats)
    ] = None
    """Attributes of the sentence, in order; by default title, brand and category as far as the
    catalogue has them, and where it has none of these, all its columns of text."""
    attribute_tokens: int = Field(32, ge=2)
    """Most tokens of an attribute, its name and its value together."""
    attribute_limits: dict[str, Count] = {}
    """The same for single attributes, by name."""
    item_tokens: int = Field(96, ge=2)
    """Most tokens of an item."""
    empty_items: Literal["fail", "keep"] = "fail"
    """Items without a value in any attribute: refused, or kept as items without a sentence."""
    tokenizer: str = "train"
    """`train`: a WordPiece tokenizer of the items that have training events; or a local Hugging Face
    directory with `tokenizer.json`."""
    vocabulary_size: int = Field(8192, ge=64)
    """Most tokens of a tokenizer that is trained."""
    lowercase: bool = True
    """A tokenizer that is trained reads lower case without accents."""

    @model_validator(mode="after")
    def _fits_together(self) -> TextConfig:
        known = self.attributes
        foreign = [
            name for name in self.attribute_limits if known is not None and name not in known
        ]
        if foreign:
            raise ValueError(
                f"attribute_limits: {', '.join(foreign)} is no attribute of {', '.join(known or [])}"
            )
        return self

    def limit(self, attribute: str) -> int:
        """Return the most tokens of an attribute."""
        return self.attribute_limits.get(attribute, self.attribute_tokens)
