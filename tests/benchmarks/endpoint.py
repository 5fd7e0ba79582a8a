"""Latency and saturation of the endpoint under an open-loop client, on this machine.

A SASRec with random weights (speed does not depend on them) over 100,000 items of 64 dimensions is
served by the real server in its own process; see `served.py`. With `--features sqlite` or `redis` half
of the requests name a user, whose history comes from the feature store. Saturation is the highest
offered rate at which at least 99 % are answered with 200, throughput keeps up (95 % of the offer) and
p99 stays below 500 ms.

    python tests/benchmarks/endpoint.py --features sqlite
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import psutil
from served import (
    Client,
    circumstances,
    feature_store,
    item_name,
    make_bundle,
    offer,
    running_server,
    stage_means,
    user_name,
)

RESULTS = Path(__file__).parent / "results"
WARM_UP = 3.0
STEPS = (100, 150, 200, 250, 300, 350, 400, 450, 500, 600, 700, 800)
CONTINUE = {"steps": 10, "groups": 4, "beams": 2, "candidates": 500, "diversity": 0.5}
Requests = list[tuple[str, bytes]]


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--features", choices=("none", "sqlite", "redis"), default="none")
    parser.add_argument("--rates", type=float, nargs="+", default=[50.0, 100.0])
    parser.add_argument("--seconds", type=float, default=20.0, help="per rate")
    parser.add_argument("--step-seconds", type=float, default=6.0, help="per saturation step")
    parser.add_argument(
        "--continue-rate", type=float, default=10.0, help="of continuations; 0: none"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shape = (options.users, options.items, options.seed)
        bundle = make_bundle(folder, options.items, options.width, options.seed, options.users)
        with (
            feature_store(options.features, folder, *shape) as features,
            running_server(bundle, state=folder / "state", features=features) as (port, server),
        ):
            result = asyncio.run(measure(options, port, server))
            result["server_memory_mb"] = round(server.memory_info().rss / 2**20)
    chosen = {key: getattr(options, key) for key in ("items", "width", "users", "k", "features")}
    result = {**circumstances("endpoint", options.seed, chosen), **result}
    suffix = "" if options.features == "none" else f"_{options.features}"
    output = options.output or RESULTS / f"endpoint{suffix}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


async def measure(
    options: argparse.Namespace, port: int, server: psutil.Process
) -> dict[str, object]:
    """Warm up, measure the given rates, then climb until the server no longer keeps up."""
    rng = np.random.default_rng(options.seed)
    client = Client(port, server)
    await offer(client, bodies(rng, options, 60), 20.0, rng, WARM_UP)
    rates = []
    for rate in options.rates:
        count = int(rate * options.seconds * 1.3) + 10
        found = await offer(client, bodies(rng, options, count), rate, rng, options.seconds)
        print(f"{rate:6.0f} rps: p50 {found.p50:.1f} p99 {found.p99:.1f} ms", file=sys.stderr)
        rates.append(asdict(found))
    longer = None
    if options.continue_rate:
        asked = continuations(rng, options, int(options.continue_rate * options.seconds * 1.3) + 10)
        await offer(client, asked, options.continue_rate, rng, WARM_UP)
        found = await offer(client, asked, options.continue_rate, rng, options.seconds)
        print(f"continue: p50 {found.p50:.1f} p99 {found.p99:.1f} ms", file=sys.stderr)
        longer = asdict(found)
    stages = stage_means(await client.get("/metrics"))
    climb, saturation = [], 0.0
    for step in STEPS:
        count = int(step * options.step_seconds * 1.3) + 10
        found = await offer(client, bodies(rng, options, count), step, rng, options.step_seconds)
        climb.append(asdict(found))
        print(
            f"{step:6d} rps: {found.achieved_rps:.0f} answered, p99 {found.p99:.0f} ms",
            file=sys.stderr,
        )
        kept_up = found.achieved_rps >= 0.95 * found.requests / found.seconds
        if found.answered < 0.99 * found.requests or not kept_up or found.p99 > 500:
            break
        saturation = float(step)
    client.close()
    return {
        "rates": rates,
        "continue": longer,
        "saturation_rps": saturation,
        "climb": climb,
        "stages_ms": stages,
    }


def bodies(rng: np.random.Generator, options: argparse.Namespace, count: int) -> Requests:
    """Return requests: Zipf items, histories of 1 to 50 events; or every other one a user."""
    made = []
    for place, length in enumerate(rng.integers(1, 51, size=count)):
        items = np.minimum(rng.zipf(1.3, size=length), options.items)
        asked: dict[str, object] = {"history": [item_name(i) for i in items], "k": options.k}
        if options.features != "none" and place % 2:
            asked = {"user_id": user_name(int(rng.integers(options.users))), "k": options.k}
        made.append(("/v1/recommend", json.dumps(asked).encode()))
    return made


def continuations(rng: np.random.Generator, options: argparse.Namespace, count: int) -> Requests:
    """Return requests for continuations: Zipf items, histories of 1 to 50 events."""
    made = []
    for length in rng.integers(1, 51, size=count):
        items = np.minimum(rng.zipf(1.3, size=length), options.items)
        body = {"history": [item_name(i) for i in items], **CONTINUE}
        made.append(("/v1/playlists/continue", json.dumps(body).encode()))
    return made


if __name__ == "__main__":
    main()
