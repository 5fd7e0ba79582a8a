"""What vectors of playlists know: the probes of every model of the configurations named `playlists_*`.

A cell is a model of a configuration: it is fitted in this process (no cluster), then `recsys probe`'s
suite asks its frozen vectors. A cell is a small JSON file under the results, named by its set and model,
and is skipped while what made it is the same: data, model, seed and questions. A cell that was cut goes
on from its last finished epoch. Bars: an order-blind vector is at 50 % within its binomial interval at
every permutation, and bi-seq2seq (with a bottleneck) reaches 95 % at 100 % shuffled and at reversal on
concerts or on sessions.

    python tests/benchmarks/playlist_probes.py                          # all cells, then the table
    python tests/benchmarks/playlist_probes.py grateful_dead --models mean,bi_bottleneck
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from environments import machine, now

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results" / "playlist_probes"
SETS = ("grateful_dead", "30music", "online_retail", "classic_rock")
BLIND = ("mean", "bow_sif", "deep_sets", "set_transformer")
"""Models that see no order."""
SEEING = ("bi_bottleneck", "bi_seq2seq")


def main() -> None:
    """Make every cell that is asked for and not there yet, then print the tables and the bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", default=SETS)
    parser.add_argument("--models", default=None, help="with commas between; all by default")
    parser.add_argument("--output", type=Path, default=Path("out"), help="where experiments are")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    import torch

    torch.set_num_threads(options.threads)
    for name in options.sets:
        make_cells(name, options)
    for name in options.sets:
        print_table(name, options.results)
    print(json.dumps(bars(options.results), indent=1))


def make_cells(name: str, options: argparse.Namespace) -> None:
    """Prepare a data set, then fit and probe its models."""
    from rich.console import Console

    from pipelines.runs import is_learned
    from pipelines.stages import run_stage
    from recsys.config import load_config

    changes = [f"output={options.output}", "tracking.enabled=false"]
    config = load_config(ROOT / "configs" / f"playlists_{name}.yaml", changes)
    for stage in ("prepare", "features"):
        run_stage(config, stage, Console())
    wanted = [one for one in config.models if is_learned(config, one)]
    if options.models is not None:
        wanted = [one for one in wanted if one in options.models.split(",")]
    for model in wanted:
        path = options.results / f"{name}-{model}.json"
        began = time.perf_counter()
        if not is_made(path, key_of(config, model)):
            cell = make_cell(config, model)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(cell, indent=1) + "\n")
        print(f"{name} {model}: {time.perf_counter() - began:.0f} s", flush=True)


def key_of(config: Any, model: str) -> str:
    """Return the hash of what makes a cell."""
    from pipelines.probe import STAGE_VERSION, label_file
    from pipelines.run_keys import run_key
    from recsys.manifest import file_hash, stable_hash

    labels = label_file(config)
    asked = config.probe.model_dump(mode="json", exclude={"models"})
    made = [run_key(config, model), asked, labels and file_hash(labels), STAGE_VERSION]
    return stable_hash(made)


def is_made(path: Path, key: str) -> bool:
    """Tell whether a cell is there."""
    return path.is_file() and json.loads(path.read_text())["key"] == key


def make_cell(config: Any, model: str) -> dict[str, Any]:
    """Fit a model, ask its vectors, and return the record."""
    from pipelines.fitting import fit_model
    from pipelines.probe import embedder, label_file, suite_of
    from pipelines.run_keys import run_key
    from pipelines.runs import Run
    from recsys.evaluation.probes.suite import facts

    directory = config.workspace / "cells" / f"{model}-{run_key(config, model)[:8]}"
    began, cpu = time.perf_counter(), time.process_time()
    history = directory / "history.json"
    if not history.is_file():
        fit_model(config, model, "main", directory, on_epoch=tell)
    rows = json.loads(history.read_text())["epochs"]
    run = Run(config, model, "main", directory)
    suite, without = suite_of(config, [run], label_file(config))
    asked = list(suite.ask(embedder(run)))
    return {
        "benchmark": "playlist_probes",
        "date": now(),
        "command": f"python tests/benchmarks/playlist_probes.py "
        f"{config.name.removeprefix('playlists_')} --models {model}",
        "key": key_of(config, model),
        "set": config.name,
        "model": model,
        "seed": config.seed,
        "epochs": len(rows),
        "losses": [round(row["loss"], 4) for row in rows],
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        **facts(suite.lists, suite.labels),
        "labels_without_classes": without,
        "rows": [rounded(row) for row in asked],
        "versions": {name: version(name) for name in ("torch", "scikit-learn")},
        "machine": machine(),
    }


def tell(row: dict[str, float]) -> None:
    """Print an epoch."""
    print(f"  epoch {row['epoch']:.0f} loss {row['loss']:.3f} {row['seconds']:.1f} s", flush=True)


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with figures of four places."""
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}


def cells_of(name: str, results: Path) -> list[dict[str, Any]]:
    """Return the cells of a set that are there, in the configuration's order."""
    from recsys.config import load_config

    config = load_config(ROOT / "configs" / f"playlists_{name}.yaml")
    paths = [results / f"{name}-{model}.json" for model in config.models]
    return [json.loads(path.read_text()) for path in paths if path.is_file()]


def print_table(name: str, results: Path) -> None:
    """Print a set's cells: a question a row, a model a column, base rates beside."""
    from rich.console import Console

    from pipelines.probe import probe_table

    cells = cells_of(name, results)
    if not cells:
        return
    rows = [{"model": cell["model"], **row} for cell in cells for row in cell["rows"]]
    print(f"\n{name}: {cells[0]['lists']} lists, left out {cells[0]['left_out']}")
    Console(width=60 + 24 * len(cells)).print(probe_table({"rows": rows}))


def bars(results: Path) -> dict[str, Any]:
    """Return what the bars ask for, of all cells that are there."""
    outside, best = [], {}
    for name in SETS:
        for cell in cells_of(name, results):
            order = {r["detail"]: r for r in cell["rows"] if r["task"] == "permutation"}
            if cell["model"] in BLIND:
                outside += [
                    f"{name} {cell['model']} {detail}: {row['value']}"
                    for detail, row in order.items()
                    if not row["base_low"] <= row["value"] <= row["base_high"]
                ]
            if cell["model"] in SEEING and order:
                found = {
                    d: order[d]["value"] for d in ("shuffle 100%", "reverse 100%") if d in order
                }
                best[f"{name} {cell['model']}"] = found
    reached = [where for where, found in best.items() if found and min(found.values()) >= 0.95]
    return {"order-blind vectors outside their interval": outside, "bi-seq2seq": best,
            "at 95 % or more at both": reached}  # fmt: skip


if __name__ == "__main__":
    main()
