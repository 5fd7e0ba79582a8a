"""The least configuration there is, and how to change and write it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

MINIMAL: dict[str, Any] = {
    "name": "mine",
    "data": {"events": ["events.csv"]},
    "models": {"pop": {"kind": "pop"}},
}


def raw_with(path: str, value: Any) -> dict[str, Any]:
    """Return MINIMAL with one value set at a dotted place."""
    raw = copy.deepcopy(MINIMAL)
    node = raw
    *parents, leaf = path.split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
    node[leaf] = value
    return raw


def write(tmp_path: Path, raw: Any) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw), encoding="utf-8")
    return path


DEEP = {"kind": "sasrec"}
