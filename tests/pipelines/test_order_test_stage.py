"""`recsys order-test` on a tiny experiment: result, page, report, tracking, and who can be asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.evaluate import evaluate
from pipelines.order_test import (
    PAGE,
    asked_model,
    order_table,
    order_test,
    read_result,
    shown_lines,
)
from recsys.config import ExperimentConfig, ItemKNNConfig, OrderTestConfig, PopularityConfig
from recsys.errors import ConfigError


def asking(config: ExperimentConfig, **settings: Any) -> ExperimentConfig:
    return config.model_copy(update={"order_test": OrderTestConfig(**settings)})


def test_the_result_holds_every_way_and_the_page_shows_it(
    fitted_experiment: ExperimentConfig,
) -> None:
    config = asking(fitted_experiment, model="markov", shuffles=2, k=5)
    directory = order_test(config)
    result = read_result(directory)
    assert {(row["way"], row["metric"], row["k"]) for row in result["rows"]} == {
        (way, metric, 5) for way in ("whole", "but_newest") for metric in ("ndcg", "hr")
    }
    [whole, _] = [row for row in result["rows"] if row["way"] == "whole"]
    assert whole["users"] == 29, "of 40 users, those whose last event was not there before"
    assert whole["true"] > whole["shuffled"], "the ring is walked in one direction"
    assert set(result["verdicts"]) == {"whole", "but_newest"}
    page = (directory / PAGE).read_text(encoding="utf-8")
    assert "the whole history" in page and page.count("<svg") == 1 and "http" not in page
    assert order_table(result).row_count == 4
    lines = shown_lines(result)
    assert "markov, 2 shuffles" in lines[0]
    assert f"order, the whole history: {result['verdicts']['whole']}" in lines


def test_a_second_call_has_nothing_to_do(
    fitted_experiment: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = asking(fitted_experiment, model="markov", shuffles=1)
    first = order_test(config)

    def never(*arguments: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("pipelines.order_test._measure", never)
    assert order_test(config) == first
    with pytest.raises(AssertionError, match="measured again"):
        order_test(asking(fitted_experiment, model="markov", shuffles=2))


def test_it_is_part_of_the_report_where_asked_for(
    fitted_experiment: ExperimentConfig, without_ray: list[Any]
) -> None:
    plain = evaluate(fitted_experiment)
    assert "Does order matter?" not in (plain / "report.html").read_text(encoding="utf-8")
    config = asking(fitted_experiment, model="markov", shuffles=1)
    report = evaluate(config)
    assert report != plain
    assert "Does order matter?" in (report / "report.html").read_text(encoding="utf-8")
    assert json.loads((report / "order.json").read_text()) == read_result(order_test(config))


def test_figures_are_recorded_with_the_run(
    fitted_experiment: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: dict[str, float] = {}

    class Recorder:
        failures = 0

        def __init__(self, settings: Any) -> None:
            assert settings.run_id == "r1"

        def log_metrics(self, figures: dict[str, float]) -> None:
            logged.update(figures)

        def log_artifact(self, path: Path) -> None:
            assert path.name == PAGE

        def start_run(self, *arguments: object) -> None: ...

        def finish(self) -> None: ...

    config = asking(fitted_experiment, model="markov", shuffles=1)
    tracked = config.model_copy(
        update={"tracking": config.tracking.model_copy(update={"enabled": True})}
    )
    [manifest] = config.workspace.glob("runs/markov-*/manifest.json")
    found = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**found, "mlflow_run": "r1"}))
    monkeypatch.setattr("pipelines.order_test.Tracker", Recorder)
    order_test(tracked)
    assert set(logged) >= {"order/whole/ndcg@10/drop", "order/but_newest/overlap@10"}
    logged.clear()
    order_test(tracked)
    assert not logged, "recorded once"


def test_who_is_asked(fitted_experiment: ExperimentConfig) -> None:
    assert asked_model(fitted_experiment) == "sasrec"
    with pytest.raises(ConfigError, match="pop reads no order"):
        asked_model(asking(fitted_experiment, model="pop"))
    flat = {"pop": PopularityConfig(), "knn": ItemKNNConfig()}
    only_sets = fitted_experiment.model_copy(update={"models": flat})
    with pytest.raises(ConfigError, match="no model of tiny reads the order"):
        asked_model(only_sets)
    decaying = only_sets.model_copy(update={"models": {"knn": ItemKNNConfig(decay=0.9)}})
    assert asked_model(decaying) == "knn"
