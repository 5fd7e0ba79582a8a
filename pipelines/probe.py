"""`recsys probe`: what the trained models' frozen vectors of lists know, with base rates and intervals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipelines.progress import transient_bar
from pipelines.runs import Run, is_learned, last_fold, tested_run
from pipelines.tracking import code_tags
from recsys.config import ExperimentConfig
from recsys.errors import ConfigError, DataError
from recsys.manifest import file_hash, is_current, stable_hash, stage_directory, written_aside

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console
    from rich.table import Table

    from recsys.data.sequences import Int32
    from recsys.evaluation.probes.retrieval import Floats
    from recsys.evaluation.probes.suite import Suite

STAGE_VERSION: Final = 1
RESULT: Final = "probes.json"


def probe(config: ExperimentConfig, console: Console | None = None) -> Path:
    """Ask every learned model and return the finished directory, with `probes.json`.

    All models are asked about the same lists, changed alike, in the same folds. Models are kept apart by
    their runs: what was asked of one before is not asked again.

    Raises:
        ArtifactError: a model is not trained with this configuration.
        ConfigError: the experiment has no learned model, or labels without a file of them.
        DataError: too few lists are left, or the labels are not of these lists.
    """
    names = _names(config)
    runs = [tested_run(config, name, last_fold(config)) for name in names]
    settings = config.probe.model_dump(mode="json", exclude={"models"})
    labels = label_file(config)
    about = {
        "probe": settings,
        "labels": None if labels is None else file_hash(labels),
        "seed": config.seed,
        "reads": min(run.model.max_length for run in runs),
        "version": STAGE_VERSION,
    }
    key = stable_hash({"runs": [run.key for run in runs], **about})
    directory = config.workspace / "reports" / f"probes-{key[:8]}"
    if is_current(directory, key):
        return directory
    with stage_directory(directory, key) as (work, manifest):
        suite, without = suite_of(config, runs, labels)
        rows = []
        with transient_bar(console) as bar:
            for run in bar.track(runs, description="probe"):
                kept = _kept(config, run, stable_hash({"run": run.key, **about}))
                rows += [{"model": run.name, **row} for row in _asked(suite, run, kept)]
        from recsys.evaluation.probes.suite import facts

        result = {
            "experiment": config.name,
            "settings": settings,
            **facts(suite.lists, suite.labels),
            "labels_without_classes": without,
            "code": code_tags(),
            "rows": rows,
        }
        (work / RESULT).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        manifest.update(models=names, runs=[run.directory.name for run in runs])
    return directory


def _names(config: ExperimentConfig) -> list[str]:
    """Return the models to ask, in the configuration's order."""
    learned = [name for name in config.models if is_learned(config, name)]
    wanted = learned if config.probe.models is None else config.probe.models
    if not learned or not wanted:
        raise ConfigError(f"{config.name} has no learned model, so there are no vectors to probe")
    unknown = [name for name in wanted if name not in learned]
    if unknown:
        raise ConfigError(
            f"probe.models: {', '.join(unknown)} is no learned model; there are {', '.join(learned)}"
        )
    return [name for name in learned if name in wanted]


def label_file(config: ExperimentConfig) -> Path | None:
    """Return the file of the lists' labels; None if no labels are asked for."""
    from recsys.data.conversions.tables import LISTS
    from recsys.data.presets import apply_preset

    if not config.probe.labels:
        return None
    path = config.probe.label_file
    if path is None and config.data.preset is not None:
        path = Path(apply_preset(config.data).events[0]).parent / LISTS
    if path is None or not path.is_file():
        raise ConfigError(
            f"probe.labels are {', '.join(config.probe.labels)}, but there is no file of them"
            f"{'' if path is None else f' ({path} is missing)'}; set probe.label_file"
        )
    return path


def suite_of(
    config: ExperimentConfig, runs: list[Run], labels: Path | None
) -> tuple[Suite, list[str]]:
    """Return the questions, and the labels of which too few lists are left."""
    import polars as pl

    from recsys.evaluation.probes.lists import choose_lists, read_labels
    from recsys.evaluation.probes.suite import Suite, labels_of_lists

    run, settings = runs[0], config.probe
    longest = min(one.model.max_length for one in runs)
    lists = choose_lists(run.store, run.split.train_end, settings, longest, config.seed)
    table = pl.DataFrame({"": range(len(lists))}).drop("")
    if labels is not None:
        names = pl.read_parquet(config.workspace / "prepared" / "users.parquet")["user_id"]
        if config.data.list_minutes is not None:
            names = names.str.replace(r" \S+$", "")  # a part of a list is called by it and its time
        table = read_labels(str(labels), settings.labels, names.gather(lists.users))
    values = _item_values(config)
    made, without = labels_of_lists(lists, table, values, settings)
    return Suite(lists, made, settings, config.seed), without


def _item_values(config: ExperimentConfig) -> pl.Series | None:
    """Return the attribute that labels items, null for PAD; None if none is asked for."""
    import polars as pl

    wanted = config.probe.item_label
    if wanted is None:
        return None
    items = pl.read_parquet(config.workspace / "prepared" / "items.parquet").sort("item")
    if wanted not in items.columns:
        raise DataError(
            f"probe.item_label: items have no attribute {wanted!r}, only {', '.join(items.columns)}"
        )
    values = items[wanted]
    return pl.concat([pl.Series(wanted, [None], dtype=values.dtype), values])


def _kept(config: ExperimentConfig, run: Run, key: str) -> Path:
    return config.workspace / "reports" / "probed" / f"{run.directory.name}-{key[:8]}.json"


def _asked(suite: Suite, run: Run, kept: Path) -> list[dict[str, Any]]:
    """Return a model's rows, from the file that keeps them if it was asked before."""
    if kept.is_file():
        rows: list[dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8"))
        return rows
    rows = list(suite.ask(embedder(run)))
    kept.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(kept) as aside:
        aside.write_text(json.dumps(rows), encoding="utf-8")
    return rows


def embedder(run: Run) -> Callable[[list[Int32]], Floats]:
    """Return what makes vectors of lists of item indices with a run's model."""
    import numpy as np

    from recsys.evaluation.probes.lists import as_store
    from recsys.models import EncoderModel
    from recsys.playlist_index import list_embeddings

    model = run.model
    assert isinstance(model, EncoderModel)

    def embed(lists: list[Int32]) -> Floats:
        store = as_store(lists, model.n_items)
        return list_embeddings(model, store, np.arange(len(lists), dtype=np.int64))

    return embed


def probe_table(result: dict[str, Any]) -> Table:
    """Return the rows as a table: a question a row, a model a column, with intervals and base rates."""
    from rich.table import Table

    rows: list[dict[str, Any]] = result["rows"]
    models = list(dict.fromkeys(row["model"] for row in rows))
    table = Table("question", "of", "base", *models, "lists", box=None, pad_edge=False)
    questions = dict.fromkeys((row["task"], row["detail"]) for row in rows)
    for task, detail in questions:
        own = {r["model"]: r for r in rows if (r["task"], r["detail"]) == (task, detail)}
        first = next(iter(own.values()))
        base = f"{first['base']:.3f}"
        if "base_low" in first:
            base += f" ({first['base_low']:.3f} {first['base_high']:.3f})"
        cells = [_figure(own.get(model)) for model in models]
        table.add_row(f"{task} {detail}", str(first["classes"]), base, *cells, str(first["lists"]))
    return table


def _figure(row: dict[str, Any] | None) -> str:
    return "-" if row is None else f"{row['value']:.3f} ({row['low']:.3f} {row['high']:.3f})"
