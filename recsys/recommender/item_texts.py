"""Items of a history by what is written about them: each is read as the known item most like its text.

The model's own reading of a text, an item vector, is given by whoever holds what reads texts
(`TextReader`). The text stands in the history as the item whose vector has the largest cosine with it,
as a new item of the catalogue does (see `recsys.growth`). It is not that item: nothing is excluded for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from recsys.bundle import Bundle
from recsys.data.sequences import Int64
from recsys.errors import DataError
from recsys.retrieval.index import most_alike
from recsys.schema import PAD

TextReader = Callable[[Sequence[Mapping[str, str]]], Sequence[Sequence[float] | None]]
"""Gives texts (attributes by name) their item vectors, None where there is nothing to read in one;
`DataError` where the model reads no texts."""


@dataclass(frozen=True)
class ItemText:
    """An item of a history that the catalogue need not hold: attributes as text, by name."""

    attributes: Mapping[str, str]


@dataclass(frozen=True)
class ReadText:
    """What a text of a history was taken for.

    Attributes:
        place: where it stands in the history as given, from 0.
        read_as: the known item's external id; None where there was nothing to read.
    """

    place: int
    read_as: str | None


def read_texts(
    history: Sequence[str | ItemText], bundle: Bundle, reader: TextReader | None, removed: Int64
) -> tuple[list[ReadText], Int64]:
    """Return what the texts of a history are read as, and the items' indices, PAD for None.

    No text is read as a `removed` item.

    Raises:
        DataError: there are texts, and nothing here that reads them.
    """
    texts = [(place, one) for place, one in enumerate(history) if isinstance(one, ItemText)]
    if not texts:
        return [], np.zeros(0, dtype=np.int64)
    if reader is None or bundle.index is None:
        raise DataError(
            f"history holds texts (the first at {texts[0][0]}), but bundle {bundle.name} is served "
            "without anything that reads them; send ids of the catalogue"
        )
    vectors = reader([one.attributes for _, one in texts])
    items = np.array(
        [
            PAD if v is None else most_alike(torch.tensor(v), bundle.index, removed.tolist())
            for v in vectors
        ],
        dtype=np.int64,
    )
    names = [None if i == PAD else bundle.item_ids.decode([i])[0] for i in items.tolist()]
    places = (place for place, _ in texts)
    read = [ReadText(place, name) for place, name in zip(places, names, strict=True)]
    return read, items
