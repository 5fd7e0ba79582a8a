"""A bundle as it is loaded: its model, items, users, index and lists."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from recsys.bundle.layout import BASKET_MINUTES, EXCLUDE, TEXT
from recsys.data.sequences import Int64, SequenceStore
from recsys.data.vocabulary import Vocabulary
from recsys.models import Model
from recsys.playlist_index import PlaylistIndex
from recsys.retrieval.exclusion import Setting
from recsys.retrieval.index import Index


@dataclass(frozen=True)
class Bundle:
    """A verified bundle, loaded.

    Attributes:
        path: its directory.
        manifest: the manifest as a mapping.
        model: ready to score, in evaluation mode.
        items: one row an item, sorted by `item` (1..n_items).
        item_ids: translator between external item ids and dense indices.
        user_ids: the same for users, or None when no users travel along.
        recent: the newest events of those users, which the model reads; or None.
        seen: the items of all their events, memory-mapped, by which lists leave out what was seen; with
            repeats and in order, so that a repeat window of any length is exact; or None.
        index: searchable item vectors, or None for models that score without them.
        popularity: training events per item, int64 [n_items + 1].
        playlists: the users' lists, searchable; or None.
    """

    path: Path
    manifest: dict[str, Any]
    model: Model
    items: pl.DataFrame
    item_ids: Vocabulary
    user_ids: Vocabulary | None
    recent: SequenceStore | None
    seen: SequenceStore | None
    index: Index | None
    popularity: Int64
    playlists: PlaylistIndex | None = None

    @property
    def text(self) -> Path | None:
        """Where the bundle has what places a new item by its texts, if it has."""
        path = self.path / TEXT
        return path if path.is_dir() else None

    @property
    def name(self) -> str:
        """The name it was published under."""
        return str(self.manifest["name"])

    @property
    def version(self) -> str:
        """The first eight hex digits of its content hash."""
        return str(self.manifest["version"])

    @property
    def basket_minutes(self) -> float | None:
        """How long a basket of the data lasts, where times make the baskets; else None."""
        minutes = self.manifest["info"].get(BASKET_MINUTES)
        return None if minutes is None else float(minutes)

    @property
    def exclude(self) -> Setting:
        """The rule of exclusion the model was evaluated by, as in `evaluation.exclude`.

        A bundle that was written without one leaves out all that was seen.
        """
        rule: Setting = self.manifest["info"].get(EXCLUDE, "seen")
        return rule
