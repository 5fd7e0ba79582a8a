"""Items by their texts, where the model can read them: new ones are placed, each text read once, and those
of histories are read as what they are like.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

from features.text_tower import TextTower
from recsys.bundle import Bundle
from recsys.errors import ArtifactError, DataError, RecsysError
from recsys.growth import NewItem

log = logging.getLogger(__name__)

Vector = tuple[float, ...]
Bag = tuple[tuple[int, float], ...]
Texts = tuple[tuple[str, str], ...]
LATELY: Final = 2000
"""Texts of histories whose vectors are kept."""


class TextPlaces:
    """The item vectors that a bundle's model gives to texts; None of a bundle that reads none.

    If what it needs is not here (the frozen encoder, say), that is logged once, and items are placed
    as if the bundle read no texts.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.model: Any = bundle.model
        self.tower = None if bundle.text is None else TextTower.load(bundle.text)
        self._name = bundle.name
        self._known: dict[Texts, Vector | None] = {}
        self._lately = lru_cache(LATELY)(lambda key: self._read(dict(key)))

    def vector(self, attributes: Mapping[str, str]) -> Vector | None:
        """Return the item vector of texts; None where there is none to give."""
        key = tuple(sorted(attributes.items()))
        if self.tower is not None and key not in self._known:
            try:
                self._known[key] = self._read(attributes)
            except RecsysError as error:
                log.error("texts cannot be read", extra={"error": str(error)})
                self.tower = None
        return self._known.get(key)

    def read(self, texts: Sequence[Mapping[str, str]]) -> list[Vector | None]:
        """Return the item vectors of the texts of a history, None where there is nothing to read.

        Raises:
            DataError: the bundle reads no texts, or what it needs for that is not here.
        """
        if self.tower is not None:
            try:
                return [self._lately(tuple(sorted(one.items()))) for one in texts]
            except RecsysError as error:
                log.error("texts cannot be read", extra={"error": str(error)})
                self.tower = None
        raise DataError(
            f"history holds texts, but the model of bundle {self._name} reads none (here); send ids of "
            "the catalogue, or add the items by POST /v1/items and send theirs"
        )

    def place(self, items: Sequence[NewItem]) -> tuple[NewItem, ...]:
        """Return the items, those that go `by_text` with their vectors instead of `like`."""
        return tuple(self._placed(item) for item in items)

    def _placed(self, item: NewItem) -> NewItem:
        vector = self.vector(item.attributes) if item.by_text else None
        if vector is None:
            return item
        return replace(item, vector=vector, bag=self._bag(item.attributes), like=(), weights=())

    def _bag(self, attributes: Mapping[str, str]) -> Bag:
        """Return the words of a text that has a vector; none for a model that scores by vectors alone."""
        if self.tower is None or self.model.is_inner_product or not hasattr(self.model, "bag_of"):
            return ()
        bag: Bag = self.model.bag_of(self.tower.sentences([attributes]))
        return bag

    def _read(self, attributes: Mapping[str, str]) -> Vector | None:
        import torch

        tower = self.tower
        if tower is None:  # another thread has just found that it does not work
            raise ArtifactError(f"the texts' reader of bundle {self._name} was given up")
        if hasattr(self.model, "encode_texts"):
            texts = tower.vectors([attributes])  # [1, W]
            if not texts.any():
                return None
            with torch.inference_mode():
                found = self.model.encode_texts(torch.from_numpy(texts))[0]
        else:
            sentences = tower.sentences([attributes])
            if not sentences.lengths()[1]:
                return None
            with torch.inference_mode():
                found = self.model.vectors_of(sentences)[1]
        return tuple(found.tolist())
