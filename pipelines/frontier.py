"""`recsys frontier`: accuracy against diversity of every way of making lists, on a trained model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipelines.index import item_vectors
from pipelines.progress import transient_bar
from pipelines.runs import Run, asked_run, dataset_name, is_learned, last_fold
from pipelines.tracking import code_tags
from recsys.config import ExperimentConfig
from recsys.errors import ConfigError, DataError
from recsys.manifest import is_current, stable_hash, stage_directory
from recsys.schema import SplitName

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from recsys.data.sequences import Targets
    from recsys.evaluation.frontier import Course, Ways

STAGE_VERSION: Final = 1
RESULT: Final = "frontier.json"
PAGE: Final = "frontier.html"
KINDS: Final = ("hamming", "vector")
STRENGTHS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
BALANCES: Final = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class FrontierSettings:
    """What is compared, beyond the configuration of the experiment.

    Attributes:
        model: name of the model; the first learned one by default.
        split: whose targets.
        targets: how many, drawn with the configuration's seed.
        groups: of the diverse search.
        beams: lists of each group; groups x beams is the width of every search.
        steps: items of each list.
        k: items of the merged list.
    """

    model: str | None = None
    split: SplitName = "test"
    targets: int = 500
    groups: int = 10
    beams: int = 2
    steps: int = 10
    k: int = 10


def frontier(
    config: ExperimentConfig, settings: FrontierSettings, console: Console | None = None
) -> Path:
    """Measure every way and return the finished directory: `frontier.json` and `frontier.html`.

    Raises:
        ArtifactError: the model is not trained with this configuration.
        ConfigError: the experiment has no learned model, or none of that name.
        DataError: the split has no targets.
    """
    run = _run(config, settings)
    key = stable_hash({"run": run.key, **asdict(settings), "version": STAGE_VERSION})
    directory = config.workspace / "reports" / f"frontier-{run.name}-{key[:8]}"
    if is_current(directory, key):
        return directory
    with stage_directory(directory, key) as (work, manifest):
        result = _measure(run, settings, console)
        (work / RESULT).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        from recsys.evaluation.frontier_page import write_frontier_page

        write_frontier_page(work / PAGE, result)
        manifest.update(model=run.name, run=run.directory.name, settings=asdict(settings))
    return directory


def frontier_table(result: dict[str, Any]) -> Table:
    """Return the result as a table: a way and strength a row, a metric a column, with intervals."""
    from rich.table import Table

    rows: list[dict[str, Any]] = result["rows"]
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    table = Table("way", "strength", *metrics, box=None, pad_edge=False)
    for way, strength in dict.fromkeys((row["way"], row["strength"]) for row in rows):
        own = {r["metric"]: r for r in rows if (r["way"], r["strength"]) == (way, strength)}
        cells = [_figure(own[metric]) for metric in metrics]
        table.add_row(way, "" if strength is None else f"{strength:g}", *cells)
    return table


def _figure(row: dict[str, Any]) -> str:
    if row["value"] is None:
        return "-"
    return f"{row['value']:.3f} ({row['low']:.3f} {row['high']:.3f})"


def _run(config: ExperimentConfig, settings: FrontierSettings) -> Run:
    learned = [name for name in config.models if is_learned(config, name)]
    name = settings.model or (learned[0] if learned else None)
    if name not in learned:
        known = ", ".join(learned) or "none"
        raise ConfigError(f"{name!r} is no learned model of {config.name}; it has {known}")
    return asked_run(config, name, last_fold(config), settings.split)


def _measure(run: Run, settings: FrontierSettings, console: Console | None) -> dict[str, Any]:
    import torch

    from recsys.decoding import Catalogue, SearchSettings
    from recsys.evaluation.frontier import Course, compare_ways, differences, summary
    from recsys.models import EncoderModel
    from recsys.retrieval.exclusion import Exclusion
    from recsys.retrieval.index import build_index

    model, evaluation = run.model, run.config.evaluation
    assert isinstance(model, EncoderModel)
    targets = _sample(run, settings)
    with torch.inference_mode():
        catalogue = Catalogue(model, build_index(run.config.index, item_vectors(run)))
    search = SearchSettings(groups=settings.groups, beams=settings.beams)
    course = Course(search, settings.steps, settings.k, KINDS, STRENGTHS, BALANCES)
    rule = Exclusion.from_setting(evaluation.exclude)
    with transient_bar(console) as bar:
        task = bar.add_task(f"frontier {run.name}", total=len(targets))
        ways = compare_ways(
            catalogue,
            run.store,
            targets,
            rule,
            course,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    interval = (evaluation.bootstrap, evaluation.level, run.config.seed)
    return {
        **_facts(run, settings, course, ways),
        "rows": summary(ways, *interval),
        "differences": [
            row
            for kind in KINDS
            for other in ("beam", "beam+mmr")
            for row in differences(ways, f"diverse {kind}", other, *interval)
        ],
    }


def _sample(run: Run, settings: FrontierSettings) -> Targets:
    """Return a seeded sample of the split's targets, in order."""
    import numpy as np

    from recsys.data.sequences import Targets

    every = run.split.targets(settings.split)
    if not len(every):
        raise DataError(f"the split has no {settings.split} targets; choose the other with --split")
    rng = np.random.default_rng(run.config.seed)
    size = min(settings.targets, len(every))
    chosen = np.sort(rng.choice(len(every), size, replace=False))
    return Targets(every.user[chosen], every.start[chosen], every.end[chosen])


def _facts(run: Run, settings: FrontierSettings, course: Course, ways: Ways) -> dict[str, Any]:
    import numpy as np

    from recsys.evaluation import frontier as ways_of

    return {
        "dataset": dataset_name(run.config, run.fold),
        "items": run.store.n_items,
        "model": run.name,
        "model_config": run.config.models[run.name].model_dump(mode="json"),
        "split": settings.split,
        "seed": run.config.seed,
        "targets": int(ways.values.shape[1]),
        "users": len(np.unique(ways.user)),
        "width": course.settings.width,
        "search": asdict(course.settings),
        "exact_log_z": course.settings.exact(run.store.n_items),
        "steps": settings.steps,
        "k": settings.k,
        "code": code_tags()["code_version"],
        "metrics": (ways_of.__doc__ or "").split("Metrics:")[-1].strip().splitlines(),
    }


def shown_lines(result: dict[str, Any]) -> Sequence[str]:
    """Return what the table stands on, in words."""
    return (
        f"{result['dataset']}, {result['split']}: {result['model']}, {result['targets']} targets of "
        f"{result['users']} users, {result['items']:,} items; all searches {result['width']} lists of "
        f"{result['steps']}, log Z {'exact' if result['exact_log_z'] else 'estimated'}",
    )
