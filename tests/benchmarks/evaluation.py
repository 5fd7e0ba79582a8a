"""Full-ranking evaluation against RecTools', on this machine.

Both get the same vectors and events: users with a history of 20 items and one target each, the seen
items excluded, lists of 100, the same metrics at four cut-offs. Ours are 10 metrics; RecTools computes
those of them that it has (hit rate, recall, NDCG, MRR, MAP, precision, coverage, and for novelty its
mean inverse user frequency) and average popularity; it has neither Gini nor a distance over vectors.
RecTools is given the query vectors, ours encodes the histories. RecTools ranks by `TorchRanker`, which
its sequence models use, and by `ImplicitRanker`, the faster one of its matrix models; it is installed
into a throw-away environment (kept below --cache) and run there as a process of its own, so that peak
memory is each side's own. Where --peer-users is less than --users, its time is scaled up linearly.
The sides take turns for several rounds, because the machine may be busy with other things: figures are
of each side's median round, and all rounds are stored. The bar is a fifth of the peer's time.

    python tests/benchmarks/evaluation.py
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).parents[2]
RESULT = Path(__file__).parent / "results" / "evaluation.json"
BAR = 5.0
KS = (1, 10, 50, 100)
HISTORY = 20
CLUSTER = 50
"""Items share a direction with this many others; a target lies in the cluster of the newest item."""
RECTOOLS = ("rectools[torch]==0.19.0", "torch==2.13.0")
PARTS = ("ours", "rectools_torch", "rectools_implicit")


@dataclass(frozen=True)
class Problem:
    """Vectors float32 [n_items + 1, D], histories int32 [U, 20], one target item [U]."""

    table: npt.NDArray[np.float32]
    histories: npt.NDArray[np.int32]
    targets: npt.NDArray[np.int32]


def main() -> None:
    """Measure each side in its own process and store."""
    options = parse()
    if options.part:
        print(json.dumps(run_part(options)))
        return
    peer_python = peer_environment(options.cache)
    rounds: dict[str, list[dict[str, Any]]] = {part: [] for part in PARTS}
    for _ in range(options.rounds):
        for part in PARTS:
            mine = part == "ours"
            users = options.users if mine else options.peer_users or options.users
            python = sys.executable if mine else str(peer_python)
            rounds[part].append(run_side(python, part, users, options))
    sides = {part: median_round(measured) for part, measured in rounds.items()}
    result = {**summarise(sides, options), "sides": sides, **describe(options)}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--peer-users", type=int, default=0, help="fewer for the peer; 0 = all")
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "recsys-benchmark-rectools"
    )
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    return parser.parse_args()


def make_problem(options: argparse.Namespace) -> Problem:
    """Return the same problem for every side."""
    rng = np.random.default_rng(options.seed)
    cluster = np.arange(options.items + 1) // CLUSTER
    centres = rng.standard_normal((cluster[-1] + 1, options.width), dtype=np.float32)
    noise = rng.standard_normal((options.items + 1, options.width), dtype=np.float32)
    table = centres[cluster] + noise
    histories = rng.integers(1, options.items + 1, (options.users, HISTORY), dtype=np.int32)
    step = rng.integers(1, CLUSTER, options.users, dtype=np.int32)
    first = histories[:, -1] // CLUSTER * CLUSTER
    targets = first + (histories[:, -1] - first + step) % CLUSTER
    targets = np.clip(targets, 1, options.items).astype(np.int32)
    return Problem(table, histories, targets)


def run_side(python: str, part: str, users: int, options: argparse.Namespace) -> dict[str, Any]:
    """Run one side in a process of its own and return what it measured."""
    command = [python, __file__, "--part", part, "--users", str(users)]
    for name in ("items", "width", "threads", "seed"):
        command += [f"--{name}", str(getattr(options, name))]
    threads = {f"{name}_NUM_THREADS": str(options.threads) for name in ("OMP", "MKL")}
    threads["OPENBLAS_NUM_THREADS"] = "1"  # implicit's own threads do its products
    # Arrays above 16 MiB go back to the system when freed; by glibc's default those of TorchRanker
    # stay, and grow to 23 GB at full size. It costs none of the sides time.
    memory = {"MALLOC_MMAP_THRESHOLD_": str(1 << 24), "MALLOC_TRIM_THRESHOLD_": str(1 << 28)}
    environment = {**os.environ, **threads, **memory}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def median_round(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the round of median time, with the times of all."""
    ordered = sorted(rounds, key=lambda measured: measured["seconds"]["total"])
    totals = [measured["seconds"]["total"] for measured in rounds]
    return {**ordered[len(ordered) // 2], "total_of_each_round": totals}


def run_part(options: argparse.Namespace) -> dict[str, Any]:
    """Measure one side in this process; memory is what it takes beyond libraries and problem."""
    import torch

    torch.set_num_threads(options.threads)
    problem = make_problem(options)
    side = ours if options.part == "ours" else rectools
    prepared = side(problem, options)
    before = peak_mb()
    measured = prepared()
    return {
        "users": options.users,
        "seconds": {name: round(value, 2) for name, value in measured["seconds"].items()},
        "peak_memory_over_start_mb": round(peak_mb() - before, 1),
        "peak_memory_mb": round(peak_mb(), 1),
        "metrics": {
            name: round(float(value), 6)
            for name, value in measured["metrics"].items()
            if not np.isnan(value)
        },
        "versions": measured["versions"],
    }


def ours(problem: Problem, options: argparse.Namespace) -> Any:
    """Return a call that ranks all targets and derives 10 metrics at four cut-offs."""
    sys.path.insert(0, str(ROOT))
    from importlib.metadata import version

    import torch

    from recsys.config import EvaluationConfig
    from recsys.data.batches import SequenceBatch
    from recsys.data.sequences import SequenceStore, Split, Targets
    from recsys.evaluation.beyond import coverage, gini, list_counts
    from recsys.evaluation.evaluate import Ground, metric_rows, target_values
    from recsys.evaluation.intervals import mean_over_users, user_means
    from recsys.evaluation.ranking import rank_targets
    from recsys.models.contract import EncoderModel

    class Newest(EncoderModel):
        """The query is the vector of the newest item."""

        def __init__(self, table: torch.Tensor) -> None:
            super().__init__(len(table) - 1, table.shape[1])
            self.max_length = HISTORY
            self.register_buffer("table", table)

        def hidden(self, batch: SequenceBatch) -> torch.Tensor:
            return self.table[batch.items]

        def encode_items(self, items: torch.Tensor | None = None) -> torch.Tensor:
            return self.table if items is None else self.table[items]

    users = len(problem.targets)
    events = np.concatenate([problem.histories, problem.targets[:, None]], axis=1)
    offsets = np.arange(users + 1, dtype=np.int64) * (HISTORY + 1)
    store = SequenceStore(events.ravel(), offsets, options.items)
    targets = Targets(np.arange(users, dtype=np.int32), offsets[1:] - 1, offsets[1:])
    counts = np.bincount(problem.histories.ravel(), minlength=options.items + 1)
    config = EvaluationConfig(ks=list(KS), list_length=max(KS))
    ground = Ground(
        dataset="benchmark",
        store=store,
        split=Split(offsets[1:] - 1, targets, targets),
        split_name="test",
        config=config,
        item_counts=counts,
        item_vectors=problem.table,
        seed=options.seed,
    )
    model = Newest(torch.from_numpy(problem.table))

    def run() -> dict[str, Any]:
        before, began = time.process_time(), time.perf_counter()
        ranked = rank_targets(model, store, targets, config)
        ranking = time.perf_counter()
        keys, values = target_values(ranked, ground)
        means = mean_over_users(user_means(values, ranked.user)[1])
        metrics = {f"{name}@{k}": mean for (name, k), mean in zip(keys, means, strict=True)}
        for k in KS:
            listed = list_counts(ranked.top, k, options.items)
            metrics |= {f"coverage@{k}": coverage(listed), f"gini@{k}": gini(listed)}
        measured, spent = time.perf_counter(), time.process_time()
        metric_rows("newest", ranked, ground)
        return {
            "seconds": {
                "ranking": ranking - began,
                "metrics": measured - ranking,
                "total": measured - began,
                "processor": spent - before,
                "intervals_and_slices": time.perf_counter() - measured,
            },
            "metrics": metrics,
            "versions": {name: version(name) for name in ("torch", "numpy")},
        }

    return run


def rectools(problem: Problem, options: argparse.Namespace) -> Any:
    """Return a call that ranks and measures with RecTools (in its own environment)."""
    from importlib.metadata import version

    import pandas as pd
    from rectools import metrics as m
    from rectools.models.rank import Distance, ImplicitRanker, TorchRanker
    from scipy import sparse

    users, shape = len(problem.targets), (len(problem.targets), options.items + 1)
    rows = np.repeat(np.arange(users), HISTORY)
    seen = sparse.csr_matrix(
        (np.ones(rows.size, np.float32), (rows, problem.histories.ravel())), shape
    )
    queries = problem.table[problem.histories[:, -1]]
    catalogue = np.arange(1, options.items + 1)
    held_out = pd.DataFrame({"user_id": np.arange(users), "item_id": problem.targets})
    # A target that was seen is left out on our side, too.
    held_out = held_out[~(problem.histories == problem.targets[:, None]).any(axis=1)]
    past = pd.DataFrame({"user_id": rows, "item_id": problem.histories.ravel()})
    held_out["weight"] = past["weight"] = 1
    asked = {}
    for k in KS:
        asked |= {
            f"hr@{k}": m.HitRate(k),
            f"recall@{k}": m.Recall(k),
            f"ndcg@{k}": m.NDCG(k, divide_by_achievable=True),
            f"mrr@{k}": m.MRR(k),
            f"map@{k}": m.MAP(k),
            f"precision@{k}": m.Precision(k),
            f"coverage@{k}": m.CatalogCoverage(k, normalize=True),
            f"inverse_user_frequency@{k}": m.MeanInvUserFreq(k),
            f"popularity@{k}": m.AvgRecPopularity(k),
        }

    def run() -> dict[str, Any]:
        before, began = time.process_time(), time.perf_counter()
        if options.part == "rectools_torch":
            ranker = TorchRanker(Distance.DOT, "cpu", queries, problem.table)
        else:
            ranker = ImplicitRanker(
                Distance.DOT, queries, problem.table, num_threads=options.threads
            )
        user, item, score = ranker.rank(
            np.arange(users), max(KS), filter_pairs_csr=seen, sorted_object_whitelist=catalogue
        )
        ranking = time.perf_counter()
        lists = pd.DataFrame({"user_id": user, "item_id": item, "score": score})
        lists["rank"] = lists.groupby("user_id", sort=False).cumcount() + 1
        lists = lists[lists["user_id"].isin(held_out["user_id"])]
        values = m.calc_metrics(asked, lists, held_out, past, catalogue)
        measured = time.perf_counter()
        return {
            "seconds": {
                "ranking": ranking - began,
                "metrics": measured - ranking,
                "total": measured - began,
                "processor": time.process_time() - before,
            },
            "metrics": values,
            "versions": {name: version(name) for name in ("rectools", "torch", "numpy", "pandas")},
        }

    return run


def summarise(sides: dict[str, dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """Return the ratios, and the greatest difference in the metrics that both sides have."""
    mine = sides["ours"]
    result: dict[str, Any] = {"bar": BAR}
    for part in PARTS[1:]:
        theirs = sides[part]
        scale = options.users / theirs["users"]
        shared = sorted(set(mine["metrics"]) & set(theirs["metrics"]))
        result[part] = {
            "seconds_scaled_to_our_users": round(theirs["seconds"]["total"] * scale, 1),
            "scaled_by": scale,
            "times_slower_than_ours": ratio(theirs, mine, "total", scale),
            "times_more_processor_seconds": ratio(theirs, mine, "processor", scale),
            "shared_metrics": len(shared),
            "greatest_difference": max(
                abs(mine["metrics"][name] - theirs["metrics"][name]) for name in shared
            )
            if scale == 1
            else None,
        }
    return result


def ratio(theirs: dict[str, Any], mine: dict[str, Any], name: str, scale: float) -> float:
    """Return how many times our seconds the peer takes."""
    return round(float(theirs["seconds"][name] * scale / mine["seconds"][name]), 2)


def peer_environment(cache: Path) -> Path:
    """Return the Python of an environment with RecTools, made on the first call."""
    python = cache / "bin" / "python"
    finished = cache / ".finished"
    if not finished.is_file():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(cache)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *RECTOOLS], check=True)
        finished.touch()
    return python


def peak_mb() -> float:
    """Return the greatest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def describe(options: argparse.Namespace) -> dict[str, Any]:
    """Return where, when and how the figures were taken."""
    given = ("users", "peer_users", "items", "width", "threads", "rounds", "seed")
    flags = (f"--{name.replace('_', '-')} {getattr(options, name)}" for name in given)
    return {
        "command": "python tests/benchmarks/evaluation.py " + " ".join(flags),
        "seed": options.seed,
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.processor() or platform.machine(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "load_average_at_end": os.getloadavg()[0],
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


if __name__ == "__main__":
    main()
