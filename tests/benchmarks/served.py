"""A bundle to measure with, the real server around it in a process of its own, and a client.

Speed does not depend on weights, so those of the model are random. The client shares the machine;
arrivals are Poisson and do not wait for answers; a latency runs from the moment a request was due, so
waiting before it could be sent counts too.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import torch

from recsys.bundle import write_bundle
from recsys.config import IndexConfig, SASRecConfig
from recsys.data.sequences import SequenceStore
from recsys.models import EncoderModel, build_model
from recsys.retrieval.index import build_index

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))
EVENTS = 30
"""Of every user."""
PACKAGES = ("torch", "numpy", "fastapi", "uvicorn", "uvloop", "httptools", "pydantic", "feast")

START = """
import sys
from pathlib import Path
import json
from recsys.published import find_bundle
from serving.server import serve
from serving.settings import ServingSettings
chosen = json.loads(sys.argv[2])
for name in ("state", "features"):
    chosen[name] = None if chosen.get(name) is None else Path(chosen[name])
place = Path(sys.argv[1])
settings = ServingSettings(open_writes=True, **chosen)
serve(find_bundle(place), port=0, settings=settings, find=lambda: find_bundle(place))
"""


@dataclass(frozen=True)
class Measurement:
    """What one rate gave; times in milliseconds. `failures` counts by status; 0: no whole answer came."""

    offered_rps: float
    seconds: float
    requests: int
    answered: int
    refused: int
    failed: int
    failures: dict[str, int]
    achieved_rps: float
    p50: float
    p90: float
    p99: float
    worst: float
    server_cpu_ms_per_request: float


def store_of(n_users: int, n_items: int, seed: int) -> SequenceStore:
    """Return made-up events: Zipf items, a few hours apart."""
    rng = np.random.default_rng(seed)
    items = np.minimum(rng.zipf(1.3, size=n_users * EVENTS), n_items).astype(np.int32)
    times = 1_700_000_000 + np.cumsum(rng.integers(60, 90_000, (n_users, EVENTS)), axis=1)
    offsets = EVENTS * np.arange(n_users + 1, dtype=np.int64)
    return SequenceStore(items, offsets, n_items, timestamps=times.ravel().astype(np.int64))


def user_name(user: int) -> str:
    """Return the id of a user."""
    return f"user-{user:06d}"


def item_name(item: int) -> str:
    """Return the id of an item."""
    return f"item-{item:07d}"


def make_bundle(
    folder: Path, n_items: int, width: int, seed: int, n_users: int = 0, **changes: Any
) -> Path:
    """Write a bundle of a SASRec with random weights, and of made-up users if there are to be any."""
    torch.manual_seed(seed)
    config = SASRecConfig(width=width)
    model = build_model(config, n_items)
    if not isinstance(model, EncoderModel):
        raise TypeError("SASRec encodes")
    model.eval()
    ids = [item_name(i) for i in range(1, n_items + 1)]
    users = pl.DataFrame({"user_id": [user_name(u) for u in range(n_users)]}) if n_users else None
    store = store_of(n_users, n_items, seed) if n_users else None
    config_of_index = changes.pop("index", IndexConfig())
    items = pl.DataFrame(
        {
            "item_id": ids,
            "item": np.arange(1, n_items + 1, dtype=np.int32),
            "title": [f"The title of number {i}" for i in range(1, n_items + 1)],
        }
    )
    with torch.inference_mode():
        index = build_index(config_of_index, model.encode_items())
    return write_bundle(
        folder,
        name="benchmark",
        model=model,
        model_config=config,
        items=items,
        users=users,
        store=store,
        index=index,
        popularity=np.zeros(n_items + 1, dtype=np.int64),
        info={"seed": seed},
        **changes,
    )


def fill_store(folder: Path, n_users: int, n_items: int, seed: int, redis: str | None) -> Path:
    """Publish the made-up users into a feature store, in SQLite or Redis; return its directory."""
    from features.store import StoreSettings, write_offline
    from features.user_rows import published_rows

    settings = StoreSettings(folder, "benchmark", "redis" if redis else "sqlite", redis or "")
    settings.save()
    names = pl.Series([user_name(u) for u in range(n_users)])
    items = pl.Series([item_name(i) for i in range(1, n_items + 1)])
    users = published_rows(store_of(n_users, n_items, seed), names, items, settings.recent_events)
    counts = pl.DataFrame({"item_id": items.head(1000)}).with_columns(events=1, users=1)
    at = datetime.now(UTC)
    write_offline(folder, users, counts, at)
    command = [sys.executable, "-m", "features.materialise", str(folder), at.isoformat()]
    subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    return folder


@contextmanager
def feature_store(
    kind: str, folder: Path, n_users: int, n_items: int, seed: int
) -> Iterator[Path | None]:
    """Yield the directory of a filled store: `none`, `sqlite`, or `redis` with a server of its own."""
    from redis_server import redis_server

    with ExitStack() as stack:
        if kind == "none":
            yield None
            return
        redis = None
        if kind == "redis":
            redis = stack.enter_context(redis_server(folder))
        yield fill_store(folder / "feast", n_users, n_items, seed, redis)


@contextmanager
def running_server(place: Path, **settings: Any) -> Iterator[tuple[int, psutil.Process]]:
    """Yield `(port, process)` of the real server on a bundle or a directory of bundles."""
    chosen = json.dumps(settings, default=str)
    process = subprocess.Popen(
        [sys.executable, "-c", START, str(place), chosen],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        line = process.stdout.readline() if process.stdout else ""
        if "http://" not in line:
            raise RuntimeError(f"the server did not start: {line!r}")
        port = int(line.split("http://")[1].split()[0].rsplit(":", 1)[1])
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(timeout=30)


async def offer(
    client: Client,
    requests: Sequence[tuple[str, bytes]],
    rate: float,
    rng: np.random.Generator,
    seconds: float,
) -> Measurement:
    """Send requests `(path, body)` at Poisson times for so many seconds, wait for the answers, and sum up."""
    due = np.cumsum(rng.exponential(1 / rate, size=len(requests)))
    due = due[due < seconds]
    busy = client.server_seconds()
    start = time.perf_counter() + 0.05
    tasks = []
    for at, (path, body) in zip((start + due).tolist(), requests, strict=False):
        wait = at - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(timed(client, path, body, at)))
    outcomes = await asyncio.gather(*tasks)
    spent = time.perf_counter() - start
    busy = client.server_seconds() - busy
    good = np.array([took for status, took in outcomes if status == 200]) * 1000
    p50, p90, p99 = np.percentile(good, [50, 90, 99]) if len(good) else [np.inf] * 3
    statuses = [status for status, _ in outcomes]
    failures = Counter(str(status) for status in statuses if status not in (200, 429))
    return Measurement(
        offered_rps=rate,
        seconds=round(max(spent, seconds), 2),
        requests=len(outcomes),
        answered=len(good),
        refused=statuses.count(429),
        failed=sum(failures.values()),
        failures=dict(failures),
        achieved_rps=round(len(good) / max(spent, seconds), 1),
        p50=round(float(p50), 2),
        p90=round(float(p90), 2),
        p99=round(float(p99), 2),
        worst=round(float(good.max(initial=0)), 2),
        server_cpu_ms_per_request=round(1000 * busy / max(len(outcomes), 1), 2),
    )


async def timed(client: Client, path: str, body: bytes, due: float) -> tuple[int, float]:
    """Return the status of one request and the seconds since it was due."""
    try:
        status, answer = await client.post(path, body)
    except (OSError, asyncio.IncompleteReadError):
        return 0, time.perf_counter() - due
    took = time.perf_counter() - due
    if status == 200:
        found = json.loads(answer)
        if not (found.get("items") or found.get("lists") or "accepted" in found):
            status = 0
    return status, took


class Client:
    """As little HTTP/1.1 as measures a server: keep-alive connections, opened as needed."""

    def __init__(self, port: int, server: psutil.Process) -> None:
        self.port = port
        self.server = server
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Send a JSON body; return status and answer."""
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        return await self._exchange(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)

    def server_seconds(self) -> float:
        """Return the processor time that the server has used so far."""
        times = self.server.cpu_times()
        return float(times.user + times.system)

    async def get(self, path: str) -> str:
        """Return the text at a path."""
        _, answer = await self._exchange(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        return answer.decode()

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        reader, writer = await self._connection()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        answer = await reader.readexactly(length)
        self.idle.append((reader, writer))
        return int(head.split(b" ", 2)[1]), answer

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return an idle connection or a new one; the server closes those that were idle for long."""
        while self.idle:
            reader, writer = self.idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self.port)

    def close(self) -> None:
        """Close all connections."""
        for _, writer in self.idle:
            writer.close()


def stage_means(metrics: str) -> dict[str, float]:
    """Return the mean milliseconds of every stage, and requests per batch, from /metrics."""
    values: dict[str, float] = {}
    for line in metrics.splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            values[name] = float(value)
    means = {}
    for name, total in values.items():
        if name.startswith("recsys_stage_seconds_sum"):
            count = values[name.replace("_sum{", "_count{")]
            means[name.split('"')[1]] = round(1000 * total / count, 3)
    total, count = (values[f"recsys_batch_requests_{x}"] for x in ("sum", "count"))
    return {**means, "requests_per_batch": round(total / count, 3)}


def circumstances(benchmark: str, seed: int, settings: dict[str, Any]) -> dict[str, object]:
    """Return machine, versions, seed and command."""
    model = [line for line in _cpuinfo() if line.startswith("model name")]
    return {
        "benchmark": benchmark,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", *sys.argv]),
        "seed": seed,
        "settings": settings,
        "machine": {
            "processor": model[0].split(":", 1)[1].strip() if model else platform.processor(),
            "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
            "load_before": round(os.getloadavg()[0], 2),
            "system": platform.system(),
        },
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []
