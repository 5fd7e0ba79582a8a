"""Training sequences per second on Amazon Beauty beside RecTools' and RePlay's SASRec, on this machine.

All sides train on the same events (leave-one-out, the file's order) with the same width, depth, heads,
inner width of the feed-forward (that of the model, as both peers have it), length, batch, drop-out rate,
Adam step and number of threads, each in a process of its own; the sides take turns for several rounds,
because the machine may be busy with other things. A sequence is one user's window of the newest 50
events. What is timed is the training loop alone, batches, negatives and optimiser included, after a
warm-up; an epoch is scaled from the measured steps. The losses:

- `sampled_softmax`: 256 uniform negatives for every place, without correction for the sampling;
- `sampled_softmax_shared`: 256 for the whole batch, as RePlay's own sampler draws (RecTools has none);
- `softmax`: over the whole catalogue.

What still differs: ours packs several sequences to a row where the peers pad each to the full length,
has pre-norm blocks where theirs have the paper's, no drop-out on attention weights and inside the
feed-forward, and clips gradients. RecTools and RePlay are installed into throw-away environments below
--cache. The bar is 5 times RecTools' sequences per second with `sampled_softmax`.

    RECSYS_DATA_DIR=... python tests/benchmarks/training.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl
from environments import PEERS, machine, measured_environment, now, peer_python
from peers.side import Settings

HERE = Path(__file__).parent
RESULT = HERE / "results" / "training.json"
BAR = 5.0
LOSSES = ("sampled_softmax", "sampled_softmax_shared", "softmax")
CANNOT = {("rectools", "sampled_softmax_shared")}
SCRIPTS = {"ours": "ours.py", "rectools": "of_rectools.py", "replay": "of_replay.py"}


def main() -> None:
    """Measure all sides in turn and store."""
    options = parse()
    pythons = {"ours": Path(sys.executable)}
    pythons |= {peer: peer_python(options.cache, peer) for peer in options.peers}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        events = Path(folder) / "events.npz"
        users = write_events(options.data_dir, events, held_out=2)
        rounds = {loss: measure(loss, pythons, events, options) for loss in options.losses}
    losses = {loss: summarise(sides, users) for loss, sides in rounds.items()}
    result = {
        "benchmark": "training",
        "date": now(),
        "command": command(options),
        "settings": asdict(settings_of(options, options.losses[0])) | {"loss": options.losses},
        "sequences_per_epoch": users,
        "bar": {"times_rectools_with_sampled_softmax": BAR},
        "losses": losses,
        "machine": machine() | {"load_before": round(load, 2), "omp_wait_policy": options.wait},
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(losses, indent=2))


def parse() -> argparse.Namespace:
    """Read the command line."""
    named = os.environ.get("RECSYS_DATA_DIR")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, default=Path(named) if named else None)
    parser.add_argument("--steps", type=int, default=40, help="measured steps of a round")
    parser.add_argument("--warm-up", type=int, default=5, help="steps before them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--losses", type=names_among(LOSSES), default=list(LOSSES))
    parser.add_argument("--peers", type=names_among(PEERS), default=list(PEERS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--wait", choices=("passive", "active"), default="passive")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "recsys-benchmark-peers"
    )
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    if options.data_dir is None:
        parser.error("--data-dir or RECSYS_DATA_DIR must name the folder of the data sets")
    return options


def names_among(allowed: Any) -> Any:
    """Return a parser of comma-separated names."""

    def names(text: str) -> list[str]:
        found = [name for name in text.split(",") if name]
        if unknown := set(found) - set(allowed):
            raise argparse.ArgumentTypeError(f"{sorted(unknown)} not among {sorted(allowed)}")
        return found

    return names


def write_events(data_dir: Path, target: Path, held_out: int) -> int:
    """Write all events but each user's last `held_out` as arrays; return the number of users.

    Of each user the last event tests, the last but one validates; ties of time keep the file's order.
    """
    source = data_dir / "amazon-beauty" / "events.tsv"
    frame = pl.read_csv(source, separator="\t", infer_schema=False)
    users = frame["user_id"].rank("dense").to_numpy().astype(np.int64) - 1
    items = frame["item_id"].rank("dense").to_numpy().astype(np.int64)
    order = np.argsort(users, kind="stable")
    users, items = users[order], items[order]
    lengths = np.bincount(users)
    kept = np.arange(len(items)) < np.repeat(np.cumsum(lengths) - held_out, lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths - held_out)])
    np.savez(target, items=items[kept], offsets=offsets, n_items=items.max())
    return len(lengths)


def measure(
    loss: str, pythons: dict[str, Path], events: Path, options: argparse.Namespace
) -> dict[str, list[dict[str, Any]]]:
    """Return what every side measured in every round; the sides take turns."""
    sides = [side for side in pythons if (side, loss) not in CANNOT]
    rounds: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    settings = json.dumps(asdict(settings_of(options, loss)))
    environment = measured_environment(options.threads, options.wait)
    for _ in range(options.rounds):
        for side in sides:
            measured = run_side(pythons[side], SCRIPTS[side], events, settings, environment)
            rounds[side].append(measured)
            speed = measured["sequences_per_second"]
            print(f"{loss:23} {side:9} {speed:8.1f} sequences/s", file=sys.stderr, flush=True)
    return rounds


def run_side(
    python: Path, script: str, events: Path, settings: str, environment: dict[str, str]
) -> dict[str, Any]:
    """Run a side in a process of its own and return what its last line says."""
    asked = [str(python), str(HERE / "peers" / script), str(events), settings]
    done = subprocess.run(asked, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{script} failed with {settings}:\n{done.stderr}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def settings_of(options: argparse.Namespace, loss: str) -> Settings:
    """Return what all sides are told."""
    return Settings(
        loss=loss,
        steps=options.steps,
        warm_up=options.warm_up,
        seed=options.seed,
        threads=options.threads,
    )


def summarise(rounds: dict[str, list[dict[str, Any]]], users: int) -> dict[str, Any]:
    """Return every side's median round, its epoch scaled from it, and how many times faster ours is."""
    sides = {}
    for side, measured in rounds.items():
        ordered = sorted(measured, key=lambda one: one["sequences_per_second"])
        middle = ordered[(len(ordered) - 1) // 2]
        scale = users / middle["sequences"]
        sides[side] = {
            **middle,
            "epoch_seconds_scaled": round(middle["seconds"] * scale, 1),
            "epoch_processor_seconds_scaled": round(middle["processor_seconds"] * scale, 1),
            "sequences_per_second_of_each_round": [one["sequences_per_second"] for one in measured],
        }
    mine = rounds["ours"]
    against = {side: ratios(mine, theirs) for side, theirs in rounds.items() if side != "ours"}
    return {"ours_against": against, "sides": sides}


def ratios(mine: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, float]:
    """Return the medians over the rounds of our speed divided by the peer's in the same round."""
    pairs = list(zip(mine, theirs, strict=True))
    found = {}
    for name, seconds in (("second", "seconds"), ("processor_second", "processor_seconds")):
        times = [(a["sequences"] / a[seconds]) / (b["sequences"] / b[seconds]) for a, b in pairs]
        found[f"times_the_sequences_per_{name}"] = round(median(times), 2)
    return found


def command(options: argparse.Namespace) -> str:
    """Return the command that measures this again, but for the machine's own folders."""
    flags = [
        f"--{name.replace('_', '-')} {getattr(options, name)}"
        for name in ("steps", "warm_up", "rounds", "threads", "wait", "seed")
    ]
    flags += [f"--{name} {','.join(getattr(options, name))}" for name in ("losses", "peers")]
    return "python tests/benchmarks/training.py " + " ".join(flags)


if __name__ == "__main__":
    main()
