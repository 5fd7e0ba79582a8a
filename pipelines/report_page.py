"""The page of a report: everything that is drawn is gathered from the stages' own files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipelines.index import MAP, TRADEOFF, index_directory
from pipelines.order_test import RESULT as ORDER
from pipelines.report_parts import COSTS, EXPOSURE, PROFILE
from pipelines.runs import Run
from pipelines.training_facts import shown_name, training_facts
from pipelines.training_process import HISTORY
from recsys.config import ExperimentConfig
from recsys.evaluation.names import nearest_k

if TYPE_CHECKING:
    import polars as pl

    from recsys.evaluation.background import Background, Example, ItemMap
    from recsys.evaluation.by_user import UserValues
    from recsys.schema import SplitName

METRICS: Final = "metrics.json"
COMPARISONS: Final = "comparisons.json"
PAGE: Final = "report.html"
PLOTS: Final = "plots"
"""In a report: the charts of every exam as SVG files, for a tracking server to show."""
METRIC: Final = "ndcg"
"""By which users are won, lost and chosen to be looked at."""
SHOWN: Final = 10

Row = dict[str, Any]


def write_page(
    config: ExperimentConfig, runs: Mapping[str, Run], about: Mapping[str, str], work: Path
) -> None:
    """Write `report.html` from the files of an otherwise finished report.

    Args:
        config: the experiment.
        runs: the measured runs by `fold/model`, a refitted one with `/refit`.
        about: what the figures stand on.
        work: the report's directory.
    """
    from recsys.evaluation.background import Background
    from recsys.evaluation.report import write_report

    rows, comparisons = _read(work / METRICS), _read(work / COMPARISONS)
    profiles: dict[str, Row] = _read(work / PROFILE)
    prepared = config.workspace / "prepared"
    leakage = {
        fold: _read(prepared / "splits" / fold / "leakage.json") for fold in dict.fromkeys(profiles)
    }
    k = nearest_k(config.evaluation.ks)
    items = item_texts(prepared / "items.parquet")
    background = Background(
        exposure=_read(work / EXPOSURE),
        costs=_read(work / COSTS),
        wins=[row for pair in _pairs(comparisons) for row in _wins(work, config, pair, k)],
        profiles=profiles,
        histories={
            shown_name(title): found for title, run in runs.items() if (found := _epochs(run))
        },
        retrieval={
            shown_name(title): found for title, run in runs.items() if (found := _kinds(run))
        },
        maps={
            shown_name(title): placed for title, run in runs.items() if (placed := _map(run, items))
        },
        examples=_examples(config, rows, work, k, items),
        order=_read(work / ORDER) if (work / ORDER).is_file() else None,
    )
    training = training_facts({shown_name(title): run.manifest for title, run in runs.items()})
    title = f"{config.name}: models compared"
    write_report(work / PAGE, title, about, rows, comparisons, leakage, training, background)
    write_plots(rows, comparisons, background, k, work / PLOTS)


def write_plots(
    rows: Sequence[Row], comparisons: Sequence[Row], background: Background, k: int, folder: Path
) -> None:
    """Write the charts of every exam, and of the trainings, as one SVG file each."""
    from recsys.evaluation.data_charts import training_figures
    from recsys.evaluation.metric_charts import by_slice, curves, paired, standing

    figures = {f"training {f.title}": f for f in training_figures(background.histories)}
    for dataset, split in dict.fromkeys((row["dataset"], row["split"]) for row in rows):
        mine = [r for r in rows if (r["dataset"], r["split"]) == (dataset, split)]
        pairs = [r for r in comparisons if (r["dataset"], r["split"]) == (dataset, split)]
        drawn = [standing(mine, METRIC, k), paired(pairs, METRIC, k), by_slice(mine, METRIC, k)]
        known = [figure for figure in [*drawn, *curves(mine)] if figure is not None]
        figures |= {f"{dataset} {split} {figure.title}": figure for figure in known}
    folder.mkdir(exist_ok=True)
    for name, figure in figures.items():
        file = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        (folder / f"{file}.svg").write_text(figure.file(), encoding="utf-8")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _epochs(run: Run) -> list[Row]:
    path = run.directory / HISTORY
    found: list[Row] = _read(path)["epochs"] if path.is_file() else []
    return found


def _kinds(run: Run) -> list[Row]:
    path = index_directory(run) / TRADEOFF
    found: list[Row] = _read(path) if path.is_file() else []
    return found


def item_texts(path: Path) -> pl.DataFrame:
    """Return the items with a `text` to show: the title, or the name, or the id."""
    import polars as pl

    items = pl.read_parquet(path)
    known = [pl.col(name).cast(pl.String) for name in ("title", "name") if name in items.columns]
    return items.with_columns(text=pl.coalesce([*known, pl.col("item_id").cast(pl.String)]))


def _map(run: Run, items: pl.DataFrame) -> ItemMap | None:
    """Return where the index stage put a run's items, coloured by their most telling attribute."""
    import polars as pl

    from recsys.evaluation.background import ItemMap
    from recsys.evaluation.inside import telling_attributes

    path = index_directory(run) / MAP
    if not path.is_file():
        return None
    places = (
        pl.read_parquet(path).filter(pl.col("kind") == "item").join(items, on="item", how="left")
    )
    attributes = telling_attributes(items)
    if not attributes:
        return ItemMap(places)
    name, expression = next(iter(attributes.items()))
    return ItemMap(places.with_columns(expression.alias(name)), name)


def _pairs(comparisons: Sequence[Row]) -> list[tuple[str, str, str, str]]:
    """Return `(data set, split, model, other)` of every comparison, each once."""
    keys = ("dataset", "split", "model_a", "model_b")
    return list(dict.fromkeys(tuple(row[key] for key in keys) for row in comparisons))


def _wins(
    work: Path, config: ExperimentConfig, pair: tuple[str, str, str, str], k: int
) -> list[Row]:
    from dataclasses import asdict

    from recsys.evaluation.by_user import differences, wins

    dataset, split, one, other = pair
    first = _values(work, config, dataset, split, one, k)
    second = _values(work, config, dataset, split, other, k)
    found = wins(differences(first, second))
    names = {"dataset": dataset, "split": split, "model_a": one, "model_b": other}
    return [{**names, "metric": METRIC, "k": k, **asdict(found)}]


def _values(
    work: Path, config: ExperimentConfig, dataset: str, split: str, model: str, k: int
) -> UserValues:
    from recsys.evaluation.by_user import user_values

    return user_values(_targets(work, config, dataset, split, model), (METRIC, k))


def _targets(work: Path, config: ExperimentConfig, dataset: str, split: Any, model: str) -> Path:
    from recsys.evaluation.targets_file import targets_path

    fold = dataset.removeprefix(f"{config.name}/")
    return targets_path(work if fold == dataset else work / fold, model, split)


def _examples(
    config: ExperimentConfig, rows: Sequence[Row], work: Path, k: int, items: pl.DataFrame
) -> dict[tuple[str, str], list[Example]]:
    """Return, for every exam, the users that the best model serves best and worst beside another."""
    found = {}
    for dataset, split in dict.fromkeys((row["dataset"], row["split"]) for row in rows):
        values = {
            row["model"]: row["value"]
            for row in rows
            if (row["dataset"], row["split"], row["metric"], row["k"], row["slice"])
            == (dataset, split, METRIC, k, "all")
            and row["value"] is not None
        }
        models = sorted(values, key=lambda model: -values[model])
        if models:
            found[dataset, split] = _looked_at(config, dataset, split, models, work, k, items)
    return found


def _looked_at(
    config: ExperimentConfig,
    dataset: str,
    split: SplitName,
    models: Sequence[str],
    work: Path,
    k: int,
    items: pl.DataFrame,
) -> list[Example]:
    from recsys.data.sequences import SequenceStore, Split
    from recsys.evaluation.examples import Looking, look

    fold = dataset.removeprefix(f"{config.name}/")
    splits = config.workspace / "prepared" / "splits"
    best, other = models[0], config.evaluation.baseline or models[-1]
    if other == best and len(models) > 1:
        other = models[1]
    looking = Looking(
        store=SequenceStore.load(config.workspace / "features" / "sequences"),
        targets=Split.load(splits / ("main" if fold == dataset else fold)).targets(split),
        files={model: _targets(work, config, dataset, split, model) for model in config.models},
        texts=dict(items.select("item", "text").iter_rows()),
        shown=SHOWN,
        seed=config.seed,
    )
    first = _values(work, config, dataset, split, best, k)
    second = _values(work, config, dataset, split, other, k)
    return look(looking, (best, first), (other, second))
