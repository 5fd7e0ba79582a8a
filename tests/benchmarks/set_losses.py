"""What losses of sets cost: beside the plain softmax, and of matching slots to targets.

Forward and backward of 256 tokens over 100,000 items of 64 dimensions, one target each for the softmax
(`recsys.losses.Softmax`, the yardstick) and sets of ten for the losses of sets. All are timed in turn,
so that a busy machine is busy for all; the bar is a ratio: Plackett-Luce within 1.3 times the softmax.
The assignment of 64 sets of 20 targets to 20 slots has a bar in time: 20 ms with its gradient.

    python tests/benchmarks/set_losses.py
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environments import machine, now

ROOT = Path(__file__).parents[2]
RESULT = Path(__file__).parent / "results" / "set_losses.json"
RATIO_BAR, ASSIGNMENT_BAR = 1.3, 20.0


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    torch.set_num_threads(options.threads)
    given = {name: value for name, value in vars(options).items() if name != "output"}
    result = {
        "benchmark": "set_losses",
        "date": now(),
        "command": "python tests/benchmarks/set_losses.py "
        + " ".join(f"--{name} {value}" for name, value in given.items()),
        **catalogue(options),
        **slots(options),
        "versions": {package: version(package) for package in ("torch", "numpy", "scipy")},
        "machine": machine(),
        "load_average_at_end": os.getloadavg()[0],
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def catalogue(options: argparse.Namespace) -> dict[str, Any]:
    """Time the losses over the whole catalogue."""
    from recsys.data.item_sets import ItemSets
    from recsys.losses import FullSets, Softmax
    from recsys.losses.plackett_luce import plackett_luce_set
    from recsys.losses.sets import any_of, multi_positive

    generator = torch.Generator().manual_seed(options.seed)
    table = torch.randn(options.items + 1, options.width, generator=generator) * 0.1
    queries = torch.randn(options.tokens, options.width, generator=generator)
    table.requires_grad_(), queries.requires_grad_()
    rng = np.random.default_rng(options.seed)
    lists = [
        (rng.choice(options.items, options.members, replace=False) + 1).tolist()
        for _ in range(options.tokens)
    ]
    sets, targets = ItemSets.of_lists(lists), torch.tensor([one[0] for one in lists])
    softmax = Softmax()
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "softmax": lambda: softmax(queries, targets, table)
    }
    for form in (multi_positive, any_of, plackett_luce_set):
        loss = FullSets(form)
        ways[form.__name__] = lambda loss=loss: loss(queries, sets, table)
    seconds = timed({name: with_gradient(way) for name, way in ways.items()}, options.rounds)
    ratios = {
        name: round(float(np.median(took / seconds["softmax"])), 3)
        for name, took in seconds.items()
        if name != "softmax"
    }
    return {
        "milliseconds": {name: milliseconds(took) for name, took in seconds.items()},
        "ratio_to_softmax_median": ratios,
        "ratio_to_softmax_of_best": {
            name: round(float(seconds[name].min() / seconds["softmax"].min()), 3) for name in ratios
        },
        "ratio_bar": RATIO_BAR,
    }


def slots(options: argparse.Namespace) -> dict[str, Any]:
    """Time the losses between 20 slots and 20 targets, of 64 sets at once."""
    from recsys.losses.matching import assignment, chamfer, sinkhorn

    generator = torch.Generator().manual_seed(options.seed)
    cost = torch.rand(64, 20, 20, generator=generator).log().neg().requires_grad_()
    mask = torch.ones(64, 20, dtype=torch.bool)
    ways = {
        loss.__name__: with_gradient(lambda loss=loss: loss(cost, mask).mean())
        for loss in (assignment, sinkhorn, chamfer)
    }
    seconds = timed(ways, options.rounds)
    return {
        "slots_milliseconds": {name: milliseconds(took) for name, took in seconds.items()},
        "assignment_bar_ms": ASSIGNMENT_BAR,
    }


def with_gradient(way: Callable[[], torch.Tensor]) -> Callable[[], None]:
    """Return the forward and the backward pass as one call."""
    return lambda: way().backward()  # type: ignore[no-untyped-call]


def timed(ways: dict[str, Callable[[], None]], rounds: int) -> dict[str, Any]:
    """Return the seconds of each round, float64 [rounds], all ways taking turns."""
    seconds = {name: np.empty(rounds) for name in ways}
    for round_ in range(-2, rounds):  # two rounds to warm up
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if round_ >= 0:
                seconds[name][round_] = time.perf_counter() - began
    return seconds


def milliseconds(took: Any) -> dict[str, float]:
    """Return the best and the median, in milliseconds."""
    return {
        "best": round(float(took.min()) * 1e3, 2),
        "median": round(float(np.median(took)) * 1e3, 2),
    }


if __name__ == "__main__":
    main()
