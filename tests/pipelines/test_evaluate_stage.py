from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import evaluate as stage
from pipelines.evaluate import Exam, evaluate, exams, finished_report
from pipelines.runs import dataset_name, open_run
from recsys.config import ExperimentConfig, TrackingConfig, load_config
from recsys.data.sequences import SequenceStore, Split, Targets, TrainingData
from recsys.errors import ArtifactError, DataError
from recsys.evaluation.targets_file import read_targets
from recsys.manifest import read_manifest


def value(rows: list[dict[str, Any]], model: str, metric: str, k: int, split: str) -> float:
    [found] = [
        row["value"]
        for row in rows
        if (row["model"], row["metric"], row["k"], row["split"], row["slice"])
        == (model, metric, k, split, "all")
    ]
    assert isinstance(found, float)
    return found


def test_every_model_is_measured_and_compared(
    fitted_experiment: ExperimentConfig, without_ray: list[Any]
) -> None:
    report = evaluate(fitted_experiment)
    assert report.parent == fitted_experiment.workspace / "reports"
    rows = json.loads((report / "metrics.json").read_text())
    assert {row["model"] for row in rows} == {"pop", "markov", "sasrec"}
    assert {row["dataset"] for row in rows} == {"tiny"}
    markov = value(rows, "markov", "ndcg", 10, "test")
    assert markov > value(rows, "pop", "ndcg", 10, "test")  # the ring can be learned
    pairs = json.loads((report / "comparisons.json").read_text())
    shown = {(row["dataset"], row["split"], row["model_a"], row["model_b"]) for row in pairs}
    assert shown == {
        ("tiny", split, model, "pop")
        for split in ("test", "validation")
        for model in ("markov", "sasrec")
    }
    assert (report / "report.html").read_text().lstrip().lower().startswith("<!doctype html")


def test_figures_follow_from_the_rows_that_are_kept(
    fitted_experiment: ExperimentConfig, without_ray: list[Any]
) -> None:
    report = evaluate(fitted_experiment)
    rows = json.loads((report / "metrics.json").read_text())
    for model in fitted_experiment.models:
        ranked = read_targets(report / "targets" / f"{model}.parquet")
        hits = float(np.mean(ranked.ranks <= 10))  # leave-one-out: one target a user
        assert value(rows, model, "hr", 10, "test") == pytest.approx(hits)


def test_validation_is_added_where_the_best_model_must_be_chosen(
    write_config: Callable[..., Path],
) -> None:
    def asked(**sections: Any) -> list[tuple[str, str]]:
        config = load_config(write_config(**sections))
        return [(exam.fold, exam.split) for exam in exams(config)]

    assert asked() == [("main", "test"), ("main", "validation")]
    assert asked(publish={"model": "pop"}) == [("main", "test")]
    both = {"splits": ["validation", "test"]}
    assert asked(evaluation=both) == [("main", "validation"), ("main", "test")]
    rolling = {"kind": "rolling", "folds": 2}
    assert asked(split=rolling) == [("fold0", "test"), ("fold1", "test"), ("fold1", "validation")]


def test_folds_are_kept_apart(write_config: Callable[..., Path], tmp_path: Path) -> None:
    config = load_config(write_config(split={"kind": "rolling", "folds": 2}))
    assert dataset_name(config, "fold1") == "tiny/fold1"
    assert Exam(config, "fold1", "test").directory(tmp_path) == tmp_path / "fold1"
    plain = load_config(write_config())
    assert dataset_name(plain, "main") == "tiny"
    assert Exam(plain, "main", "test").directory(tmp_path) == tmp_path


def test_a_second_call_has_nothing_to_do(
    fitted_experiment: ExperimentConfig, without_ray: list[Any]
) -> None:
    first = evaluate(fitted_experiment)
    assert len(without_ray) == 6  # three models, two splits
    assert evaluate(fitted_experiment) == first == finished_report(fitted_experiment)
    assert len(without_ray) == 6
    assert read_manifest(first)["seed"] == 1


@pytest.mark.parametrize(
    ("sections", "remedy"),
    [({}, "publish.model"), ({"evaluation": {"splits": ["validation"]}}, "leave validation out")],
)
def test_a_split_without_validation_targets_is_refused_before_the_work(
    fitted_experiment: ExperimentConfig,
    without_ray: list[Any],
    write_config: Callable[..., Path],
    sections: dict[str, Any],
    remedy: str,
) -> None:
    folder = fitted_experiment.workspace / "prepared" / "splits" / "main"
    split = Split.load(folder)
    none = Targets(*(np.asarray(part[:0]) for part in astuple(split.validation)))
    replace(split, validation=none).save(folder)
    settings = {"models": {"pop": {"kind": "pop"}}, "tracking": {"enabled": False}}
    config = load_config(write_config(**settings, **sections))
    with pytest.raises(DataError, match=rf"no validation targets.*validation_from.*{remedy}"):
        evaluate(config)
    assert without_ray == []
    named = load_config(write_config(**settings, publish={"model": "pop"}))
    assert evaluate(named).is_dir()


def test_another_question_is_another_report(
    fitted_experiment: ExperimentConfig,
    without_ray: list[Any],
    write_config: Callable[..., Path],
) -> None:
    first = evaluate(fitted_experiment)
    sections = {"bootstrap": 100, "permutations": 200, "ks": [3], "repeats": "miss"}
    config = load_config(write_config(evaluation=sections, tracking={"enabled": False}))
    with pytest.raises(ArtifactError):  # SASRec is trained for the exclusion it is used with
        evaluate(config)
    sections["repeats"] = "drop"
    config = load_config(write_config(evaluation=sections, tracking={"enabled": False}))
    with pytest.raises(ArtifactError, match="run `recsys evaluate` first"):
        finished_report(config)
    assert evaluate(config) != first
    assert first.is_dir(), "the older report stays"


def test_models_that_are_not_trained(
    write_config: Callable[..., Path], fitted_experiment: ExperimentConfig
) -> None:
    config = load_config(write_config(models={"pop": {"kind": "pop"}, "new": {"kind": "own_pop"}}))
    with pytest.raises(ArtifactError, match="new is not trained"):
        evaluate(config)


def test_test_events_do_not_move_what_was_learned(
    fitted_experiment: ExperimentConfig, tiny_store: SequenceStore, tiny_split: Split
) -> None:
    """The ground that models are judged on counts training events only."""
    from pipelines.runs import open_run

    exam = Exam(fitted_experiment, "main", "test")
    run = open_run(fitted_experiment, "pop", "main")
    before = stage._ground(exam, run).item_counts
    items = tiny_store.items.copy()
    items[tiny_split.test.start] = 7
    items[tiny_split.validation.start] = 9
    changed = replace(tiny_store, items=items)
    changed.save(fitted_experiment.workspace / "features" / "sequences")
    again = open_run(fitted_experiment, "pop", "main")
    assert np.array_equal(stage._ground(exam, again).item_counts, before)


class Server:
    """Stands for MLflow: makes the trackers, keeps what they log, may be down."""

    def __init__(self) -> None:
        self.down = False
        self.logged: dict[str, dict[str, float]] = {}
        self.asked: list[str] = []
        self.kept: list[str] = []

    def __call__(self, settings: Any) -> Server:
        self.run_id = settings.run_id
        self.failures = 0
        self.asked.append(settings.run_id)
        return self

    def start_run(self, *arguments: object) -> None:
        self.failures += self.down

    def log_metrics(self, metrics: dict[str, float]) -> None:
        if not self.down:
            self.logged[self.run_id] = metrics

    def log_artifact(self, path: Path) -> None:
        assert path.exists()
        self.kept.append(f"{self.run_id}: {path.name}")

    def finish(self) -> None: ...


@pytest.fixture
def server(fitted_experiment: ExperimentConfig, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A tracking server that knows the runs of all models but pop."""
    found = Server()
    monkeypatch.setattr(stage, "Tracker", found)
    for name in ("markov", "sasrec"):
        give_run_id(fitted_experiment, name)
    return found


def give_run_id(config: ExperimentConfig, name: str) -> None:
    file = open_run(config, name, "main").directory / "manifest.json"
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps({**manifest, "mlflow_run": f"id of {name}"}))


def tracked(config: ExperimentConfig) -> ExperimentConfig:
    return config.model_copy(update={"tracking": TrackingConfig(uri="http://tracking")})


def test_figures_are_added_to_the_models_own_tracking_run(
    fitted_experiment: ExperimentConfig,
    without_ray: list[Any],
    server: Server,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = tracked(fitted_experiment)
    evaluate(config)
    assert set(server.logged) == {"id of markov", "id of sasrec"}
    figures = server.logged["id of markov"].keys()
    assert {"test/ndcg@10", "test/mrr", "validation/ndcg@10"} <= figures
    assert {"test/ndcg@10_low", "test/ndcg@10_high"} <= figures
    assert server.kept[:2] == ["id of markov: report.html", "id of markov: plots"]
    [said] = [record.message for record in caplog.records]
    assert said.startswith("pop was fitted while tracking was off or down")
    evaluate(config)
    assert len(server.asked) == 2, "once is enough"
    assert len(caplog.records) == 1
    give_run_id(fitted_experiment, "pop")  # as when it is fitted again
    evaluate(config)
    assert server.asked[2:] == ["id of pop"]


def test_figures_that_tracking_missed_are_added_by_the_next_call(
    fitted_experiment: ExperimentConfig,
    without_ray: list[Any],
    server: Server,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = tracked(fitted_experiment)
    report = evaluate(fitted_experiment)
    assert server.asked == [], "tracking is off"
    server.down = True
    assert evaluate(config) == report
    assert server.asked == ["id of markov"], "one wait for a server that is down"
    said = caplog.records[-1].message
    assert "The figures of markov, sasrec are in" in said
    assert "at http://tracking; `recsys evaluate` (or run)" in said
    server.down = False
    evaluate(config)
    assert set(server.logged) == {"id of markov", "id of sasrec"}
    assert len(without_ray) == 6, "nothing was ranked again"


def test_a_refitted_model_is_tested_and_the_one_before_it_validated(
    fitted_experiment: ExperimentConfig,
    tiny_store: SequenceStore,
    tiny_split: Split,
    fit_model: Callable[..., None],
    without_ray: list[Any],
) -> None:
    plain = json.loads((evaluate(fitted_experiment) / "metrics.json").read_text())
    config = fitted_experiment.model_copy(update={"refit": True})
    with pytest.raises(ArtifactError, match="recsys train"):
        evaluate(config)
    for name in config.models:
        fit_model(config, name, tiny_store, tiny_split, refit=True)
    report = evaluate(config)
    rows = json.loads((report / "metrics.json").read_text())
    counted = TrainingData(tiny_store, tiny_split.refitted().train_end).item_counts()
    pop = read_targets(report / "targets" / "pop.parquet")
    best = int(np.argmax(counted[1:])) + 1
    assert any(best in row for row in np.asarray(pop.top)[:, :1])
    for model in config.models:
        same = [value(r, model, "ndcg", 10, "validation") for r in (plain, rows)]
        assert same[0] == same[1]
    before, after = (value(r, "markov", "ndcg", 10, "test") for r in (plain, rows))
    assert before != after  # the transitions of the validation events are known now
    runs = read_manifest(report)["runs"]
    assert set(runs) == {f"main/{m}{r}" for m in config.models for r in ("", "/refit")}
