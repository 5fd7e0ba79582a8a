"""What all sides of the training benchmark share: the data, the settings, the clock.

Plain Python and NumPy, because it runs in the peers' environments as well as in our own.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Settings:
    """What is equal on all sides; the feed-forward's inner layer is as wide as the model."""

    loss: str = "sampled_softmax"
    steps: int = 40
    warm_up: int = 5
    seed: int = 0
    threads: int = 2
    width: int = 64
    blocks: int = 2
    heads: int = 2
    length: int = 50
    batch: int = 128
    dropout: float = 0.2
    negatives: int = 256
    lr: float = 1e-3


@dataclass(frozen=True)
class Events:
    """Training events, user-major and oldest first; user u owns `offsets[u]:offsets[u + 1]`.

    Attributes:
        items: int64 [E], 1..n_items.
        offsets: int64 [U + 1].
        n_items: size of the catalogue.
    """

    items: Int64
    offsets: Int64
    n_items: int


@dataclass
class Clock:
    """Counts the steps of a training loop; begins when the last warm-up step has ended."""

    warm_up: int
    done: int = 0
    sequences: int = 0
    events: int = 0
    places: int = 0
    _began: tuple[float, float] = (0.0, 0.0)
    _last: tuple[float, float] = (0.0, 0.0)

    def step(self, sequences: int, events: int, places: int) -> None:
        """Note a finished step: its sequences, the events in them, the places of its rows."""
        now = (time.perf_counter(), time.process_time())
        self.done += 1
        if self.done <= self.warm_up:
            self._began = self._last = now
            return
        self._last = now
        self.sequences += sequences
        self.events += events
        self.places += places

    def measured(self) -> dict[str, Any]:
        """Return the figures of the steps after the warm-up."""
        seconds = self._last[0] - self._began[0]
        return {
            "steps": self.done - self.warm_up,
            "sequences": self.sequences,
            "seconds": round(seconds, 3),
            "processor_seconds": round(self._last[1] - self._began[1], 3),
            "sequences_per_second": round(self.sequences / seconds, 1),
            "padding_share": round(1 - self.events / self.places, 4),
        }


def read_side() -> tuple[Settings, Events]:
    """Return what the driver asks of this process: `SIDE.py EVENTS.npz SETTINGS`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("events", type=Path)
    parser.add_argument("settings", type=json.loads)
    options = parser.parse_args()
    with np.load(options.events) as file:
        arrays = {name: file[name] for name in file.files}
    n_items = int(arrays.pop("n_items"))
    return Settings(**options.settings), Events(n_items=n_items, **arrays)


def report(figures: dict[str, Any], parameters: int, packages: tuple[str, ...]) -> None:
    """Print the figures, the number of weights and the versions as the process' last line."""
    versions = {package: version(package) for package in packages}
    print(json.dumps({**figures, "parameters": parameters, "versions": versions}), flush=True)
