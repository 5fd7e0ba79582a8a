"""Models of playlists: what makes one vector of a list, and lists of vectors."""

from __future__ import annotations

from recsys.models.playlists.contract import Embedder, compact

__all__ = ["Embedder", "compact"]
