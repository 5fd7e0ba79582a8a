from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipelines.cli import main
from pipelines.comparison import find_runs, metric_key, print_comparison
from pipelines.evaluate import evaluate
from recsys.config import ExperimentConfig
from recsys.errors import ArtifactError, ConfigError
from recsys.manifest import read_manifest


@pytest.fixture
def report(fitted_experiment: ExperimentConfig, without_ray: list[Any]) -> Path:
    return evaluate(fitted_experiment)


def test_the_terminal_shows_the_figures_of_the_report(
    report: Path, fitted_experiment: ExperimentConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = read_manifest(report)["runs"]
    output = str(fitted_experiment.output)
    main_quietly(["compare", runs["main/markov"], f"{report.name}/pop", "--output", output])
    printed = capsys.readouterr().out
    rows = json.loads((report / "metrics.json").read_text())
    for model in ("markov", "pop"):
        [row] = [
            row
            for row in rows
            if (row["model"], row["split"], row["metric"], row["k"], row["slice"])
            == (model, "test", "ndcg", 10, "all")
        ]
        assert f"{row['value']:.4f} [{row['low']:.4f}, {row['high']:.4f}]" in printed
    [pair] = [
        row
        for row in json.loads((report / "comparisons.json").read_text())
        if (row["model_a"], row["split"], row["metric"], row["k"]) == ("markov", "test", "ndcg", 10)
    ]
    figures = f"{pair['difference']:+.4f} [{pair['low']:+.4f}, {pair['high']:+.4f}]"
    assert f"markov - pop  {figures}" in printed


def main_quietly(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0


def test_what_no_user_has_by_itself_or_was_not_measured_is_refused_with_what_there_is(
    report: Path, fitted_experiment: ExperimentConfig
) -> None:
    runs = [f"{report.name}/pop", f"{report.name}/markov"]
    console = Console(file=io.StringIO())
    for metric, words in (
        ("novelty@10", "novelty@10 is not measured for every user"),
        ("ndcg@7", "ndcg@7 was not measured; there is ndcg@"),
    ):
        with pytest.raises(ConfigError, match=words):
            print_comparison(fitted_experiment.output, runs, "test", metric, console)


def test_runs_by_different_rules_of_exclusion_are_not_paired(
    report: Path, fitted_experiment: ExperimentConfig
) -> None:
    changes = {
        "evaluation": fitted_experiment.evaluation.model_copy(update={"exclude": "none"}),
        "models": {"pop": fitted_experiment.models["pop"]},  # learned ones would be trained anew
    }
    other = evaluate(fitted_experiment.model_copy(update=changes))
    runs = [f"{report.name}/pop", f"{other.name}/pop"]
    console = Console(file=io.StringIO())
    with pytest.raises(ArtifactError, match="by different rules of exclusion"):
        print_comparison(fitted_experiment.output, runs, "test", "ndcg@10", console)


def test_runs_are_found_by_directory_or_by_report(
    report: Path, fitted_experiment: ExperimentConfig
) -> None:
    output = fitted_experiment.output
    runs = read_manifest(report)["runs"]
    names = [f"somewhere/runs/{runs['main/sasrec']}", f"{report.name}/pop"]
    found = find_runs(output, names, "validation")
    assert [run.model for run in found] == ["sasrec", "pop"]
    with pytest.raises(ArtifactError, match=f"measured are: {report.name}/pop"):
        find_runs(output, ["nobody"], "test")


def test_wrong_requests_say_what_is_allowed(
    report: Path, fitted_experiment: ExperimentConfig
) -> None:
    output, console = fitted_experiment.output, Console()
    pair = [f"{report.name}/pop", f"{report.name}/markov"]
    with pytest.raises(ConfigError, match="two to 6 different runs, not 1"):
        print_comparison(output, [pair[0]] * 2, "test", "ndcg@10", console)
    with pytest.raises(ConfigError, match="was not measured"):
        print_comparison(output, pair, "test", "ndcg@7", console)
    with pytest.raises(ConfigError, match="write it like ndcg@10"):
        metric_key("ndcg@ten")
    assert metric_key("MRR") == ("mrr", None)
