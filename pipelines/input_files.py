"""What input files hold, told by their bytes: equal files give equal keys wherever they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from recsys.manifest import file_hash

HASH_AGAIN_BELOW: Final = 64 << 20
"""Bytes of a file that is hashed every time; a larger one, only if its size or time has changed."""


def fingerprints(paths: Sequence[Path], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return size, time of change and sha256 of every file, by its path.

    Args:
        paths: the files.
        before: what this gave for the files earlier; a large file that looks the same is not read again.
    """
    found = {}
    for path in paths:
        status = path.stat()
        now: dict[str, Any] = {"size": status.st_size, "modified_ns": status.st_mtime_ns}
        known = before.get(str(path), {})
        same = all(known.get(name) == value for name, value in now.items())
        if status.st_size >= HASH_AGAIN_BELOW and same and "sha256" in known:
            found[str(path)] = known
        else:
            found[str(path)] = now | {"sha256": file_hash(path)}
    return found
