"""The model that answers at a moment: a bundle, what clients changed in its catalogue, a recommender.

One that takes the place of another is loaded beside it and has to prove itself first: lists of several
kinds of history must come out full and finite. It never changes afterwards but for what is removed; a
change of the catalogue makes a new one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.bundle import Bundle, load_bundle
from recsys.errors import ArtifactError
from recsys.fallback import Ladder
from recsys.growth import grow
from recsys.playlist_ladder import PlaylistLadder
from recsys.recommender import Query, Recommender
from recsys.schema import PAD
from recsys.words import Words
from serving.ledger import Living
from serving.schemas import MAX_HISTORY
from serving.text_places import TextPlaces

Observer = Callable[[str, float], None]


class ServedModel:
    """A loaded bundle, ready to answer.

    Args:
        base: the bundle as it was published.
        living: what clients changed in the catalogue.
        observe: told the seconds of each stage of an answer.
        texts: places items by their texts; made for the bundle by default.
    """

    def __init__(
        self,
        base: Bundle,
        living: Living,
        observe: Observer | None = None,
        texts: TextPlaces | None = None,
    ) -> None:
        self.texts = texts or TextPlaces(base)
        grown = grow(base, self.texts.place(living.added))
        self.base, self.living, self.grown = base, living, grown
        self.bundle = grown.bundle
        self.recommender = Recommender(self.bundle, observe, MAX_HISTORY, self.texts)
        self.recommender.removed = self._indices(living.removed)
        self.ladder = Ladder(self.recommender)
        self.playlist_ladder = PlaylistLadder(self.recommender)
        self.version = {"name": base.name, "version": base.version}
        self.label = f"{base.name}@{base.version}"
        self.titles: dict[str, str | None] = {}
        if "title" in self.bundle.items.columns:
            titles = self.bundle.items["title"].cast(pl.String).to_list()
            self.titles = dict(zip(self.bundle.item_ids.ids.to_list(), titles, strict=True))

    @cached_property
    def words(self) -> Words:
        """The words of the catalogue as published; made when first asked for."""
        return Words(self.base.items)

    def with_living(self, living: Living, observe: Observer | None) -> ServedModel:
        """Return the model with another catalogue."""
        changed = ServedModel(self.base, living, observe, self.texts)
        if "words" in vars(self):
            changed.words = self.words
        return changed

    def is_user(self, user: str) -> bool:
        """Tell whether the bundle was published with this user."""
        users = self.base.user_ids
        return users is not None and int(users.encode([user])[0]) >= 0

    def ranked(self, items: Sequence[str], scores: Sequence[float | None]) -> list[dict[str, Any]]:
        """Return a list as plain mappings, with titles where there are any."""
        rows: list[dict[str, Any]] = [
            {"item_id": item, "score": score, "rank": rank}
            for rank, (item, score) in enumerate(zip(items, scores, strict=True), 1)
        ]
        if self.titles:
            for row in rows:
                row["title"] = self.titles[row["item_id"]]
        return rows

    def check(self) -> None:
        """Answer some queries; `ArtifactError` if an answer is not what it should be."""
        ids = self.bundle.item_ids.ids
        common = np.argsort(-self.base.popularity[1:], kind="stable")[:3]
        newest = [ids[len(ids) - 1]]
        queries = [
            Query(history=history, times=[0] * len(history), k=10, exclude_seen=True)
            for history in ([], [ids[int(row)] for row in common], newest)
        ]
        try:
            answers = self.recommender.recommend(queries)
        except Exception as error:  # whatever a model raises here, it does not answer
            what = f"the model fails at its first queries: {type(error).__name__}"
            raise ArtifactError(what) from error
        for query, answer in zip(queries, answers, strict=True):
            open_items = len(ids) - len(self.recommender.removed) - len(set(query.history or ()))
            if len(answer.items) < min(10, open_items):
                raise ArtifactError(f"a list of {len(answer.items)} items instead of 10")
            if not all(map(math.isfinite, answer.scores)):
                raise ArtifactError("a score that is no finite number")

    def _indices(self, removed: frozenset[str]) -> Any:
        found = self.bundle.item_ids.encode(sorted(removed)).astype(np.int64)
        return found[found != PAD]


def load_model(path: Path, living: Living, observe: Observer | None = None) -> ServedModel:
    """Load a bundle, verify every byte, and have it prove itself; `ArtifactError` if it does not."""
    model = ServedModel(load_bundle(path), living, observe)
    model.check()
    return model
