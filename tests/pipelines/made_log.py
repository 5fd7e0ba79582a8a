"""A made log and its experiment, for the tests of the prepare stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.config import ExperimentConfig, parse_config

START = 1_600_000_000


def make_log(rows: int, seed: int = 0) -> pl.DataFrame:
    """Return a log with repeats, ties and rare users and items, out of order."""
    rng = np.random.default_rng(seed)
    user = np.minimum(rng.geometric(0.04, rows), 60)
    return pl.DataFrame(
        {
            "user_id": user * 37 % 101,
            "item_id": np.minimum(rng.geometric(0.07, rows), 50) * 11,
            "timestamp": START + rng.integers(0, 40, rows) * 3600,
            "weight": rng.integers(1, 6, rows),
        }
    )


def write_log(log: pl.DataFrame, folder: Path, files: int = 3) -> list[str]:
    """Write a log as some Parquet files; return their names."""
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-log.height // files)
    names = [str(folder / f"events-{n}.parquet") for n in range(files)]
    for n, name in enumerate(names):
        log.slice(n * size, size).write_parquet(name)
    return names


def config_of(folder: Path, events: list[str], **sections: Any) -> ExperimentConfig:
    data = {"events": events, **sections.pop("data", {})}
    return parse_config(
        {
            "name": "test",
            "seed": 3,
            "output": str(folder / "out"),
            "data": data,
            "models": {"pop": {"kind": "pop"}},
            "ray": {"workers": 2, "partitions": 4},
            **sections,
        }
    )
