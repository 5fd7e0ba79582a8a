"""Items of a history by what is written about them.

A model that reads texts itself gets the text as it is, as an item of its own. To any other the text
stands for the known item most like it: whoever holds what reads texts (`TextReader`) gives it the item
vector that the model would, and the item is the one whose vector has the largest cosine with that, as it
is for a new item of the catalogue (see `recsys.growth`). It is not that item: nothing is excluded for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch

from recsys.bundle import Bundle
from recsys.data.sequences import Int64
from recsys.data.token_store import TokenStore
from recsys.errors import DataError
from recsys.retrieval.index import most_alike
from recsys.schema import PAD


class TextReader(Protocol):
    """What reads texts (attributes by name) for the model of a bundle.

    Both methods raise `DataError` where nothing here reads any.
    """

    def read(self, texts: Sequence[Mapping[str, str]]) -> Sequence[Sequence[float] | None]:
        """Return the item vectors of texts, None where there is nothing to read in one."""

    def sentences(self, texts: Sequence[Mapping[str, str]]) -> TokenStore:
        """Return texts as the items 1..M of a store, without tokens where there is nothing to read."""


@dataclass(frozen=True)
class ItemText:
    """An item of a history that the catalogue need not hold: attributes as text, by name."""

    attributes: Mapping[str, str]


@dataclass(frozen=True)
class ReadText:
    """What a text of a history was taken for.

    Attributes:
        place: where it stands in the history as given, from 0.
        taken_as: the text itself, a known item, or nothing: there was nothing to read, or nothing that
            could.
        read_as: the known item's external id; None in the other two cases.
    """

    place: int
    taken_as: Literal["text", "item", "nothing"]
    read_as: str | None = None


@dataclass(frozen=True)
class HistoryTexts:
    """The texts of a history as a model takes them.

    Attributes:
        said: what each was taken for.
        items: int64 [M], of each: a known item's index, -k for the k-th of `sentences`, PAD for nothing.
        sentences: of a model that reads texts itself.
    """

    said: list[ReadText]
    items: Int64
    sentences: TokenStore | None = None


def read_texts(
    history: Sequence[str | ItemText],
    bundle: Bundle,
    reader: TextReader | None,
    removed: Int64,
    *,
    by_model: bool,
) -> HistoryTexts:
    """Return what the texts of a history are read as.

    Args:
        history: ids and texts.
        bundle: whose model reads them.
        reader: what reads texts for it.
        removed: items that no text is read as.
        by_model: for the model; else for what stands in for it, which reads items alone.

    Raises:
        DataError: there are texts, and nothing here that reads them for the model.
    """
    found = [(place, one) for place, one in enumerate(history) if isinstance(one, ItemText)]
    if not found:
        return HistoryTexts([], np.zeros(0, dtype=np.int64))
    if reader is None or bundle.index is None:
        raise DataError(
            f"history holds texts (the first at {found[0][0]}), but bundle {bundle.name} is served "
            "without anything that reads them; send ids of the catalogue"
        )
    places = [place for place, _ in found]
    texts = [one.attributes for _, one in found]
    if by_model and bundle.model.reads_texts:
        return _as_they_are(places, reader.sentences(texts))
    vectors: Sequence[Sequence[float] | None] = [None] * len(texts)
    try:
        vectors = reader.read(texts)
    except DataError:  # what reads texts may be a part of the model that has just failed
        if by_model:
            raise
    items = np.array(
        [
            PAD if v is None else most_alike(torch.tensor(v), bundle.index, removed.tolist())
            for v in vectors
        ],
        dtype=np.int64,
    )
    said = [
        ReadText(place, "nothing")
        if item == PAD
        else ReadText(place, "item", bundle.item_ids.decode([item])[0])
        for place, item in zip(places, items.tolist(), strict=True)
    ]
    return HistoryTexts(said, items)


def _as_they_are(places: list[int], sentences: TokenStore) -> HistoryTexts:
    says = sentences.lengths()[1:] > 0
    said = [
        ReadText(place, "text" if some else "nothing")
        for place, some in zip(places, says.tolist(), strict=True)
    ]
    return HistoryTexts(said, np.where(says, -1 - np.arange(len(says)), PAD), sentences)


def joined_texts(
    histories: Sequence[tuple[Int64, TokenStore | None]],
) -> tuple[TokenStore | None, list[list[int]]]:
    """Return all histories' sentences in one store, and the histories numbered by it.

    Args:
        histories: items, below 0 of their own sentences, and these.
    """
    before, stores = 0, list[TokenStore]()
    found = list[list[int]]()
    for items, sentences in histories:
        found.append(np.where(items < 0, items - before, items).tolist())
        if sentences is not None:
            before += sentences.n_items
            stores.append(sentences)
    return stores[0].extended(*stores[1:]) if stores else None, found
