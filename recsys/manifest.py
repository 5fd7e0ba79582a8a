"""Stage directories: written whole or not at all, with a manifest that says what made them.

A stage writes into a hidden sibling directory; on success `manifest.json` is added and the directory
is renamed into place, so a reader never sees half a result and a killed stage leaves no trace that
counts. One process at a time writes a directory.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from recsys import __version__
from recsys.errors import ArtifactError, RecsysError
from recsys.lock import locked

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
KEY = ".key"
"""In a working directory: the key of the stage whose unfinished work it holds."""


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Yield a path to write to; at the end it becomes `path`, so a killed and repeated task is harmless.

    Of a task that failed nothing is left. Each process has a path of its own.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def file_hash(path: Path) -> str:
    """Return the sha256 of a file's bytes as hex, read in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def stable_hash(value: Any) -> str:
    """Return a sha256 of any JSON-like value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def read_manifest(directory: Path) -> dict[str, Any]:
    """Return the manifest of a finished stage directory; `ArtifactError` if there is none.

    A directory that was lost to a kill while it was replaced is put back first.
    """
    if not directory.exists() and _aside(directory).exists():
        with suppress(RecsysError), _alone(directory):  # who holds the lock is about to replace it
            _put_back(directory)
    path = directory / MANIFEST
    if not path.is_file():
        raise ArtifactError(
            f"{directory} holds no finished stage ({MANIFEST} is missing); run the stage that makes it"
        )
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path} is not valid JSON ({error}); delete {directory}") from error
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise ArtifactError(
            f"{path} has schema version {manifest.get('schema_version')!r}, this code reads "
            f"{SCHEMA_VERSION}; run the stage again"
        )
    return manifest


def is_current(directory: Path, key: str) -> bool:
    """Tell whether `directory` was finished by a stage with exactly this key."""
    try:
        return bool(read_manifest(directory).get("key") == key)
    except ArtifactError:
        return False


@contextmanager
def stage_directory(directory: Path, key: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield `(working directory, manifest to fill)`; both are moved into place on success.

    The working directory has a fixed name, so a stage that was killed finds its own unfinished work
    (checkpoints, say) there when it runs again with the same key; work of another key is deleted.

    Raises:
        RecsysError: another process writes this directory; it is named.
    """
    with _alone(directory):
        _put_back(directory)
        work = directory.with_name(f".{directory.name}.partial")
        key_file = work / KEY
        if work.exists() and (not key_file.is_file() or key_file.read_text() != key):
            shutil.rmtree(work)
        work.mkdir(parents=True, exist_ok=True)
        key_file.write_text(key)
        manifest: dict[str, Any] = {}
        yield work, manifest
        write_manifest(work, {"key": key, **manifest})
        replace_directory(work, directory)
        (directory / KEY).unlink()  # not earlier: a kill before the move must not disown the work


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    file = directory.with_name(f".{directory.name}.lock")
    with locked(file, directory, "then run the same command again"):
        yield


def write_manifest(directory: Path, content: Mapping[str, Any]) -> None:
    """Write `manifest.json` with the schema and code versions added, atomically."""
    full = {"schema_version": SCHEMA_VERSION, "code_version": __version__, **content}
    aside = directory / f".{MANIFEST}"
    aside.write_text(json.dumps(full, indent=2, sort_keys=True, default=str) + "\n", "utf-8")
    aside.replace(directory / MANIFEST)


def replace_directory(source: Path, target: Path) -> None:
    """Move `source` to `target`, setting an existing `target` aside until the move is done.

    A kill in between leaves the old one aside, from where the next reader or writer puts it back.
    """
    old = _aside(target)
    _put_back(target)
    _delete(old)
    if target.exists():
        target.replace(old)
    source.replace(target)
    _delete(old)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _put_back(target: Path) -> None:
    """Undo half of a replacement: what lies aside is whole as long as it has a manifest."""
    old = _aside(target)
    if not target.exists() and (old / MANIFEST).is_file():
        old.replace(target)


def _delete(directory: Path) -> None:
    """Delete a directory, its manifest first, so that a half-deleted one is not taken for whole."""
    if directory.exists():
        (directory / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(directory)
