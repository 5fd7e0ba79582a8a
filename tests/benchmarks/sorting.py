"""Sorting by Read-Process-Write: the experiment of Vinyals, Bengio and Kudlur 2015, section 4.

N numbers drawn uniformly from (0, 1) are read, processed for P steps and written in ascending order by
a pointer network with or without a glimpse. It may point at a number again (`repeats`): kept from
that, one score that falls as the numbers rise would sort any N of them. 10,000 updates on fresh
numbers; the figure is the share of 10,000 further sets whose whole order is right. Hidden size, batch
and optimiser were not published; ours are in the options. Every cell (N, P, glimpses, updates, seed) is
a small JSON file of its own that is skipped when it is there, so the same command goes on where it was
stopped; a cell that was cut in the middle goes on from its last five hundred updates, and ends where an
undisturbed one does.

    python tests/benchmarks/sorting.py                                  # all cells
    python tests/benchmarks/sorting.py --numbers 5 --steps 10 --glimpses 1
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from environments import machine, now
from torch import Tensor

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results" / "sorting"
PUBLISHED = {
    # (N, P): exact orders in per cent, without and with a glimpse
    **{(5, 0): (65, 84), (5, 1): (84, 92), (5, 5): (88, 94), (5, 10): (90, 94)},
    **{(10, 0): (7, 30), (10, 1): (14, 44), (10, 5): (17, 57), (10, 10): (19, 50)},
    **{(15, 0): (1, 2), (15, 1): (0, 5), (15, 5): (2, 4), (15, 10): (0, 10)},
}
TESTED = 10_000
EVERY = 500
"""Updates between two checkpoints of a cell."""


def main() -> None:
    """Train and test every cell that is asked for and not there yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--numbers", default="5,10,15", help="N, with commas between")
    parser.add_argument("--steps", default="0,1,5,10", help="P, with commas between")
    parser.add_argument("--glimpses", default="0,1")
    parser.add_argument("--updates", type=int, default=10_000)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, default=Path("out/sorting"), help="for checkpoints")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    for numbers, steps, glimpses in cells(options):
        name = f"n{numbers}-p{steps}-g{glimpses}-u{options.updates}-s{options.seed}.json"
        path = options.output / name
        if not path.is_file():
            options.work.mkdir(parents=True, exist_ok=True)
            # What a checkpoint belongs to beside its cell: settings that a cell's name does not hold.
            sizes = f"h{options.hidden}-b{options.batch}-lr{options.lr}"
            kept = options.work / f"{path.stem}-{sizes}.pt"
            result = run(numbers, steps, glimpses, options, kept)
            path.write_text(json.dumps(result, indent=1) + "\n")
            kept.unlink(missing_ok=True)
        result = json.loads(path.read_text())
        print(
            f"N {numbers:2d}  P {steps:2d}  glimpses {glimpses}  exact {result['exact']:.4f}  "
            f"published {result['published']}  {result['seconds']:.0f} s",
            flush=True,
        )


def cells(options: argparse.Namespace) -> list[tuple[int, int, int]]:
    """Return the `(numbers, steps, glimpses)` that are asked for."""
    axes = [
        [int(text) for text in getattr(options, axis).split(",")]
        for axis in ("numbers", "steps", "glimpses")
    ]
    return [(n, p, g) for n in axes[0] for p in axes[1] for g in axes[2]]


def run(
    numbers: int, steps: int, glimpses: int, options: argparse.Namespace, kept: Path
) -> dict[str, Any]:
    """Train one cell and return its record; `kept` holds its checkpoint meanwhile.

    Seconds are those of all attempts.
    """
    torch.manual_seed(options.seed)
    sorter = Sorter(options.hidden, steps, glimpses)
    generator = torch.Generator().manual_seed(options.seed + 1)
    losses, seconds = train(sorter, numbers, generator, options, kept)
    began = time.perf_counter()
    exact = accuracy(sorter, numbers, torch.Generator().manual_seed(options.seed + 2))
    published = PUBLISHED.get((numbers, steps))
    return {
        "benchmark": "sorting",
        "date": now(),
        "command": f"python tests/benchmarks/sorting.py --numbers {numbers} --steps {steps} "
        f"--glimpses {glimpses} --updates {options.updates} --hidden {options.hidden} "
        f"--batch {options.batch} --lr {options.lr} --seed {options.seed}",
        "numbers": numbers,
        "steps": steps,
        "glimpses": glimpses,
        "exact": round(exact, 4),
        "standard_error": round(math.sqrt(exact * (1 - exact) / TESTED), 4),
        "published": None
        if published is None or glimpses > 1 or options.updates != 10_000
        else published[glimpses] / 100,
        "losses": losses,
        "seconds": round(seconds + time.perf_counter() - began, 1),
        "versions": {"torch": version("torch")},
        "machine": machine(),
    }


class Sorter(torch.nn.Module):
    """Read-Process-Write over single numbers."""

    def __init__(self, hidden: int, steps: int, glimpses: int) -> None:
        from recsys.models.sets.pointer import PointerWriter
        from recsys.models.sets.read_process import ReadProcess

        super().__init__()
        self.reader = ReadProcess(1, hidden, steps)
        self.writer = PointerWriter(hidden, 2 * hidden, glimpses, repeats=True)

    def forward(self, values: Tensor, order: Tensor) -> Tensor:
        """Return -log p of each set's order, float [B]; `values` are [B, N], `order` int64 [B, N]."""
        memory, mask, context = self.given(values)
        log_p = self.writer(memory, mask, context, order)
        return -log_p.gather(2, order[:, :, None]).sum((1, 2))

    def given(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return `(memory, mask, context)` as the writer wants them."""
        mask = torch.ones_like(values, dtype=torch.bool)
        memory, context = self.reader(values[:, :, None], mask)
        return memory, mask, context

    def write(self, values: Tensor) -> Tensor:
        """Return the order it writes, int64 [B, N]."""
        order: Tensor = self.writer.write(*self.given(values))
        return order


def train(
    sorter: Sorter,
    numbers: int,
    generator: torch.Generator,
    options: argparse.Namespace,
    kept: Path,
) -> tuple[list[float], float]:
    """Train for all updates; return the mean loss of each tenth, and the seconds it took."""
    optimizer = torch.optim.Adam(sorter.parameters(), lr=options.lr, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda update: rate(update, options.updates)
    )
    sums, first, seconds = torch.zeros(10), 0, 0.0
    parts = {"sorter": sorter, "optimizer": optimizer, "schedule": schedule}
    if kept.is_file():
        state = torch.load(kept, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        generator.set_state(state["generator"])
        sums, first, seconds = state["sums"], state["update"], state["seconds"]
    began = time.perf_counter() - seconds
    for update in range(first, options.updates):
        if update > first and update % EVERY == 0:
            state = {name: part.state_dict() for name, part in parts.items()}
            state |= {"generator": generator.get_state(), "sums": sums, "update": update}
            aside = kept.with_suffix(".aside")
            torch.save({**state, "seconds": time.perf_counter() - began}, aside)
            aside.replace(kept)
        values = torch.rand(options.batch, numbers, generator=generator)
        loss = sorter(values, values.argsort(1)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(sorter.parameters(), 2.0)
        optimizer.step()
        schedule.step()
        sums[update * 10 // options.updates] += loss.detach()
    losses = [round(float(x) / max(1, options.updates / 10), 4) for x in sums]
    return losses, time.perf_counter() - began


def rate(update: int, updates: int) -> float:
    """Return the share of the learning rate: up over 2 % of the updates, then down a cosine."""
    warm = max(1, updates // 50)
    if update < warm:
        return (update + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (update - warm) / max(1, updates - warm)))


@torch.no_grad()
def accuracy(sorter: Sorter, numbers: int, generator: torch.Generator) -> float:
    """Return the share of fresh sets whose whole order is right."""
    values = torch.rand(TESTED, numbers, generator=generator)
    right = [(sorter.write(part) == part.argsort(1)).all(1) for part in values.split(1000)]
    return float(torch.cat(right).double().mean())


if __name__ == "__main__":
    main()
