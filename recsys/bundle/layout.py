"""Where the parts of a bundle lie, and what makes its version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

FORMAT = "recsys-bundle"
BUNDLE_VERSION = 3
"""Raised when a reader of one layout could not use the other; 2 added `seen/`, 3 versions by rules."""

CONFIG, WEIGHTS, ITEMS = "config.yaml", "model.safetensors", "items.parquet"
POPULARITY, USERS, RECENT, INDEX = "popularity.npy", "users.parquet", "recent", "index"
SEEN, PLAYLISTS, TEXT = "seen", "playlists", "text"
ALWAYS = (CONFIG, WEIGHTS, ITEMS, POPULARITY)
BASKET_MINUTES, EXCLUDE = "basket_minutes", "exclude"
RULES = (BASKET_MINUTES, EXCLUDE)
"""Facts of the manifest that change what is answered."""


def version_of(files: Mapping[str, Mapping[str, Any]], info: Mapping[str, Any]) -> str:
    """Return the version of a bundle of these files and facts: eight hex digits."""
    lines = "".join(f"{path} {files[path]['sha256']}\n" for path in sorted(files))
    lines += "".join(f"{rule} {json.dumps(info.get(rule))}\n" for rule in RULES)
    return hashlib.sha256(lines.encode()).hexdigest()[:8]
