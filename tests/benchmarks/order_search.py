"""In which order is a set best written? The experiments of Vinyals, Bengio and Kudlur 2015, section 5.

An LSTM writes K variables one after another; an element is a variable with its value, and the decoder
chooses both. Every variable is written once. Two tasks:

    star      K = 10 variables of 10 symbols: a head, and leaves that depend on the head alone (drawn
              tables, Dirichlet 0.5); 200, 2,000 or 20,000 samples
    setlists  five songs that were played one after another at a Grateful Dead concert; the variable is
              the place among the five; tested on the newest tenth of the shows

and these orders: fixed ones (of the star: head first, head last; of the songs: natural, reversed,
shuffled, 5 1 3 4 2 in the paper's words) and searched ones (`recsys.losses.order_search`: uniform
orders throughout, the likeliest without a warm-up, sampled ones after a warm-up, the same corrected by
their weights). A fixed order's likelihood is that of its one sequence. Of a searched one it is the sum
over all orders: exactly where there are 120 of them, else estimated from 32 drawn orders with their
exact weights, which is on average a little too pessimistic. So all are likelihoods of the same sets,
and their perplexities per variable compare. The best step is chosen on validation.

Every cell is a small JSON file that is skipped when it is there.

    python tests/benchmarks/order_search.py --data ../data
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environments import machine, now
from torch import Tensor, nn

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results" / "order_search"
SEARCHED = ("uniform", "hard", "sampled", "corrected")
STAR, SYMBOLS, SONGS = 10, 10, 5
SIZES = (200, 2_000, 20_000)
FIXED: dict[str, dict[str, tuple[int, ...]]] = {
    "star": {"head first": tuple(range(STAR)), "head last": (*range(1, STAR), 0)},
    "setlists": {
        "natural": (0, 1, 2, 3, 4),
        "reversed": (4, 3, 2, 1, 0),
        "shuffled": (4, 0, 2, 3, 1),
    },
}
DRAWN = 32
CHECKS = 20


@dataclass(frozen=True)
class Sets:
    """A task: classes int64 [N, K] of training, validation and test, and how many classes there are.

    Class = variable x values + value. `entropy` is the true mean -log p of the test sets, if known.
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    values: int
    entropy: float | None = None


def main() -> None:
    """Train and test every cell that is asked for and not there yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("RECSYS_DATA_DIR"))
    parser.add_argument("--tasks", default="star-200,star-2000,star-20000,setlists")
    parser.add_argument("--orders", help="with commas between; all by default")
    parser.add_argument("--updates", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=96)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    for task in options.tasks.split(","):
        orders = [*FIXED[task.split("-")[0]], *SEARCHED]
        for order in options.orders.split(",") if options.orders else orders:
            for seed in map(int, options.seeds.split(",")):
                name = f"{task}-{order.replace(' ', '_')}-u{options.updates}-s{seed}.json"
                path = options.output / name
                if not path.is_file():
                    result = run(task, order, seed, options)
                    path.write_text(json.dumps(result, indent=1) + "\n")
                print(line(json.loads(path.read_text())), flush=True)


def line(result: dict[str, Any]) -> str:
    """Return one row of the table."""
    true = result["true_perplexity"]
    return (
        f"{result['task']:<11} {result['order']:<11} seed {result['seed']}  perplexity "
        f"{result['perplexity']:8.3f} [{result['low']:.3f}, {result['high']:.3f}]"
        + (f"  true {true:.3f}" if true else "")
        + f"  first {result['first']}  {result['seconds']:.0f} s"
    )


def run(task: str, order: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train one cell and return its record."""
    sets = star(int(task.split("-")[1])) if task.startswith("star") else setlists(options.data)
    fixed = FIXED[task.split("-")[0]].get(order)
    torch.manual_seed(seed)
    writer = Writer(sets.train.shape[1], sets.values, options.hidden)
    began = time.perf_counter()
    best = train(writer, sets, order, fixed, seed, options)
    losses = surprise(writer, sets.test, fixed, seed) / sets.test.shape[1]  # [N], per variable
    spread = 1.96 * float(losses.std()) / math.sqrt(len(losses))
    mean = float(losses.mean())
    return {
        "benchmark": "order_search",
        "date": now(),
        "command": f"python tests/benchmarks/order_search.py --tasks {task} --orders '{order}' "
        f"--updates {options.updates} --batch {options.batch} --hidden {options.hidden} "
        f"--lr {options.lr} --seeds {seed}",
        "task": task,
        "order": order,
        "seed": seed,
        "perplexity": round(math.exp(mean), 4),
        "low": round(math.exp(mean - spread), 4),
        "high": round(math.exp(mean + spread), 4),
        "true_perplexity": None
        if sets.entropy is None
        else round(math.exp(sets.entropy / sets.test.shape[1]), 4),
        "first": first_written(writer, sets.test, fixed, seed),
        "best_update": best,
        "sets": [len(sets.train), len(sets.validation), len(sets.test)],
        "seconds": round(time.perf_counter() - began, 1),
        "versions": {"torch": version("torch")},
        "machine": machine(),
    }


def star(samples: int) -> Sets:
    """Draw a star model and samples of it; the model is the same for every size and seed."""
    rng = np.random.default_rng(7)
    head = rng.dirichlet(np.full(SYMBOLS, 0.5))
    leaves = rng.dirichlet(np.full(SYMBOLS, 0.5), (STAR - 1, SYMBOLS))  # [leaf, head, symbol]
    log_p, drawn = [], []
    sizes = (samples, 500, 500)
    for size in sizes:
        h = rng.choice(SYMBOLS, size, p=head)
        u = rng.random((size, STAR - 1, 1))
        tables = leaves[:, h].swapaxes(0, 1)  # [size, leaf, symbol]
        x = np.minimum((tables.cumsum(2) < u).sum(2), SYMBOLS - 1)
        p = np.take_along_axis(tables, x[:, :, None], 2)[:, :, 0]
        log_p.append(np.log(head[h]) + np.log(p).sum(1))
        values = np.concatenate([h[:, None], x], axis=1)
        drawn.append(torch.from_numpy(values + SYMBOLS * np.arange(STAR)))
    return Sets(drawn[0], drawn[1], drawn[2], SYMBOLS, float(-log_p[2].mean()))


def setlists(folder: Path | None) -> Sets:
    """Return all windows of five songs of a show; tested on a tenth of the shows, the newest."""
    import polars as pl

    if folder is None:
        raise SystemExit("name the folder of the data sets with --data or RECSYS_DATA_DIR")
    songs = pl.read_csv(folder / "grateful-dead" / "setlists.csv", infer_schema=False)
    items = songs["song"].rank("dense").to_numpy().astype(np.int64) - 1
    show = songs["show_date"].rle_id().to_numpy()
    values, count = int(items.max()) + 1, int(show.max()) + 1
    windows = np.lib.stride_tricks.sliding_window_view(items, SONGS)
    begins, ends = show[: len(windows)], show[SONGS - 1 :]
    whole = begins == ends
    windows, of = windows[whole] + values * np.arange(SONGS), begins[whole]
    test, validation = count - count // 10, count - count // 5
    rng = np.random.default_rng(7)
    parts = [windows[of < validation]]
    for held, size in (((of >= validation) & (of < test), 500), (of >= test, 500)):
        chosen = np.flatnonzero(held)
        parts.append(windows[np.sort(rng.choice(chosen, size, replace=False))])
    return Sets(*map(torch.from_numpy, parts), values)


class Writer(nn.Module):
    """An LSTM over what was written; p of every class of a variable that is still to be written."""

    def __init__(self, variables: int, values: int, hidden: int) -> None:
        super().__init__()
        self.values, self.classes = values, variables * values
        self.embedding = nn.Embedding(self.classes + 1, hidden)  # the last one begins
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.drop = nn.Dropout(0.3)
        self.out = nn.Linear(hidden, self.classes)

    def forward(self, prefix: Tensor, rows: Tensor) -> Tensor:
        """Return log p of what follows each prefix, float [N, t + 1, C] (a `Scorer`)."""
        begin = torch.full((len(prefix), 1), self.classes, dtype=torch.int64)
        read = self.embedding(torch.cat([begin, prefix], 1))
        logits = self.out(self.drop(self.lstm(self.drop(read))[0]))  # [N, t + 1, C]
        variables = self.classes // self.values
        written = nn.functional.one_hot(prefix // self.values, variables).cumsum(1)  # [N, t, K]
        written = nn.functional.pad(written, (0, 0, 1, 0)) > 0
        masked = logits.masked_fill(written.repeat_interleave(self.values, 2), -1e30)
        log_p: Tensor = masked.log_softmax(2)
        return log_p


def train(
    writer: Writer,
    sets: Sets,
    order: str,
    fixed: tuple[int, ...] | None,
    seed: int,
    options: argparse.Namespace,
) -> int:
    """Train for all updates, keep the weights that are best on validation, return their update."""
    optimizer = torch.optim.Adam(writer.parameters(), lr=options.lr)
    generator = torch.Generator().manual_seed(seed + 1)
    loss_of = losses(writer, order, fixed, options.updates, generator)
    best, kept, at = math.inf, writer.state_dict(), 0
    for update in range(1, options.updates + 1):
        pick = torch.randint(len(sets.train), (options.batch,), generator=generator)
        optimizer.zero_grad()
        loss_of(sets.train[pick], update).mean().backward()
        nn.utils.clip_grad_norm_(writer.parameters(), 2.0)
        optimizer.step()
        if update % (options.updates // CHECKS) == 0:
            found = float(surprise(writer, sets.validation[:200], fixed, seed, drawn=8).mean())
            if found < best:
                best, at = found, update
                kept = {name: value.clone() for name, value in writer.state_dict().items()}
    writer.load_state_dict(kept)
    return at


def losses(
    writer: Writer,
    order: str,
    fixed: tuple[int, ...] | None,
    updates: int,
    generator: torch.Generator,
) -> Callable[[Tensor, int], Tensor]:
    """Return the training loss of a batch of sets at an update."""
    from recsys.losses.order import in_order
    from recsys.losses.order_search import OrderSearch

    if fixed is not None:
        return lambda some, update: in_order(writer, some[:, list(fixed)], _whole(some))
    warm_up = 0 if order == "hard" else updates // 4
    search = OrderSearch(order, warm_up, 4 if order == "corrected" else 1, width=4)  # type: ignore[arg-type]
    return lambda some, update: search.loss(writer, some, _whole(some), update, generator)


def _whole(sets: Tensor) -> Tensor:
    return torch.ones_like(sets, dtype=torch.bool)


@torch.no_grad()
def surprise(
    writer: Writer, sets: Tensor, fixed: tuple[int, ...] | None, seed: int, drawn: int = DRAWN
) -> Tensor:
    """Return -log p of every set, float [N]: of its one order, or of all orders together."""
    from recsys.losses.order import every_order, in_order
    from recsys.losses.order_search import corrected_orders

    writer.eval()
    generator = torch.Generator().manual_seed(seed + 3)
    found = []
    for some in sets.split(25):
        if fixed is not None:
            found.append(in_order(writer, some[:, list(fixed)], _whole(some)))
        elif some.shape[1] <= SONGS and drawn == DRAWN:
            found.append(every_order(writer, some, _whole(some)))
        else:
            found.append(corrected_orders(writer, some, _whole(some), drawn, generator))
    writer.train()
    return torch.cat(found)


@torch.no_grad()
def first_written(
    writer: Writer, sets: Tensor, fixed: tuple[int, ...] | None, seed: int
) -> list[float]:
    """Return how often each variable is written first."""
    from recsys.losses.order_search import sampled_order

    variables = sets.shape[1]
    if fixed is not None:
        return [float(variable == fixed[0]) for variable in range(variables)]
    writer.eval()
    generator = torch.Generator().manual_seed(seed + 4)
    drawn = sampled_order(writer, sets[:500], _whole(sets[:500]), 1, generator)
    counts = torch.bincount(drawn.written[:, 0] // writer.values, minlength=variables)
    return [round(float(count) / len(drawn.written), 3) for count in counts]


if __name__ == "__main__":
    main()
