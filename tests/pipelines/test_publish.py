from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from made_experiment import run_stages_here

from pipelines import publish as stage
from pipelines.publish import best_model, publish
from recsys.bundle import load_bundle
from recsys.config import ExperimentConfig, load_config
from recsys.errors import ArtifactError
from recsys.manifest import MANIFEST, read_manifest, write_manifest
from recsys.published import PUBLISHED, find_bundle, read_record


def row(model: str, value: float, **changes: Any) -> dict[str, Any]:
    base = {
        "dataset": "tiny",
        "split": "validation",
        "model": model,
        "metric": "ndcg",
        "k": 10,
        "slice": "all",
        "value": value,
        "low": value - 0.1,
        "high": value + 0.1,
        "users": 40,
    }
    return base | changes


@pytest.fixture
def report(fitted_experiment: ExperimentConfig) -> Path:
    """A finished report in which Markov is the best model on validation."""
    directory = fitted_experiment.workspace / "reports" / "r1"
    directory.mkdir(parents=True)
    rows = [
        row("pop", 0.1),
        row("markov", 0.4),
        row("sasrec", 0.2),
        row("sasrec", 0.9, split="test"),
        row("pop", 0.9, k=5),
        row("pop", 0.9, slice="tail"),
        row("pop", 0.9, metric="hr"),
    ]
    (directory / "metrics.json").write_text(json.dumps(rows))
    write_manifest(directory, {"key": "report"})
    return directory


def test_the_best_on_validation_ndcg_is_published(
    fitted_experiment: ExperimentConfig, report: Path
) -> None:
    path = publish(fitted_experiment, report)
    assert path.parent == fitted_experiment.workspace / "bundles"
    assert path.name.startswith("tiny-markov@")
    bundle = load_bundle(path)
    assert bundle.index is None
    assert len(bundle.item_ids) == 25
    assert bundle.user_ids is not None and len(bundle.user_ids) == 40
    info = bundle.manifest["info"]
    assert (info["experiment"], info["model"], info["data_hash"]) == ("tiny", "markov", "prepared")
    assert [m["value"] for m in info["metrics"]] == [0.4]
    assert find_bundle(path.parent) == path


@pytest.mark.parametrize(
    ("data", "expected"),
    [({}, None), ({"basket_minutes": 30}, 30), ({"columns": {"basket_id": "cart"}}, None)],
)
def test_a_bundle_knows_how_times_make_baskets(
    fitted_experiment: ExperimentConfig, report: Path, data: dict[str, Any], expected: float | None
) -> None:
    prepared = fitted_experiment.workspace / "prepared"
    manifest = read_manifest(prepared)
    if "columns" in data:
        manifest["config"]["data"]["basket_minutes"] = 30  # not used: the column goes before it
    manifest["config"]["data"] |= data
    write_manifest(prepared, manifest)
    assert load_bundle(publish(fitted_experiment, report)).basket_minutes == expected


def test_a_bundle_counts_training_events_only(
    fitted_experiment: ExperimentConfig, report: Path, tiny_store: Any, tiny_split: Any
) -> None:
    bundle = load_bundle(publish(fitted_experiment, report))
    assert bundle.popularity.sum() == (tiny_split.train_end - tiny_store.offsets[:-1]).sum()
    # ... while the histories that travel with it are as new as they can be
    assert bundle.recent is not None and bundle.recent.n_events == tiny_store.n_events


def test_a_bundle_knows_all_that_was_seen_and_the_rule_it_was_evaluated_by(
    fitted_experiment: ExperimentConfig,
    report: Path,
    write_config: Callable[..., Path],
    tiny_store: Any,
) -> None:
    changes = {"publish": {"recent_events": 2}, "evaluation": {"exclude": 5}}
    config = load_config(write_config(tracking={"enabled": False}, **changes))
    bundle = load_bundle(publish(config, report))
    assert bundle.recent is not None and np.diff(bundle.recent.offsets).max() == 2
    assert bundle.seen is not None
    assert bundle.seen.items.tolist() == tiny_store.items.tolist()
    assert bundle.exclude == 5


def test_a_second_call_has_nothing_to_do(
    fitted_experiment: ExperimentConfig, report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = publish(fitted_experiment, report)
    monkeypatch.setattr(stage, "_write", lambda *arguments: pytest.fail("written again"))
    assert publish(fitted_experiment, report) == first


def test_playlists_travel_where_they_are_wanted(
    fitted_experiment: ExperimentConfig, report: Path, write_config: Callable[..., Path]
) -> None:
    from pipelines.index import index

    wanted = {"model": "sasrec", "playlists": {"enabled": True, "min_songs": 3}}
    config = load_config(write_config(publish=wanted, tracking={"enabled": False}))
    with pytest.MonkeyPatch.context() as patch:
        run_stages_here(patch)
        index(config, "sasrec")
    bundle = load_bundle(publish(config, report))
    assert bundle.playlists is not None and bundle.user_ids is not None
    assert len(bundle.playlists) == len(bundle.user_ids) == 40
    counted = load_config(write_config(publish={**wanted, "model": "pop"}))
    with pytest.raises(ArtifactError, match=r"publish\.model to a learned one"):
        publish(counted, report)


def test_another_report_is_published_anew(
    fitted_experiment: ExperimentConfig, report: Path
) -> None:
    publish(fitted_experiment, report)
    before = read_record(report.parents[1] / "bundles")["key"]
    (report / "metrics.json").write_text(
        json.dumps([row("pop", 0.5), row("markov", 0.4), row("sasrec", 0.3)])
    )
    write_manifest(report, {"key": "another"})
    path = publish(fitted_experiment, report)
    assert path.name.startswith("tiny-pop@")
    assert read_record(path.parent)["key"] != before
    assert find_bundle(path.parent) == path  # the newest, though the other is still there


def test_a_named_model_is_published(
    fitted_experiment: ExperimentConfig, report: Path, write_config: Callable[..., Path]
) -> None:
    config = load_config(write_config(publish={"model": "pop"}, tracking={"enabled": False}))
    assert publish(config, report).name.startswith("tiny-pop@")


def test_a_learned_model_without_its_index(
    fitted_experiment: ExperimentConfig, report: Path, write_config: Callable[..., Path]
) -> None:
    config = load_config(write_config(publish={"model": "sasrec"}))
    with pytest.raises(ArtifactError, match="run `recsys index` first"):
        publish(config, report)
    assert not list((config.workspace / "bundles").glob("*")), "nothing half-made is left"


@pytest.mark.parametrize("kept", [0, 3, 10])
def test_users_that_are_served_by_fewer_events_are_said(
    fitted_experiment: ExperimentConfig, report: Path, caplog: pytest.LogCaptureFixture, kept: int
) -> None:
    """Markov reads 10 events here."""
    section = fitted_experiment.publish.model_copy(
        update={"model": "markov", "recent_events": kept}
    )
    publish(fitted_experiment.model_copy(update={"publish": section}), report)
    said = [r.getMessage() for r in caplog.records if "are served by fewer" in r.getMessage()]
    assert len(said) == (kept == 3)
    assert not said or "recent_events is 3, but markov reads 10 events" in said[0]


def test_ties_go_to_the_model_named_first(fitted_experiment: ExperimentConfig) -> None:
    rows = [row("sasrec", 0.3), row("markov", 0.3), row("pop", 0.2)]
    assert best_model(fitted_experiment, rows) == "markov"


def test_a_report_without_validation_figures(fitted_experiment: ExperimentConfig) -> None:
    rows = [row("sasrec", 0.3), row("markov", 0.3, split="test"), row("pop", 0.2)]
    with pytest.raises(ArtifactError, match="no validation ndcg@10 of markov"):
        best_model(fitted_experiment, rows)
    rows = [row("markov", 0.3, split="test")]
    with pytest.raises(ArtifactError, match=r"split\.validation_from earlier.*publish\.model"):
        best_model(fitted_experiment, rows)


def test_the_registry_is_tried_again_after_a_failure(
    fitted_experiment: ExperimentConfig,
    report: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_config: Callable[..., Path],
) -> None:
    answers = iter([None, "7"])
    monkeypatch.setattr(stage, "_register", lambda run, path: next(answers))
    config = load_config(write_config())
    path = publish(config, report)
    assert read_record(path.parent)["registered"] is None
    assert publish(config, report) == path
    assert read_record(path.parent)["registered"] == "7"
    assert publish(config, report) == path  # a third answer would be an error


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
)
def test_the_bundle_is_registered_with_its_alias(
    fitted_experiment: ExperimentConfig, report: Path, write_config: Callable[..., Path]
) -> None:
    pytest.importorskip("mlflow")
    config = load_config(write_config())
    path = publish(config, report)
    assert read_record(path.parent)["registered"] == "1"
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{config.output.absolute()}/mlflow.db"
    version = MlflowClient(uri, uri).get_model_version_by_alias("tiny", "candidate")
    assert version.source == path.as_uri()
    assert version.tags["bundle"] == str(path)


def some_bundle(directory: Path, name: str, age: int) -> Path:
    path = directory / name
    path.mkdir(parents=True)
    write_manifest(path, {"key": name})
    os.utime(path / MANIFEST, (age, age))
    return path


def test_a_bundle_is_found_from_itself_its_directory_or_the_workspace(tmp_path: Path) -> None:
    only = some_bundle(tmp_path / "bundles", "a@1", age=100)
    assert find_bundle(only) == only
    assert find_bundle(tmp_path / "bundles") == only
    assert find_bundle(tmp_path) == only


def test_of_many_bundles_the_published_one_or_the_newest(tmp_path: Path) -> None:
    old = some_bundle(tmp_path, "a@1", age=100)
    new = some_bundle(tmp_path, "b@2", age=200)
    assert find_bundle(tmp_path) == new
    (tmp_path / PUBLISHED).write_text(json.dumps({"bundle": old.name}))
    assert find_bundle(tmp_path) == old
    (tmp_path / PUBLISHED).write_text(json.dumps({"bundle": "deleted@3"}))
    assert find_bundle(tmp_path) == new


def test_a_directory_without_bundles(tmp_path: Path) -> None:
    (tmp_path / ".a.partial-17").mkdir()
    with pytest.raises(ArtifactError, match="is no bundle and holds none"):
        find_bundle(tmp_path)


def test_a_damaged_record(tmp_path: Path) -> None:
    (tmp_path / PUBLISHED).write_text("{")
    with pytest.raises(ArtifactError, match=r"published\.json is not valid JSON"):
        read_record(tmp_path)


def test_the_manifest_of_a_bundle_is_readable_as_one(
    fitted_experiment: ExperimentConfig, report: Path
) -> None:
    path = publish(fitted_experiment, report)
    assert read_manifest(path)["name"] == "tiny-markov"
    items = pl.read_parquet(path / "items.parquet")
    assert items.columns == ["item_id", "title", "category", "item"]
