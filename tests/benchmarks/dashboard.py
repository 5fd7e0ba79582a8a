"""How long the dashboard's pages take with 200 runs and a million users with a row for each of four models.

An output directory is generated: fifty reports of four models each. The newest belongs to a data set of a
million users, whose rows per target are really there and are what Compare and Look inside read; the
others have a thousand users each. Ranks are random, the files are those that the stages write. Then the
real command serves it, and a headless Chromium opens every page twice. A page is there when its script has
run, its charts are drawn and nothing that it shows is of the page before.

    python tests/benchmarks/dashboard.py
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from environments import machine

from recsys.data.profile import profile
from recsys.data.sequences import SequenceStore, Split, Targets
from recsys.evaluation.exposure import exposure_rows
from recsys.evaluation.metrics import target_metrics
from recsys.evaluation.ranked import RankedTargets
from recsys.evaluation.reports import COMPARISONS, EXPOSURE, METRICS, PROFILE
from recsys.evaluation.targets_file import targets_path, write_targets
from recsys.manifest import write_manifest
from serving.dashboard.app import PAGES
from serving.dashboard.registry import CHAMPION, tracking_uri

ROOT = Path(__file__).parents[2]
RESULT = Path(__file__).parent / "results" / "dashboard.json"
MODELS = ("pop", "markov", "unirec", "sasrec")
SLICES = ("all", "history 1-4", "history 5-9", "item head", "item tail", "user seen", "user unseen")
KS = (1, 5, 10, 20)
EVENTS, ITEMS, LIST = 10, 20_000, 20
FIRST_BAR, CHANGE_BAR = 4.0, 1.5
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


def main() -> None:
    """Generate, measure and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000, help="of the newest report")
    parser.add_argument("--reports", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="make or use the output directory here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        output = arguments.keep or Path(folder)
        if not any(output.glob("*/reports")):
            generate(output, arguments.users, arguments.reports, arguments.seed)
        measured = measure(output)
    result = {
        "benchmark": "dashboard",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": "python tests/benchmarks/dashboard.py",
        "seed": arguments.seed,
        "settings": {
            "runs": arguments.reports * len(MODELS),
            "users": arguments.users,
            "rows": arguments.users * len(MODELS),
            "items": ITEMS,
            "list_length": LIST,
        },
        "machine": machine(),
        "versions": {name: version(name) for name in ("streamlit", "plotly", "polars", "numpy")},
        "bars": {"first_page": FIRST_BAR, "page_change": CHANGE_BAR},
        **measured,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(measured, indent=2))


def generate(output: Path, users: int, reports: int, seed: int) -> None:
    """Write the experiments; the last one is the newest and the largest."""
    for i in range(reports):
        last = i == reports - 1
        name = "large" if last else f"set{i % 10}"
        began = time.time()
        make_experiment(output / name, f"{i:08x}", users if last else 1000, seed + i)
        if last:
            register(output, name)
            print(f"{name}: {users:,} users in {time.time() - began:.0f} s", file=sys.stderr)


def make_experiment(workspace: Path, report: str, users: int, seed: int) -> None:
    """Write prepared data, features, index, runs and one report."""
    rng = np.random.default_rng(seed)
    store, split = make_data(users, rng)
    prepared = workspace / "prepared"
    split.save(prepared / "splits" / "main")
    store.save(workspace / "features" / "sequences")
    ids = np.arange(1, ITEMS + 1, dtype=np.int32)
    genre = rng.choice(["drama", "comedy", "action", "horror", "crime"], ITEMS)
    items = {"item_id": ids.astype(str), "item": ids, "title": [f"Title {i}" for i in ids]}
    pl.DataFrame({**items, "genre": genre}).write_parquet(prepared / "items.parquet")
    names = pl.DataFrame({"user_id": [f"u{i}" for i in range(users)]})
    names.write_parquet(prepared / "users.parquet")
    (prepared / "splits" / "main" / "leakage.json").write_text('{"test": {"targets": 1}}')
    data = {"clock": "absolute", "kind": "users"}
    write_manifest(prepared, {"key": "data", "config": {"data": data}, "rows": {"users": users}})
    make_report(workspace, report, store, split, rng)


def register(output: Path, name: str) -> None:
    """Make MLflow's database with a model registered in it: the first page shows what is in production."""
    from mlflow.tracking import MlflowClient

    uri = tracking_uri(output)
    client = MlflowClient(uri, uri)
    client.create_registered_model(name)
    version = client.create_model_version(name, str(output / name), tags={"bundle": str(output)})
    client.set_registered_model_alias(name, CHAMPION, version.version)


def make_data(users: int, rng: np.random.Generator) -> tuple[SequenceStore, Split]:
    """Return events of a long-tailed catalogue, ten a user; the last one tests, the one before validates."""
    popularity = 1.0 / np.arange(1, ITEMS + 1)
    items = 1 + rng.choice(ITEMS, users * EVENTS, p=popularity / popularity.sum())
    gaps = rng.exponential(86_400, (users, EVENTS)).cumsum(1)
    times = (1_600_000_000 + gaps + rng.integers(0, 10**7, (users, 1))).astype(np.int64).ravel()
    offsets = np.arange(users + 1, dtype=np.int64) * EVENTS
    store = SequenceStore(items.astype(np.int32), offsets, ITEMS, timestamps=times)
    everybody, end = np.arange(users, dtype=np.int32), offsets[1:]
    validation = Targets(everybody, end - 2, end - 1)
    return store, Split(end - 2, validation, Targets(everybody, end - 1, end))


def make_report(
    workspace: Path, report: str, store: SequenceStore, split: Split, rng: np.random.Generator
) -> None:
    """Write the report and the runs and the index that it names."""
    folder, name = workspace / "reports" / report, workspace.name
    counts = np.bincount(store.items, minlength=ITEMS + 1).astype(np.int64)
    metrics: list[dict[str, Any]] = []
    exposure: list[Any] = []
    costs: list[dict[str, Any]] = []
    for strength, model in enumerate(MODELS, start=1):
        ranked = make_ranks(store, split, strength, rng)
        write_targets(targets_path(folder, model, "test"), ranked)
        metrics += metric_rows(name, model, ranked)
        for k in KS:
            exposure += exposure_rows(name, "test", model, k, ranked, counts)
        cost = {"train_seconds": 10.0**strength, "size_mb": 5.0, "p50_ms": 1.0 * strength}
        names = {"dataset": name, "split": "test", "model": model}
        costs.append({**names, **cost, "p95_ms": 2.0, "threads": 1})
        make_run(workspace, f"{model}-{report}", model)
    make_index(workspace / "index" / f"sasrec-{report}", rng)
    (folder / METRICS).write_text(json.dumps(metrics))
    (folder / COMPARISONS).write_text("[]")
    (folder / EXPOSURE).write_text(json.dumps(exposure))
    (folder / "costs.json").write_text(json.dumps(costs))
    (folder / PROFILE).write_text(json.dumps({"main": profile(store, split, "absolute")}))
    runs = {f"main/{model}": f"{model}-{report}" for model in MODELS}
    write_manifest(folder, {"key": report, "runs": runs, "about": {"data hash": "data"}})


def make_ranks(
    store: SequenceStore, split: Split, strength: int, rng: np.random.Generator
) -> RankedTargets:
    """Return a row for every test target; stronger models rank it higher, a hit stands in the list."""
    n = len(split.test)
    ranks = np.minimum(1 + rng.geometric(0.004 * strength, n), ITEMS).astype(np.float64)
    items = np.asarray(store.items[split.test.start])
    top = rng.integers(1, ITEMS + 1, (n, LIST), dtype=np.int32)
    hits = np.flatnonzero(ranks <= LIST)
    top[hits, ranks[hits].astype(np.int64) - 1] = items[hits]
    return RankedTargets(
        index=np.arange(n, dtype=np.int64),
        user=split.test.user,
        history_length=np.full(n, EVENTS - 1, dtype=np.int64),
        offsets=np.arange(n + 1, dtype=np.int64),
        items=items,
        ranks=ranks,
        top=top,
        n_targets=n,
        dropped=0,
        forbidden=0,
    )


def metric_rows(name: str, model: str, ranked: RankedTargets) -> list[dict[str, Any]]:
    """Return as many rows as an evaluation writes, the accuracy metrics from the ranks."""
    values = target_metrics(ranked.ranks, ranked.offsets, KS)
    means = {key: float(value.mean()) for key, value in values.items()}
    means |= {(metric, k): 0.1 * k for metric in ("coverage", "gini", "novelty", "ild") for k in KS}
    return [
        {
            **{"dataset": name, "split": "test", "model": model, "metric": metric, "k": k},
            **{"slice": part, "value": mean, "low": mean * 0.98, "high": mean * 1.02},
            "users": len(ranked),
        }
        for part in SLICES
        for (metric, k), mean in means.items()
    ]


def make_run(workspace: Path, run: str, model: str) -> None:
    """Write a run's manifest and a history of 40 epochs."""
    folder = workspace / "runs" / run
    folder.mkdir(parents=True)
    rows = [
        {"epoch": i, "loss": 9.0 / (i + 1), "ndcg@10": i / 200, "events_per_second": 1e4}
        for i in range(40)
    ]
    if model in ("unirec", "sasrec"):
        (folder / "history.json").write_text(json.dumps({"epochs": rows}))
    write_manifest(folder, {"key": run, "epochs": 40, "metrics": {"train_seconds": 60.0}})


def make_index(folder: Path, rng: np.random.Generator) -> None:
    """Write vectors and a map of all items and a thousand histories."""
    folder.mkdir(parents=True)
    np.save(folder / "vectors.npy", rng.normal(size=(ITEMS + 1, 64)).astype(np.float32))
    np.save(folder / "queries.npy", rng.normal(size=(1000, 64)).astype(np.float32))
    n = ITEMS + 1000
    item = np.concatenate([np.arange(1, ITEMS + 1), np.zeros(1000)]).astype(np.int32)
    user = np.concatenate([np.full(ITEMS, -1), np.arange(1000)]).astype(np.int32)
    places = {name: rng.normal(size=n).astype(np.float32) for name in ("x", "y", "pca_x", "pca_y")}
    kind = np.where(item > 0, "item", "history")
    events = rng.integers(0, 1000, n)
    frame = pl.DataFrame({"kind": kind, "item": item, "user": user, "events": events, **places})
    frame.write_parquet(folder / "map.parquet")
    write_manifest(folder, {"key": folder.name, "kind": "exact", "items": ITEMS, "width": 64})


@contextmanager
def served(output: Path) -> Iterator[tuple[str, float]]:
    """Serve the directory; yield `(address, seconds until the server answered)`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "pipelines.cli", "dashboard", "--output", str(output)]
    began = time.perf_counter()
    with subprocess.Popen(
        [*command, "--port", str(port)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
    ) as server:
        address = f"http://127.0.0.1:{port}"
        try:
            while True:
                try:
                    urllib.request.urlopen(f"{address}/_stcore/health", timeout=5).close()
                    break
                except OSError:
                    if server.poll() is not None:
                        raise RuntimeError("the dashboard did not start") from None
                    time.sleep(0.02)
            yield address, time.perf_counter() - began
        finally:
            server.terminate()


def measure(output: Path) -> dict[str, Any]:
    """Return the seconds of the start, of the first page, and of every change."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 1100})
        page.set_default_timeout(120_000)
        load_before = os.getloadavg()[0]
        with served(output) as (address, start):
            first = timed(page, lambda: page.goto(address), "Overview")
            changes: dict[str, list[float]] = {}
            for _ in range(2):
                for module, title, _ in (*PAGES[1:], PAGES[0]):
                    button = page.get_by_role("button", name=title, exact=True)
                    changes.setdefault(module, []).append(timed(page, button.click, title))
            page.get_by_role("button", name="Compare", exact=True).click()
            settled(page, "Compare")
            five = page.get_by_role("radio", name="5", exact=True)
            filtered = timed(page, five.click, "Compare")
            page.get_by_role("button", name="Look inside", exact=True).click()
            settled(page, "Look inside")
            lost = page.get_by_role("button", name="Worst lost", exact=True)
            one_click = timed(page, lost.click, "Look inside")
            broken = page.query_selector("[data-testid=stException]") is not None
        browser.close()
    if broken:
        raise RuntimeError("a page showed an error")
    every = [seconds for pair in changes.values() for seconds in pair]
    return {
        "load_before": round(load_before, 2),
        "seconds": {
            "server_start": round(start, 2),
            "first_page": round(first, 2),
            "page_change_first_and_again": {
                name: [round(seconds, 2) for seconds in pair] for name, pair in changes.items()
            },
            "page_change_median": round(float(np.median(every)), 2),
            "page_change_worst": round(max(every), 2),
            "another_cut_off": round(filtered, 2),
            "worst_lost_user": round(one_click, 2),
        },
    }


def timed(page: Any, action: Callable[[], object], title: str) -> float:
    """Return the seconds from an action until the page of that title is there."""
    began = time.perf_counter()
    action()
    settled(page, title)
    return time.perf_counter() - began


def settled(page: Any, title: str) -> None:
    """Wait until a page is there: a rerun shows itself within a twentieth of a second, or not at all."""
    page.wait_for_timeout(50)
    page.wait_for_function("t => document.querySelector('h1')?.innerText === t", arg=title)
    page.wait_for_selector(".stApp[data-test-script-state=notRunning]")
    page.wait_for_function("!document.querySelector('[data-stale=true], [data-testid=stSkeleton]')")
    page.wait_for_function(
        "[...document.querySelectorAll('.stPlotlyChart')].every(c => c.querySelector('.main-svg'))"
    )


if __name__ == "__main__":
    main()
