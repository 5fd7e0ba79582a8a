"""The recommender: what it is asked, how it resolves that, what it answers."""

from __future__ import annotations

from recsys.decoding.settings import SearchSettings
from recsys.recommender.item_texts import ItemText, ReadText, TextReader
from recsys.recommender.playlists import FoundPlaylists, PlaylistsForSong, SimilarPlaylists
from recsys.recommender.recommender import Observer, Recommender
from recsys.recommender.requests import (
    EMPTY_HISTORY,
    UNKNOWN_HISTORY,
    UNKNOWN_USER,
    Continuation,
    Continue,
    ContinuedList,
    Query,
    Recommendation,
    Strategy,
)

__all__ = [
    "EMPTY_HISTORY",
    "UNKNOWN_HISTORY",
    "UNKNOWN_USER",
    "Continuation",
    "Continue",
    "ContinuedList",
    "FoundPlaylists",
    "ItemText",
    "Observer",
    "PlaylistsForSong",
    "Query",
    "ReadText",
    "Recommendation",
    "Recommender",
    "SearchSettings",
    "SimilarPlaylists",
    "Strategy",
    "TextReader",
]
