"""Item texts: which attributes make an item's sentence, how long it may be, how it is tokenised."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from recsys.config.section import Count, Section


def _without_repeats(values: list[str] | None) -> list[str] | None:
    repeated = sorted({value for value in values or () if (values or []).count(value) > 1})
    if repeated:
        raise ValueError(f"each attribute once, but {', '.join(repeated)} is repeated")
    return values


def _anchored(place: str) -> str:
    """Return a name as it is, and a path from the directory in which the command runs as an absolute one:
    processes of Ray run in directories of their own.
    """
    return place if place in NAMES else str(Path(place).absolute())


NAMES: Final = ("train", "tokens", "minilm")
Place = Annotated[str, AfterValidator(_anchored)]
"""One of the `NAMES`, or a directory."""


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
    """Items without a value in any attribute that the tokenizer reads: refused, or kept as items without a
    sentence."""
    tokenizer: Place = "train"
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


class ItemVectors(Section):
    """Which vectors of the items' texts a model reads; they stay as they are while it learns."""

    source: Place = "tokens"
    """`tokens`: bags of tokens by truncated SVD; `minilm`: a small language model, if its package is
    installed; a local Hugging Face directory of an encoder; or a bundle, whose item vectors are taken
    (those of a Recformer, say)."""
    width: int | None = Field(256, ge=1)
    """Length, by the widest directions of the items that have training events; None keeps the source's own
    vectors (not of `tokens`)."""

    @model_validator(mode="after")
    def _width_fits_source(self) -> ItemVectors:
        if self.source == "tokens" and self.width is None:
            raise ValueError("source: tokens has no width of its own; set width")
        return self


class TextVotes(Section):
    """How alike texts vote beside common users."""

    vectors: ItemVectors = ItemVectors()
    weight: float = Field(0.2, gt=0)
    """Of a cosine (to the power) beside the similarity of common users."""
    power: float = Field(3.0, gt=0)
    """Cosines are raised to it: the higher, the more the nearest texts count."""
    neighbours: int = Field(200, ge=1)
    """Items of the most alike texts that an item votes for."""
    inherit: float = Field(0.0, ge=0)
    """What an item without training events has of the similarities of the items with the most alike texts,
    as a multiple of their mean; 0 leaves it to its own text. Above 1 it makes up for what a mean of several
    items' neighbours loses."""
    inherit_from: int = Field(10, ge=1)
    """Of how many items, all with training events."""


class TextItems(Section):
    """How a learned model's items have their texts."""

    vectors: ItemVectors = ItemVectors()
    mode: Literal["add", "only", "initialise"] = "add"
    """`add`: an item's vector is its own plus a learned map of its text's; `only`: that map alone;
    `initialise`: the text's vector is where an item's own begins (its length must be the width)."""
    inner: int = Field(0, ge=0)
    """Width of a hidden layer of the map; 0 is a linear map."""

    @model_validator(mode="after")
    def _width_is_known(self) -> TextItems:
        if self.vectors.width is None:
            raise ValueError("a learned model is built from its configuration: set vectors.width")
        return self

    def check(self, width: int) -> None:
        """Refuse what does not fit a model of this width."""
        if self.mode == "initialise" and self.vectors.width != width:
            raise ValueError(
                f"text.mode: initialise needs text vectors of the model's width; set "
                f"text.vectors.width to {width} (it is {self.vectors.width})"
            )


class ItemsWithTexts(Section):
    """What models have in common whose items may have what is written about them."""

    text: TextItems | None = None
    """Items have what is written about them, beside or instead of a vector of their own."""

    @property
    def item_vectors(self) -> ItemVectors | None:
        """The text vectors that it reads."""
        return None if self.text is None else self.text.vectors

    @property
    def places_texts(self) -> bool:
        """Whether it has a vector for an item of which only a text is known."""
        return self.text is not None and self.text.mode != "initialise"
