"""Full-ranking evaluation against RecTools' and RePlay's, on this machine.

All sides get the same vectors and events: users with a history of 20 items and one target each, the
seen items excluded, lists of 100, their metrics at four cut-offs. Ours are 10 metrics (hit rate,
recall, NDCG, MRR, MAP, precision, novelty, intra-list distance, coverage, Gini). The peers compute
what they have of them and others of their own instead:

- `rectools_torch`, `rectools_implicit`: nine metrics; ranked by `TorchRanker`, which its sequence
  models use, or by `ImplicitRanker`, the faster one of its matrix models;
- `replay`: ten metrics of `OfflineMetrics` over the lists; `replay_builder`: the seven metrics of
  `TorchMetricsBuilder`, the faster and smaller road, which its training uses for validation.

The peers are given the query vectors, ours encodes the histories. Each side runs in a process of its
own, the peers' in throw-away environments below --cache, so that peak memory is each side's own. The
sides take turns for several rounds, because the machine may be busy with other things: figures are of
each side's median round, ratios are medians over the rounds. Where --peer-users is less than --users,
a peer's time is scaled up linearly. The bar is a fifth of a peer's time.

    python tests/benchmarks/evaluation.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

from environments import machine, measured_environment, now, peer_python
from peers.ranking_side import Settings

HERE = Path(__file__).parent
RESULT = HERE / "results" / "evaluation.json"
BAR = 5.0
SIDES = {
    "ours": ("", "ranking_ours.py", ""),
    "rectools_torch": ("rectools", "ranking_of_rectools.py", "torch"),
    "rectools_implicit": ("rectools", "ranking_of_rectools.py", "implicit"),
    "replay": ("replay", "ranking_of_replay.py", ""),
    "replay_builder": ("replay", "ranking_of_replay.py", "builder"),
}
"""Side -> the environment it runs in (ours by default), its script, its variant."""

Rounds = dict[str, list[dict[str, Any]]]


def main() -> None:
    """Measure all sides in turn and store."""
    options = parse()
    pythons = {
        side: peer_python(options.cache, peer) if peer else Path(sys.executable)
        for side, (peer, _, _) in SIDES.items()
    }
    load = os.getloadavg()[0]
    rounds: Rounds = {side: [] for side in SIDES}
    for _ in range(options.rounds):
        for side, python in pythons.items():
            rounds[side].append(one := run_side(side, python, options))
            print(f"{side:18} {one['seconds']['total']:7.1f} s", file=sys.stderr, flush=True)
    result = {
        "benchmark": "evaluation",
        "date": now(),
        "command": command(options),
        "settings": asdict(settings_of(options)),
        "bar": {"times_a_peer": BAR},
        "against": {side: compare(rounds, side, options) for side in SIDES if side != "ours"},
        "sides": {side: median_round(measured) for side, measured in rounds.items()},
        "machine": machine()
        | {"load_before": round(load, 2), "load_after": round(os.getloadavg()[0], 2)},
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result["against"], indent=2))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--peer-users", type=int, default=0, help="fewer for the peers; 0 = all")
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "recsys-benchmark-peers"
    )
    parser.add_argument("--output", type=Path, default=RESULT)
    return parser.parse_args()


def settings_of(options: argparse.Namespace) -> Settings:
    """Return what our side is told."""
    return Settings(options.users, options.items, options.width, options.threads, options.seed)


def run_side(side: str, python: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run one side in a process of its own and return what its last line says."""
    _, script, variant = SIDES[side]
    users = options.users if side == "ours" else options.peer_users or options.users
    settings = replace(settings_of(options), users=users, variant=variant)
    environment = measured_environment(options.threads, "passive")
    environment["OPENBLAS_NUM_THREADS"] = "1"  # implicit's own threads do its products
    # Arrays above 16 MiB go back to the system when freed; by glibc's default those of TorchRanker
    # stay, and grow to 23 GB at full size. It costs none of the sides time.
    environment |= {"MALLOC_MMAP_THRESHOLD_": str(1 << 24), "MALLOC_TRIM_THRESHOLD_": str(1 << 28)}
    asked = [str(python), str(HERE / "peers" / script), json.dumps(asdict(settings))]
    done = subprocess.run(asked, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{script} failed with {settings}:\n{done.stderr}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def median_round(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the round of median time, with the times of all."""
    ordered = sorted(rounds, key=lambda measured: measured["seconds"]["total"])
    totals = [measured["seconds"]["total"] for measured in rounds]
    return {**ordered[(len(ordered) - 1) // 2], "total_of_each_round": totals}


def compare(rounds: Rounds, side: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the ratios of a peer's seconds to ours, and how far apart the shared metrics are."""
    scale = options.users / rounds[side][0]["users"]
    mine, theirs = rounds["ours"][0]["metrics"], rounds[side][0]["metrics"]
    shared = sorted(set(mine) & set(theirs))
    differences = [abs(mine[name] - theirs[name]) for name in shared]
    return {
        "times_slower_than_ours": ratio(rounds, side, "total", scale),
        "times_more_processor_seconds": ratio(rounds, side, "processor", scale),
        "scaled_by": scale,
        "shared_metrics": len(shared),
        "greatest_difference": max(differences) if scale == 1 else None,
    }


def ratio(rounds: Rounds, side: str, name: str, scale: float) -> float:
    """Return the median over the rounds of a peer's seconds divided by ours in the same round."""
    pairs = zip(rounds["ours"], rounds[side], strict=True)
    return round(median(b["seconds"][name] * scale / a["seconds"][name] for a, b in pairs), 2)


def command(options: argparse.Namespace) -> str:
    """Return the command that measures this again, but for the machine's own folders."""
    given = ("users", "peer_users", "items", "width", "threads", "rounds", "seed")
    flags = (f"--{name.replace('_', '-')} {getattr(options, name)}" for name in given)
    return "python tests/benchmarks/evaluation.py " + " ".join(flags)


if __name__ == "__main__":
    main()
