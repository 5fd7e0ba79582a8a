"""A directory of bundles: which of them was published last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from recsys.errors import ArtifactError
from recsys.manifest import MANIFEST

REGISTRY: Final = "mlflow.db"
"""In the output directory: MLflow's database, unless it is told to be elsewhere."""
PUBLISHED: Final = "published.json"
"""In the directory of bundles: which one was published last, from what."""


def read_record(directory: Path) -> dict[str, Any]:
    """Return what was published last into a directory of bundles; empty if nothing was."""
    path = directory / PUBLISHED
    if not path.is_file():
        return {}
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{path} is not valid JSON ({error}); delete it") from error
    return record


def write_record(directory: Path, record: dict[str, Any]) -> None:
    """Write what was published last, whole or not at all."""
    aside = directory / f".{PUBLISHED}"
    aside.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    aside.replace(directory / PUBLISHED)


def find_bundle(path: Path) -> Path:
    """Return the bundle that a path means: itself, or in a directory of bundles the newest one.

    The newest is the one published last; without a record of that, the one written last.
    """
    if (path / MANIFEST).is_file():
        return path
    for directory in (path, path / "bundles"):
        name = read_record(directory).get("bundle")
        if name is not None and (directory / name / MANIFEST).is_file():
            return directory / str(name)
        found = [p for p in directory.glob("*@*") if (p / MANIFEST).is_file()]
        if found:
            return max(found, key=lambda p: ((p / MANIFEST).stat().st_mtime_ns, p.name))
    raise ArtifactError(
        f"{path} is no bundle and holds none; `recsys run CONFIG` ends with the path of one"
    )
