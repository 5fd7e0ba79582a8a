"""Small files written for a test, and the configuration that reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recsys.config import DataConfig

CSV = "user_id,item_id,timestamp\nu1,007,100\nu1,b,200\nu2,007,150\n"


def write(path: Path, content: str | bytes) -> str:
    """Write a file and return its path."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def config(*events: str, **fields: Any) -> DataConfig:
    """Return the configuration that reads these event files."""
    return DataConfig(events=list(events), **fields)
