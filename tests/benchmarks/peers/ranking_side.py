"""What all sides of the evaluation benchmark share: the problem, the settings, the report.

Plain Python and NumPy, because it runs in the peers' environments as well as in our own.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt

KS = (1, 10, 50, 100)
HISTORY = 20
CLUSTER = 50
"""Items share a direction with this many others; a target lies in the cluster of the newest item."""


@dataclass(frozen=True)
class Settings:
    """What is equal on all sides; `variant` is a peer's own choice of how it ranks."""

    users: int
    items: int
    width: int
    threads: int
    seed: int
    variant: str = ""


@dataclass(frozen=True)
class Problem:
    """Vectors float32 [n_items + 1, D], histories int32 [U, 20], one target item [U]."""

    table: npt.NDArray[np.float32]
    histories: npt.NDArray[np.int32]
    targets: npt.NDArray[np.int32]

    @property
    def unseen(self) -> npt.NDArray[np.bool_]:
        """Which targets are not in their history, bool [U]: the others can never be recommended."""
        unseen: npt.NDArray[np.bool_] = ~(self.histories == self.targets[:, None]).any(axis=1)
        return unseen


def read_settings() -> Settings:
    """Return what the driver asks of this process: `SIDE.py SETTINGS`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("settings", type=json.loads)
    return Settings(**parser.parse_args().settings)


def make_problem(settings: Settings) -> Problem:
    """Return the same problem on every side."""
    rng = np.random.default_rng(settings.seed)
    cluster = np.arange(settings.items + 1) // CLUSTER
    centres = rng.standard_normal((cluster[-1] + 1, settings.width), dtype=np.float32)
    noise = rng.standard_normal((settings.items + 1, settings.width), dtype=np.float32)
    table = centres[cluster] + noise
    shape = (settings.users, HISTORY)
    histories = rng.integers(1, settings.items + 1, shape, dtype=np.int32)
    step = rng.integers(1, CLUSTER, settings.users, dtype=np.int32)
    first = histories[:, -1] // CLUSTER * CLUSTER
    targets = first + (histories[:, -1] - first + step) % CLUSTER
    return Problem(table, histories, np.clip(targets, 1, settings.items).astype(np.int32))


@dataclass
class Clock:
    """Wall and processor seconds since it was made, up to every mark."""

    def __post_init__(self) -> None:
        self.memory = peak_mb()
        self.began = (time.perf_counter(), time.process_time())
        self.marks: dict[str, float] = {}

    def mark(self, name: str) -> None:
        """Note the seconds since the mark before."""
        self.marks[name] = time.perf_counter() - self.began[0] - sum(self.marks.values())

    def seconds(self) -> dict[str, float]:
        """Return the marks, their sum, and the processor's seconds."""
        spent = time.process_time() - self.began[1]
        marks = {**self.marks, "total": sum(self.marks.values()), "processor": spent}
        return {name: round(value, 2) for name, value in marks.items()}


def peak_mb() -> float:
    """Return the greatest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(
    evaluate: Callable[[Clock], dict[str, float]], users: int, packages: tuple[str, ...]
) -> dict[str, Any]:
    """Time `evaluate` and print the figures; memory is what it takes beyond libraries and problem."""
    clock = Clock()
    metrics = evaluate(clock)
    figures = {
        "users": users,
        "seconds": clock.seconds(),
        "peak_memory_over_start_mb": round(peak_mb() - clock.memory, 1),
        "peak_memory_mb": round(peak_mb(), 1),
        "metrics": {k: round(float(v), 6) for k, v in metrics.items() if not np.isnan(v)},
        "versions": {package: version(package) for package in packages},
    }
    print(json.dumps(figures), flush=True)
    return figures
