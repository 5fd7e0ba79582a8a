"""Minutes of load while everything changes: models, a damaged model, the feature store, the catalogue.

The real server is asked for lists of histories and of users and told events, at a steady Poisson rate;
meanwhile its model is swapped again and again between two bundles of different weights, one damaged
bundle is published, and Redis is killed and comes back empty. Every answer must be a 200 (no 5xx), and
the list of the model that it names: some requests are the same all the time, and their lists are known
for both models. The 99th percentile is compared with that of a quiet stretch before.

    python tests/benchmarks/soak.py --seconds 300
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from served import (
    Client,
    circumstances,
    fill_store,
    item_name,
    make_bundle,
    running_server,
    user_name,
)

from recsys.bundle import load_bundle
from recsys.published import write_record
from recsys.recommender import Query, Recommender

RESULT = Path(__file__).parent / "results" / "soak.json"
WARM_UP = 5.0
PROBES = 8
"""Histories whose lists are known for each model."""


@dataclass
class Seen:
    """What came back in one stretch."""

    statuses: Counter[int] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    wrong: int = 0
    probed: int = 0

    def summary(self) -> dict[str, Any]:
        """Return it as plain values."""
        p50, p99 = np.percentile(np.array(self.seconds) * 1000, [50, 99])
        return {
            "requests": sum(self.statuses.values()),
            "statuses": dict(self.statuses),
            "histories_from": dict(self.sources),
            "answers_of_models": dict(self.versions),
            "lists_checked": self.probed,
            "lists_wrong": self.wrong,
            "p50_ms": round(float(p50), 2),
            "p99_ms": round(float(p99), 2),
        }


def main() -> None:
    """Run and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--quiet-seconds", type=float, default=60.0, help="before it")
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--swaps", type=int, default=10)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        result = run(options, Path(name))
    chosen = {k: getattr(options, k) for k in ("seconds", "rate", "swaps", "items", "users")}
    result = {**circumstances("soak", options.seed, chosen), **result}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Make two bundles and a store, start Redis and the server, and let it all happen."""
    from redis_server import free_port, redis_server

    bundles = folder / "bundles"
    paths = [
        make_bundle(bundles, options.items, 64, options.seed + n, options.users) for n in range(2)
    ]
    probes, lists = known_lists(paths, options)
    write_record(bundles, {"bundle": paths[0].name})
    with ExitStack() as stack:
        port = free_port()
        redis = stack.enter_context(ExitStack())
        address = redis.enter_context(redis_server(folder, port))
        features = fill_store(folder / "feast", options.users, options.items, options.seed, address)
        settings = {"state": folder / "state", "features": features, "watch": 0.5}
        server_port, server = stack.enter_context(running_server(bundles, **settings))

        def kill_redis() -> None:
            redis.close()

        def start_redis() -> None:
            redis.enter_context(redis_server(folder, port))

        load = Load(options, server_port, server, probes, lists)
        plan = events_of(options, bundles, paths, kill_redis, start_redis)
        found = asyncio.run(load.all(plan))
        metrics = found.pop("metrics")
        found["memory_mb"] = round(server.memory_info().rss / 2**20)
    quiet, loud = found["quiet"], found["soak"]
    loads = {
        line.split('"')[1]: float(line.rsplit(" ", 1)[1])
        for line in metrics.splitlines()
        if line.startswith("recsys_model_loads_total")
    }
    bars = {
        "no 5xx and nothing lost": set(loud["statuses"]) == {200},
        "no answer of a wrong version": loud["lists_wrong"] == 0 and loud["lists_checked"] > 0,
        "all swaps happened, one bundle was refused": loads.get("loaded") == options.swaps
        and loads.get("refused", 0) >= 1,
        "p99 at most twice the quiet one": loud["p99_ms"] <= 2 * quiet["p99_ms"],
    }
    return {**found, "model_loads": loads, "bars": bars}


def known_lists(
    paths: list[Path], options: argparse.Namespace
) -> tuple[list[list[str]], dict[str, list[list[str]]]]:
    """Return some histories and, by the version of a bundle, the lists that follow them."""
    rng = np.random.default_rng(options.seed)
    probes = [[item_name(int(i)) for i in rng.integers(1, options.items, 8)] for _ in range(PROBES)]
    lists = {}
    for path in paths:
        recommender = Recommender(load_bundle(path))
        answers = recommender.recommend([Query(history=history, k=10) for history in probes])
        lists[path.name.split("@")[1]] = [answer.items for answer in answers]
    return probes, lists


def events_of(
    options: argparse.Namespace, bundles: Path, paths: list[Path], kill: Any, start: Any
) -> list[tuple[float, Any]]:
    """Return `(second, what happens)` in order of time."""

    def publish(name: str) -> Any:
        return lambda: write_record(bundles, {"bundle": name})

    def damage() -> None:
        bad = bundles / f"{paths[0].name.split('@')[0]}@deadbeef"
        shutil.copytree(paths[0], bad)
        weights = bad / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-8])
        write_record(bundles, {"bundle": bad.name})

    gap = options.seconds / (options.swaps + 2)
    plan: list[tuple[float, Any]] = [
        (gap * (swap + 1), publish(paths[(swap + 1) % 2].name)) for swap in range(options.swaps)
    ]
    plan.append((gap * (options.swaps // 2) + gap / 2, damage))
    plan.append((0.3 * options.seconds, kill))
    plan.append((0.6 * options.seconds, start))
    return sorted(plan, key=lambda pair: pair[0])


class Load:
    """The client: sends, checks and counts."""

    def __init__(
        self,
        options: argparse.Namespace,
        port: int,
        server: psutil.Process,
        probes: list[list[str]],
        lists: dict[str, list[list[str]]],
    ) -> None:
        self.options, self.probes, self.lists = options, probes, lists
        self.rng = np.random.default_rng(options.seed)
        self.client = Client(port, server)

    async def all(self, plan: list[tuple[float, Any]]) -> dict[str, Any]:
        """Warm up, measure a quiet stretch, then the one in which everything happens."""
        await self.stretch(WARM_UP)
        quiet = await self.stretch(self.options.quiet_seconds)
        happening = asyncio.create_task(self.happen(plan))
        loud = await self.stretch(self.options.seconds)
        await happening
        metrics = await self.client.get("/metrics")
        self.client.close()
        return {"quiet": quiet.summary(), "soak": loud.summary(), "metrics": metrics}

    async def happen(self, plan: list[tuple[float, Any]]) -> None:
        """Let things happen at their time, in another thread."""
        began = time.perf_counter()
        for at, act in plan:
            await asyncio.sleep(max(0.0, began + at - time.perf_counter()))
            await asyncio.to_thread(act)
            print(f"{time.perf_counter() - began:6.1f} s  done", file=sys.stderr)

    async def stretch(self, seconds: float) -> Seen:
        """Send requests at Poisson times for so many seconds; return what came back."""
        seen, tasks = Seen(), []
        start = time.perf_counter()
        due = 0.0
        while (due := due + float(self.rng.exponential(1 / self.options.rate))) < seconds:
            await asyncio.sleep(max(0.0, start + due - time.perf_counter()))
            tasks.append(asyncio.create_task(self.one(seen, start + due)))
        await asyncio.gather(*tasks)
        return seen

    async def one(self, seen: Seen, due: float) -> None:
        """Send one request: a probe, a user, or an event."""
        kind = self.rng.random()
        probe = int(self.rng.integers(PROBES))
        user = user_name(int(self.rng.integers(self.options.users)))
        path, body = "/v1/recommend", {"history": self.probes[probe], "k": 10}
        if kind < 0.4:
            body = {"user_id": user, "k": 10}
        elif kind < 0.6:
            event = {"user_id": user, "item": item_name(int(self.rng.integers(1, 1000)))}
            path, body = "/v1/events", {"events": [event]}
        try:
            status, content = await self.client.post(path, json.dumps(body).encode())
        except (OSError, asyncio.IncompleteReadError):
            status, content = 0, b"{}"
        seen.seconds.append(time.perf_counter() - due)
        seen.statuses[status] += 1
        if status != 200 or path != "/v1/recommend":
            return
        answer = json.loads(content)
        version = answer["model"]["version"]
        seen.versions[version] += 1
        seen.sources[answer["history_source"]] += 1
        if kind >= 0.6:
            seen.probed += 1
            items = [row["item_id"] for row in answer["items"]]
            seen.wrong += items != self.lists[version][probe]


if __name__ == "__main__":
    main()
