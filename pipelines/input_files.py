"""What input files hold, told by their bytes: equal files give equal keys wherever they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from recsys.manifest import file_hash, stable_hash

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


def directory_hash(directory: Path) -> str:
    """Return the hash of what a directory's files hold, by their names: a tokenizer's or an encoder's.

    Within a process a file is read again only if its size or time has changed; hidden files do not count.
    """
    found = {}
    for path in sorted(directory.rglob("*")):
        inside = path.relative_to(directory)
        if path.is_file() and not any(part.startswith(".") for part in inside.parts):
            status = path.stat()
            found[str(inside)] = _read_once(path, status.st_size, status.st_mtime_ns)
    return stable_hash(found)


@lru_cache(maxsize=1024)
def _read_once(path: Path, size: int, modified_ns: int) -> str:
    del size, modified_ns  # of the cache's key
    return file_hash(path)
