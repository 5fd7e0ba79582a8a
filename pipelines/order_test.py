"""`recsys order-test`: what the order of a history is worth to a trained model, with intervals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipelines.progress import transient_bar
from pipelines.runs import Run, asked_run, dataset_name, last_fold
from pipelines.tracking import Tracker, code_tags, tracker_settings
from recsys.config import ExperimentConfig, ItemKNNConfig, OrderTestConfig
from recsys.errors import ConfigError, DataError
from recsys.manifest import is_current, stable_hash, stage_directory
from recsys.schema import SplitName

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from recsys.data.sequences import Targets

STAGE_VERSION: Final = 1
RESULT: Final = "order.json"
PAGE: Final = "order.html"
TRACKED: Final = "tracked"
"""In a finished test: a file that says its figures are recorded."""
ORDERLESS: Final = ("pop", "own_pop")


def order_settings(config: ExperimentConfig) -> OrderTestConfig:
    """Return the section `order_test`, or its defaults."""
    return config.order_test or OrderTestConfig()


def asked_model(config: ExperimentConfig) -> str:
    """Return whose order is tested: the section's model, else the first learned one, else the first
    that reads an order.

    Raises:
        ConfigError: no model, or not the one that is named, reads an order.
    """
    readers = [name for name in config.models if reads_order(config, name)]
    named = order_settings(config).model
    if named is not None and named not in readers:
        raise ConfigError(
            f"order_test.model: {named} reads no order, so it has none to lose; "
            f"{', '.join(readers) or 'none of the models'} does"
        )
    if not readers:
        raise ConfigError(
            f"no model of {config.name} reads the order of a history; add one to models, for example "
            "markov: {kind: markov} or sasrec: {kind: sasrec}"
        )
    learned = [name for name in readers if hasattr(config.models[name], "training")]
    return named or [*learned, *readers][0]


def reads_order(config: ExperimentConfig, name: str) -> bool:
    """Tell whether the order of a history can change what a model says."""
    model = config.models[name]
    if isinstance(model, ItemKNNConfig):
        return model.decay < 1
    return model.kind not in ORDERLESS


def order_test(config: ExperimentConfig, console: Console | None = None) -> Path:
    """Measure, and return the finished directory: `order.json` and `order.html`.

    The figures go to the model's run in MLflow, too.

    Raises:
        ArtifactError: the model is not trained with this configuration.
        ConfigError: no model reads an order.
        DataError: the split has no targets, or no history has an order.
    """
    run, settings = _run(config), order_settings(config)
    evaluation = config.evaluation.model_dump(mode="json")
    parts = {"run": run.key, "settings": settings.model_dump(mode="json"), "seed": config.seed}
    key = stable_hash({**parts, "evaluation": evaluation, "version": STAGE_VERSION})
    directory = config.workspace / "order" / f"{run.name}-{key[:8]}"
    if not is_current(directory, key):
        with stage_directory(directory, key) as (work, manifest):
            result = _measure(run, console)
            (work / RESULT).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            from recsys.evaluation.order_page import write_order_page

            write_order_page(work / PAGE, result)
            manifest.update(model=run.name, run=run.directory.name, settings=parts["settings"])
    _track(run, directory)
    return directory


def read_result(directory: Path) -> dict[str, Any]:
    """Return what `order_test` found."""
    result: dict[str, Any] = json.loads((directory / RESULT).read_text(encoding="utf-8"))
    return result


def _run(config: ExperimentConfig) -> Run:
    return asked_run(config, asked_model(config), last_fold(config), order_settings(config).split)


def _measure(run: Run, console: Console | None) -> dict[str, Any]:
    from recsys.evaluation.order_test import OrderGround, advice, order_rows, verdicts

    config, settings = run.config, order_settings(run.config)
    ground = OrderGround(
        store=run.store,
        targets=_sample(run, settings.split, settings.targets),
        evaluation=config.evaluation,
        k=settings.k,
        shuffles=settings.shuffles,
        margin=settings.margin,
        seed=config.seed,
    )
    with transient_bar(console) as bar:
        task = bar.add_task(f"order test {run.name}", total=None)
        rows = order_rows(
            run.model,
            ground,
            name=run.name,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    return {
        "dataset": dataset_name(config, run.fold),
        "model": run.name,
        "model_config": config.models[run.name].model_dump(mode="json"),
        "split": settings.split,
        "shuffles": settings.shuffles,
        "margin": settings.margin,
        "seed": config.seed,
        "verdicts": verdicts(rows),
        "advice": advice(verdicts(rows)),
        "rows": rows,
        "code": code_tags()["code_version"],
    }


def _sample(run: Run, split: SplitName, limit: int | None) -> Targets:
    """Return the split's targets, or a seeded sample of them, in order."""
    import numpy as np

    from recsys.data.sequences import Targets

    every = run.split.targets(split)
    if not len(every):
        raise DataError(f"the split has no {split} targets; set order_test.split to the other")
    if limit is None or len(every) <= limit:
        return every
    rng = np.random.default_rng(run.config.seed)
    chosen = np.sort(rng.choice(len(every), limit, replace=False))
    return Targets(every.user[chosen], every.start[chosen], every.end[chosen])


def _track(run: Run, directory: Path) -> None:
    """Add the figures to the model's MLflow run once; where there is no run, nothing is recorded."""
    known = run.manifest.get("mlflow_run")
    if not run.config.tracking.enabled or known is None or (directory / TRACKED).is_file():
        return
    figures: dict[str, float] = {}
    for row in read_result(directory)["rows"]:
        name = f"order/{row['way']}/{row['metric']}@{row['k']}"
        figures |= {f"{name}/{field}": row[field] for field in ("drop", "low", "high", "share")}
        figures[f"order/{row['way']}/overlap@{row['k']}"] = row["overlap"]
    tracker = Tracker(replace(tracker_settings(run.config, run.name), run_id=known))
    tracker.start_run({}, {})
    tracker.log_metrics(figures)
    tracker.log_artifact(directory / PAGE)
    tracker.finish()
    if not tracker.failures:
        (directory / TRACKED).touch()


def shown_lines(result: dict[str, Any]) -> list[str]:
    """Return the answer in words."""
    from recsys.evaluation.order_page import WORDS

    asked = (
        f"{result['dataset']}, {result['split']}: {result['model']}, {result['shuffles']} shuffles of "
        f"every way, margin {result['margin']:.0%}"
    )
    answers = [f"order, {WORDS[way]}: {said}" for way, said in result["verdicts"].items()]
    return [asked, *answers, *result["advice"]]


def order_table(result: dict[str, Any]) -> Table:
    """Return the figures, a way and metric a row."""
    from rich.table import Table

    from recsys.evaluation.names import label, number, p_text

    header = ("shuffled", "metric", "true", "shuffled", "drop", "share", "p", "overlap", "users")
    table = Table(*header, box=None, pad_edge=False)
    for row in result["rows"]:
        table.add_row(
            row["way"],
            label(row["metric"], row["k"]),
            f"{number(row['true'])} [{number(row['true_low'])}, {number(row['true_high'])}]",
            number(row["shuffled"]),
            f"{row['drop']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]",
            f"{row['share']:+.1%}",
            p_text(row["p"]),
            f"{row['overlap']:.3f}",
            f"{row['users']:,}",
        )
    return table
