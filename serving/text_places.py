"""Items by their texts, where the model can read them: new ones are placed, each text read once, and those
of histories are given as vectors, or as sentences to a model that reads these.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from features.text_tower import TextTower
from recsys.bundle import Bundle
from recsys.data.bags import Bag
from recsys.data.token_store import TokenStore
from recsys.errors import ArtifactError, DataError, RecsysError
from recsys.growth import NewItem
from serving.logs import place_of

log = logging.getLogger(__name__)

Vector = tuple[float, ...]
Read = tuple[Vector, Bag, TokenStore | None]
"""The item vector of a text, its words for a model that scores by them, too (else none), and its sentence
for a model that reads these."""
Texts = tuple[tuple[str, str], ...]
LATELY: Final = 2000
"""Texts of histories whose vectors are kept."""


class TextPlaces:
    """The item vectors that a bundle's model gives to texts; None of a bundle that reads none.

    If what it needs is not here (the frozen encoder, say), that is logged once, and items are placed
    as if the bundle read no texts. A text that fails in a way that nobody foresaw is logged, too, and has
    no vector: neither the model nor the other texts are to blame.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.model: Any = bundle.model
        self.tower = None if bundle.text is None else TextTower.load(bundle.text)
        self._name = bundle.name
        self._known: dict[Texts, Read | None] = {}
        self._lately: dict[Texts, Read | None] = {}

    @property
    def attributes(self) -> list[str]:
        """The attributes that are read of a text; none where nothing reads texts."""
        tower = self.tower  # another thread may give it up
        return [] if tower is None else list(tower.attributes)

    def vector(self, attributes: Mapping[str, str]) -> Vector | None:
        """Return the item vector of texts; None where there is none to give."""
        found = self._found([_key(attributes)], self._known)[0]
        return None if found is None else found[0]

    def read(self, texts: Sequence[Mapping[str, str]]) -> list[Vector | None]:
        """Return the item vectors of the texts of a history, None where there is nothing to read.

        Raises:
            DataError: the bundle reads no texts, what it needs for that is not here, or a value is no text.
        """
        keys = [_key(one) for one in texts]
        found = self._found(keys, self._lately)
        for key in keys:  # those asked for last are kept longest
            if key in self._lately:
                self._lately[key] = self._lately.pop(key)
        while len(self._lately) > LATELY:
            del self._lately[next(iter(self._lately))]
        if self.tower is None:
            raise self._nothing_reads()
        return [None if one is None else one[0] for one in found]

    def sentences(self, texts: Sequence[Mapping[str, str]]) -> TokenStore:
        """Return the texts of a history as the items of a store, for a model that reads them itself.

        Raises:
            DataError: see `read`.
        """
        if self.tower is not None:
            try:
                return self.tower.sentences(texts)
            except Exception as error:
                if self._each_alone(error, len(texts)):
                    first, *others = [self.sentences([one]) for one in texts]
                    return first.extended(*others)
            if self.tower is not None:
                none: TokenStore = self.model.sentences.take(np.zeros(1, dtype=np.int64))
                return none
        raise self._nothing_reads()

    def place(self, items: Sequence[NewItem]) -> tuple[NewItem, ...]:
        """Return the items, those that go `by_text` with their vectors instead of `like`."""
        return tuple(self._placed(item) for item in items)

    def _placed(self, item: NewItem) -> NewItem:
        found = self._found([_key(item.attributes)], self._known)[0] if item.by_text else None
        if found is None:
            return item
        vector, bag, sentence = found
        return replace(item, vector=vector, bag=bag, sentence=sentence, like=(), weights=())

    def _found(self, keys: Sequence[Texts], known: dict[Texts, Read | None]) -> list[Read | None]:
        """Return what texts are read as; those that are not known yet are read at once, and then are."""
        new = [key for key in dict.fromkeys(keys) if key not in known]
        if new and self.tower is not None:
            try:
                known |= zip(new, self._read([dict(key) for key in new]), strict=True)
            except Exception as error:
                if self._each_alone(error, len(new)):
                    return [self._found([key], known)[0] for key in keys]
        return [known.get(key) for key in keys]

    def _read(self, items: Sequence[Mapping[str, str]]) -> list[Read | None]:
        import torch

        tower = self.tower
        if tower is None:  # another thread has just found that it does not work
            raise ArtifactError(f"the texts' reader of bundle {self._name} was given up")
        bags: list[Bag] = [()] * len(items)
        own: list[TokenStore | None] = [None] * len(items)
        with torch.inference_mode():
            if hasattr(self.model, "encode_texts"):
                texts = tower.vectors(items)  # [M, W]
                says = (texts != 0).any(axis=1)
                found = self.model.encode_texts(torch.from_numpy(texts))
            else:
                sentences = tower.sentences(items)  # item 0 is padding
                says = sentences.lengths()[1:] > 0
                found = self.model.vectors_of(sentences)[1:] if says.any() else [None] * len(items)
                own = [sentences.take(np.array([item + 1])) for item in range(len(items))]
                if not self.model.is_inner_product:
                    bags = self.model.bags_of(sentences)
        return [
            (tuple(vector.tolist()), bag, sentence) if some else None
            for vector, bag, sentence, some in zip(found, bags, own, says, strict=True)
        ]

    def _each_alone(self, error: Exception, count: int) -> bool:
        """Tell whether one of several texts may be at fault, so that each is to be read alone.

        If not, the reader is given up, as it says itself that it does not work, or the one text is. A
        text that is said to be wrong is its sender's to mend.
        """
        if isinstance(error, DataError):
            raise error
        if isinstance(error, RecsysError):
            log.error("texts cannot be read", extra={"error": str(error)})
            self.tower = None
            return False
        if count > 1:
            return True
        what = {"error": type(error).__name__, "at": place_of(error)}
        log.error("a text cannot be read", extra=what)
        return False

    def _nothing_reads(self) -> DataError:
        return DataError(
            f"history holds texts, but the model of bundle {self._name} reads none (here); send "
            "ids of the catalogue, or add the items by POST /v1/items and send theirs"
        )


def _key(attributes: Mapping[str, str]) -> Texts:
    return tuple(sorted(attributes.items()))
