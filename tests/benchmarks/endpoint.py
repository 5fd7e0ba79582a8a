"""Latency and saturation of the endpoint under an open-loop client, on this machine.

A SASRec with random weights (speed does not depend on them) over 100,000 items of 64 dimensions is
written as a bundle and served by the real server in its own process; the client shares the machine.
Arrivals are Poisson and do not wait for answers; a latency runs from the moment a request was due, so
waiting before it could be sent counts too. Saturation is the highest offered rate at which at least
99 % are answered with 200, throughput keeps up (95 % of the offer) and p99 stays below 500 ms.

    python tests/benchmarks/endpoint.py
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import torch

from recsys.bundle import write_bundle
from recsys.config import IndexConfig, SASRecConfig
from recsys.models import EncoderModel, build_model
from recsys.retrieval.index import build_index

ROOT = Path(__file__).parents[2]
RESULT = Path(__file__).parent / "results" / "endpoint.json"
WARM_UP = 3.0
STEPS = (100, 150, 200, 250, 300, 350, 400, 450, 500, 600, 700, 800)


@dataclass(frozen=True)
class Measurement:
    """What one rate gave; times in milliseconds."""

    offered_rps: float
    seconds: float
    requests: int
    answered: int
    refused: int
    failed: int
    achieved_rps: float
    p50: float
    p90: float
    p99: float
    worst: float
    server_cpu_ms_per_request: float


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--rates", type=float, nargs="+", default=[50.0, 100.0])
    parser.add_argument("--seconds", type=float, default=20.0, help="per rate")
    parser.add_argument("--step-seconds", type=float, default=6.0, help="per saturation step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = make_bundle(Path(folder), options.items, options.width, options.seed)
        process, port = start_server(bundle)
        try:
            server = psutil.Process(process.pid)
            result = asyncio.run(measure(options, port, server))
            result["server_memory_mb"] = round(server.memory_info().rss / 2**20)
        finally:
            process.terminate()
            process.wait(timeout=20)
    result = {**circumstances(options), **result}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def make_bundle(folder: Path, n_items: int, width: int, seed: int) -> Path:
    """Write a bundle of a SASRec with random weights."""
    torch.manual_seed(seed)
    config = SASRecConfig(width=width)
    model = build_model(config, n_items)
    if not isinstance(model, EncoderModel):
        raise TypeError("SASRec encodes")
    model.eval()
    with torch.inference_mode():
        index = build_index(IndexConfig(), model.encode_items())
    ids = [f"item-{i:07d}" for i in range(1, n_items + 1)]
    items = pl.DataFrame(
        {
            "item_id": ids,
            "item": np.arange(1, n_items + 1, dtype=np.int32),
            "title": [f"The title of number {i}" for i in range(1, n_items + 1)],
        }
    )
    return write_bundle(
        folder,
        name="benchmark",
        model=model,
        model_config=config,
        items=items,
        users=None,
        store=None,
        index=index,
        popularity=np.zeros(n_items + 1, dtype=np.int64),
        info={"seed": seed},
    )


def start_server(bundle: Path) -> tuple[subprocess.Popen[str], int]:
    """Start the real server on a free loopback port."""
    code = f"from pathlib import Path; from serving.server import serve; serve(Path({str(bundle)!r}), port=0)"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    line = process.stdout.readline() if process.stdout else ""
    if "http://" not in line:
        process.wait(timeout=20)
        raise RuntimeError(f"the server did not start: {line!r}")
    return process, int(line.split("http://")[1].split()[0].rsplit(":", 1)[1])


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
    return {"rates": rates, "saturation_rps": saturation, "climb": climb, "stages_ms": stages}


def bodies(rng: np.random.Generator, options: argparse.Namespace, count: int) -> list[bytes]:
    """Return request bodies: Zipf items, histories of 1 to 50 events."""
    made = []
    for length in rng.integers(1, 51, size=count):
        items = np.minimum(rng.zipf(1.3, size=length), options.items)
        history = [f"item-{i:07d}" for i in items]
        made.append(json.dumps({"history": history, "k": options.k}).encode())
    return made


async def offer(
    client: Client, requests: Sequence[bytes], rate: float, rng: np.random.Generator, seconds: float
) -> Measurement:
    """Send requests at Poisson times for so many seconds, wait for the answers, and sum up."""
    due = np.cumsum(rng.exponential(1 / rate, size=len(requests)))
    due = due[due < seconds]
    busy = client.server_seconds()
    start = time.perf_counter() + 0.05
    tasks = []
    for at, body in zip((start + due).tolist(), requests, strict=False):
        wait = at - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(timed(client, body, at)))
    outcomes = await asyncio.gather(*tasks)
    spent = time.perf_counter() - start
    busy = client.server_seconds() - busy
    good = np.array([took for status, took in outcomes if status == 200]) * 1000
    p50, p90, p99 = np.percentile(good, [50, 90, 99]) if len(good) else [np.inf] * 3
    statuses = [status for status, _ in outcomes]
    return Measurement(
        offered_rps=rate,
        seconds=round(max(spent, seconds), 2),
        requests=len(outcomes),
        answered=len(good),
        refused=statuses.count(503),
        failed=sum(status not in (200, 503) for status in statuses),
        achieved_rps=round(len(good) / max(spent, seconds), 1),
        p50=round(float(p50), 2),
        p90=round(float(p90), 2),
        p99=round(float(p99), 2),
        worst=round(float(good.max(initial=0)), 2),
        server_cpu_ms_per_request=round(1000 * busy / max(len(outcomes), 1), 2),
    )


async def timed(client: Client, body: bytes, due: float) -> tuple[int, float]:
    """Return the status of one request and the seconds since it was due."""
    try:
        status, answer = await client.post("/v1/recommend", body)
    except (OSError, asyncio.IncompleteReadError):
        return 0, time.perf_counter() - due
    took = time.perf_counter() - due
    if status == 200 and len(json.loads(answer)["items"]) == 0:
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
        if self.idle:
            reader, writer = self.idle.pop()
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        answer = await reader.readexactly(length)
        self.idle.append((reader, writer))
        return int(head.split(b" ", 2)[1]), answer

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


def circumstances(options: argparse.Namespace) -> dict[str, object]:
    """Return machine, versions, seed and command."""
    packages = ("torch", "numpy", "fastapi", "uvicorn", "uvloop", "httptools", "pydantic")
    model = [line for line in _cpuinfo() if line.startswith("model name")]
    return {
        "benchmark": "endpoint",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": "python tests/benchmarks/endpoint.py " + " ".join(sys.argv[1:]),
        "seed": options.seed,
        "settings": {"items": options.items, "width": options.width, "k": options.k},
        "machine": {
            "processor": model[0].split(":", 1)[1].strip() if model else platform.processor(),
            "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
            "load_before": round(os.getloadavg()[0], 2),
            "system": platform.system(),
        },
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []


if __name__ == "__main__":
    main()
