"""Statistics of training events by fold: how they are named, where they lie, and how they are opened.

Every fold has two: of what trains, and (`-refit`) of what a model learns from that is fitted again when
validation has been used. A model must be given those of its own events.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from recsys.config import ExperimentConfig
from recsys.errors import ArtifactError
from recsys.manifest import is_current, read_manifest, stable_hash

if TYPE_CHECKING:
    from recsys.data.statistics import TrainingStatistics

FEATURES: Final = "features"
STATISTICS: Final = "statistics"
NEIGHBOURS: Final = "neighbours"
NEIGHBOURS_VERSION: Final = 1
REFIT: Final = "-refit"


def statistics_name(fold: str, refit: bool = False) -> str:
    """Return what the statistics of a fold's training events (`refit`: and validation's) are called."""
    return fold + REFIT if refit else fold


def training_ends(splits: Path) -> dict[str, Path]:
    """Return, by name, the files that say where every user's events end that statistics may see."""
    ends = {}
    for fold in sorted(path for path in splits.iterdir() if path.is_dir()):
        ends[statistics_name(fold.name)] = fold / "train_end.npy"
        if (fold / "refit_end.npy").is_file():
            ends[statistics_name(fold.name, refit=True)] = fold / "refit_end.npy"
    return ends


def training_statistics(
    config: ExperimentConfig, fold: str, refit: bool = False
) -> TrainingStatistics:
    """Return the statistics that a model of this fold may read, memory-mapped.

    With `refit` they are of training and validation events together. Neighbours are there if the
    configuration wants them (see `wants_neighbours`).

    Raises:
        ArtifactError: the features stage is not finished for this configuration.
    """
    from recsys.data.statistics import TrainingStatistics

    name = statistics_name(fold, refit)
    statistics = TrainingStatistics.load(config.workspace / FEATURES / STATISTICS / name)
    if not wants_neighbours(config):
        return statistics
    import numpy as np

    directory = config.workspace / NEIGHBOURS
    path = directory / f"{name}.npy"
    if not is_current(directory, neighbours_key(config)) or not path.is_file():
        raise ArtifactError(f"{path} is missing or of another configuration; run `recsys features`")
    return replace(statistics, neighbours=np.load(path, mmap_mode="r"))


def clock_report(config: ExperimentConfig, fold: str, refit: bool = False) -> dict[str, Any]:
    """Return what the clock of a fold's training events carries (see `features.clock`), as a mapping."""
    manifest = read_manifest(config.workspace / FEATURES)
    report: dict[str, Any] = manifest["clock"][statistics_name(fold, refit)]
    return report


def times_off(config: ExperimentConfig, fold: str, refit: bool = False) -> dict[str, str]:
    """Return what the times of a fold's training events do not say, each with the reason."""
    features: dict[str, dict[str, Any]] = clock_report(config, fold, refit)["features"]
    return {name: facts["why"] for name, facts in features.items() if not facts["on"]}


def wants_neighbours(config: ExperimentConfig) -> bool:
    """Tell whether neighbours are computed: asked for, or needed by a model that is configured."""
    asked = config.features.neighbours
    needed = any(getattr(model, "needs_neighbours", False) for model in config.models.values())
    return asked == "on" or (asked == "auto" and needed)


def neighbours_key(config: ExperimentConfig) -> str:
    """Return the hash of everything that makes the neighbours; needs the features stage."""
    return stable_hash(
        {
            "features": read_manifest(config.workspace / FEATURES)["key"],
            "window": config.features.neighbour_window,
            "kept": config.features.neighbours_kept,
            "refit": config.refit,
            "version": NEIGHBOURS_VERSION,
        }
    )
