"""What a report holds besides its metrics: popularity bias, costs, the data's profile.

A Ray task measures a model and leaves its part in a file; the stage gathers the parts.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipelines.runs import Run
from recsys.config import ExperimentConfig
from recsys.manifest import read_manifest

if TYPE_CHECKING:
    from recsys.data.sequences import Int64
    from recsys.evaluation.ranked import RankedTargets

PARTS: Final = "parts"
"""In an unfinished report: one file of rows for every model and exam."""
EXPOSURE: Final = "exposure.json"
COSTS: Final = "costs.json"
PROFILE: Final = "profile.json"
WEIGHTS: Final = "model.safetensors"

Row = dict[str, Any]


def write_part(
    work: Path, run: Run, names: tuple[str, str, str], ranked: RankedTargets, item_counts: Int64
) -> None:
    """Measure exposure and cost of one model and keep them until all are done.

    Args:
        work: the unfinished report.
        run: the model's.
        names: data set, split and model, as rows name them.
        ranked: its rows.
        item_counts: int64 [n_items + 1], training events.
    """
    from recsys.evaluation.exposure import exposure_rows
    from recsys.evaluation.latency import list_latency

    dataset, split, model = names
    ks = run.config.evaluation.ks
    exposure = [
        row for k in ks for row in exposure_rows(dataset, split, model, k, ranked, item_counts)
    ]
    targets = run.split.validation if split == "validation" else run.split.test
    cost = {
        "dataset": dataset,
        "split": split,
        "model": model,
        "train_seconds": _metrics(run).get("train_seconds"),
        "size_mb": (run.directory / WEIGHTS).stat().st_size / 1e6,
        **list_latency(run.model, run.store, targets, run.config.seed),
    }
    file = work / PARTS / f"{dataset.replace('/', '.')}.{split}.{model}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"exposure": exposure, "costs": [cost]}), encoding="utf-8")


def _metrics(run: Run) -> Row:
    found: Row = run.manifest.get("metrics", {})
    return found


def gather_parts(work: Path, order: Sequence[tuple[str, str, str]]) -> None:
    """Write `exposure.json` and `costs.json` of all parts, in the order of `(data set, split, model)`."""
    exposure: list[Row] = []
    costs: list[Row] = []
    for dataset, split, model in order:
        file = work / PARTS / f"{dataset.replace('/', '.')}.{split}.{model}.json"
        part = json.loads(file.read_text(encoding="utf-8"))
        exposure += part["exposure"]
        costs += part["costs"]
    write_rows(work / EXPOSURE, exposure)
    write_rows(work / COSTS, costs)
    shutil.rmtree(work / PARTS)


def write_profiles(config: ExperimentConfig, names: Sequence[str], work: Path) -> dict[str, Row]:
    """Write the profile of every fold to `profile.json`, by fold, and return it."""
    from recsys.data.profile import profile
    from recsys.data.sequences import SequenceStore, Split

    store = SequenceStore.load(config.workspace / "features" / "sequences")
    prepared = config.workspace / "prepared"
    clock = read_manifest(prepared)["config"]["data"]["clock"]
    found = {
        name: profile(store, Split.load(prepared / "splits" / name), clock)
        for name in dict.fromkeys(names)
    }
    write_rows(work / PROFILE, found)
    return found


def write_rows(path: Path, rows: Sequence[Any] | Row | dict[str, Row]) -> None:
    """Write rows as JSON that a person can read too."""
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
