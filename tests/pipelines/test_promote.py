from __future__ import annotations

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundle import make_bundle

from pipelines import publish as publish_stage
from pipelines.cli import main
from pipelines.evaluate import evaluate
from pipelines.index import index
from pipelines.promote import CHAMPION, GUARDS, SINCE, Guard, Promotion, lower_limit, promote
from pipelines.scoring import MLMODEL, BundleModel
from pipelines.tracking import tracker_settings
from recsys.bundle import load_bundle
from recsys.config import (
    ExperimentConfig,
    PublishConfig,
    TrackingConfig,
    UniRecConfig,
    dump_config,
)
from recsys.errors import ArtifactError, DataError
from recsys.evaluation.targets_file import read_targets
from recsys.recommender import Query, Recommender

pytestmark = [
    pytest.mark.skipif(find_spec("mlflow") is None, reason="needs the extra 'track'"),
    # MLflow and what it is built on warn about themselves; that is not ours to mend.
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning",
        "ignore::UserWarning",
    ),
]  # fmt: skip


@pytest.fixture
def experiment(fitted_experiment: ExperimentConfig, without_ray: list[Any]) -> ExperimentConfig:
    """The tiny experiment, evaluated, with a tracking database of its own."""
    return fitted_experiment.model_copy(update={"tracking": TrackingConfig()})


def published(config: ExperimentConfig, model: str, report: Path) -> Path:
    chosen = config.model_copy(update={"publish": PublishConfig(model=model)})
    return publish_stage.publish(chosen, report)


def client_of(config: ExperimentConfig) -> Any:
    from mlflow.tracking import MlflowClient

    uri = tracker_settings(config, "").uri
    return MlflowClient(uri, uri)


def test_a_better_candidate_becomes_the_champion_and_a_worse_one_does_not(
    experiment: ExperimentConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = evaluate(experiment.model_copy(update={"tracking": TrackingConfig(enabled=False)}))
    with pytest.raises(ArtifactError, match="no version of tiny has the alias candidate"):
        promote(experiment)
    published(experiment, "pop", report)
    assert promote(experiment) == Promotion("tiny", "1", None, (), promoted=True)
    assert promote(experiment).promoted is False  # it is the champion already

    bundle = published(experiment, "markov", report)
    better = promote(experiment)
    assert (better.candidate, better.champion, better.promoted) == ("2", "1", True)
    assert [guard.metric for guard in better.guards] == experiment.publish.guards
    rows = json.loads((report / "metrics.json").read_text())
    values = {
        (row["model"], f"{row['metric']}@{row['k']}"): row["value"]
        for row in rows
        if (row["split"], row["slice"]) == ("test", "all")
    }
    for guard in better.guards:
        assert guard.candidate == pytest.approx(values["markov", guard.metric])
        assert guard.champion == pytest.approx(values["pop", guard.metric])
        assert guard.low > 0
    version = client_of(experiment).get_model_version_by_alias("tiny", CHAMPION)
    assert str(version.version) == "2"
    assert version.tags[SINCE].startswith("20")
    assert json.loads(version.tags[GUARDS])[0]["metric"] == "ndcg@10"
    served_by_mlflow(experiment, bundle)

    published(experiment, "pop", report)
    worse = promote(experiment)
    assert (worse.promoted, worse.champion) == (False, "2")
    assert not all(guard.passed for guard in worse.guards)
    assert str(client_of(experiment).get_model_version_by_alias("tiny", CHAMPION).version) == "2"
    path = tmp_path / "again.yaml"
    path.write_text(dump_config(experiment), encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        main(["promote", str(path)])
    assert stopped.value.code == 1
    assert "refused: version 2 stays the champion" in capsys.readouterr().out


def served_by_mlflow(config: ExperimentConfig, bundle: Path) -> None:
    """Check that MLflow answers from the registered bundle as our recommender does."""
    import mlflow
    import pandas as pd

    from recsys.bundle import load_bundle
    from recsys.recommender import Query, Recommender

    uri = tracker_settings(config, "").uri
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        model = mlflow.pyfunc.load_model(f"models:/tiny@{CHAMPION}")
    finally:  # they belong to the process
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)
    assert model.metadata.signature.inputs.input_names() == [
        "history",
        "times",
        "user_id",
        "exclude",
    ]
    asked = pd.DataFrame({"history": [["i03", "i04"], [], []], "user_id": [None, "u02", None]})
    answers = model.predict(asked, params={"k": 4})
    own = Recommender(load_bundle(bundle))
    expected = own.recommend(
        [Query(history=["i03", "i04"], k=4), Query(user_id="u02", k=4), Query(history=[], k=4)]
    )
    assert answers["items"].tolist() == [answer.items for answer in expected]
    assert answers["scores"].tolist() == [answer.scores for answer in expected]
    assert answers["fallback"].tolist() == [None, None, "empty_history"]


def test_a_bundle_that_was_measured_nowhere_cannot_be_promoted(
    experiment: ExperimentConfig,
) -> None:
    import shutil

    report = evaluate(experiment.model_copy(update={"tracking": TrackingConfig(enabled=False)}))
    published(experiment, "pop", report)
    promote(experiment)
    published(experiment, "markov", report)
    shutil.rmtree(report)
    with pytest.raises(ArtifactError, match=r"no report below .* measured that on the test split"):
        promote(experiment)


def test_a_candidate_with_another_rule_is_judged_by_its_own_figures_or_refused(
    experiment: ExperimentConfig,
) -> None:
    """The same weights that may repeat the history make other lists than those that may not."""
    quiet = experiment.model_copy(update={"tracking": TrackingConfig(enabled=False)})
    changes = {
        "evaluation": experiment.evaluation.model_copy(update={"exclude": "none"}),
        "models": {name: experiment.models[name] for name in ("pop", "markov")},
    }
    report, other = evaluate(quiet), evaluate(quiet.model_copy(update=changes))
    first = published(experiment, "markov", report)
    promote(experiment)
    second = published(experiment.model_copy(update=changes), "markov", other)
    assert first != second and first.is_dir()
    with pytest.raises(ArtifactError, match="by different rules of exclusion"):
        promote(experiment)


def test_the_record_of_a_run_has_intervals_page_and_plots(
    experiment: ExperimentConfig,
) -> None:
    from pipelines.run_keys import run_directory
    from pipelines.tracking import Tracker
    from recsys.manifest import write_manifest

    for name in experiment.models:
        tracker = Tracker(tracker_settings(experiment, name))
        run = tracker.start_run({}, {})
        tracker.finish()
        directory = run_directory(experiment, name)
        manifest = json.loads((directory / "manifest.json").read_text())
        write_manifest(directory, {**manifest, "mlflow_run": run})
    report = evaluate(experiment)
    client = client_of(experiment)
    rows = json.loads((report / "metrics.json").read_text())
    [row] = [
        row
        for row in rows
        if (row["model"], row["split"], row["metric"], row["k"], row["slice"])
        == ("markov", "test", "ndcg", 10, "all")
    ]
    run = json.loads((run_directory(experiment, "markov") / "manifest.json").read_text())[
        "mlflow_run"
    ]
    metrics = client.get_run(run).data.metrics
    for end, column in (("", "value"), ("_low", "low"), ("_high", "high")):
        assert metrics[f"test/ndcg_at_10{end}"] == row[column]
    kept = {file.path for file in client.list_artifacts(run)}
    assert {"report.html", "plots"} <= kept
    plots = client.list_artifacts(run, "plots")
    assert len(plots) >= 10 and all(file.path.endswith(".svg") for file in plots)


def guard(low: float, allowed: float) -> Guard:
    return Guard("ndcg@10", 0.5, 0.5, 0.0, low, allowed, 10)


def test_a_guard_passes_at_its_limit_and_not_below() -> None:
    assert guard(-0.01, -0.01).passed
    assert not guard(-0.0101, -0.01).passed


def test_the_lower_limit_is_that_of_the_stated_level(experiment: ExperimentConfig) -> None:
    rng = np.random.default_rng(0)
    few, many = rng.normal(0.1, 1.0, 2000), rng.normal(0.1, 1.0, 40_000)
    for difference in (few, many):
        low = lower_limit(difference, experiment.publish, experiment)
        expected = difference.mean() - 1.645 * difference.std() / len(difference) ** 0.5
        assert low == pytest.approx(expected, abs=0.01 if len(difference) < 20_000 else 1e-4)
    assert lower_limit(np.zeros(50), experiment.publish, experiment) == 0.0


def test_a_bundle_without_mlflow_s_file_is_loaded_by_the_same_class(
    experiment: ExperimentConfig,
) -> None:
    quiet = experiment.model_copy(update={"tracking": TrackingConfig(enabled=False)})
    index(quiet, "sasrec")
    bundle = published(quiet, "sasrec", evaluate(quiet))
    assert not (bundle / MLMODEL).exists()
    import pandas as pd

    answers = BundleModel(bundle).predict(pd.DataFrame({"history": [["i03"]]}), {"k": 3})
    assert len(answers["items"][0]) == 3


def test_a_model_that_reads_times_has_them_from_the_table(tmp_path: Path) -> None:
    import pandas as pd

    bundle = make_bundle(tmp_path, UniRecConfig(width=8, blocks=1, max_length=6))
    history, times = ["i05", "i09"], [1_600_000_000, 1_600_500_000]
    answering = BundleModel(bundle)
    table = pd.DataFrame({"history": [history, []], "times": [times, []], "user_id": [None, "u07"]})
    answers = answering.predict(table, {"k": 4})
    asked = [Query(history, times, k=4), Query(user_id="u07", k=4)]
    expected = Recommender(load_bundle(bundle)).recommend(asked)
    assert answers["items"].tolist() == [answer.items for answer in expected]
    assert answers["scores"].tolist() == [answer.scores for answer in expected]
    with pytest.raises(DataError, match="has no times"):
        answering.predict(table[["history", "user_id"]])
    with pytest.raises(DataError, match="times and baskets belong to a history"):
        answering.predict(pd.DataFrame({"history": [[]], "times": [times], "user_id": ["u07"]}))


def test_models_that_rank_alike_are_not_worse(experiment: ExperimentConfig) -> None:
    quiet = experiment.model_copy(update={"tracking": TrackingConfig(enabled=False)})
    report = evaluate(quiet)
    ranked = read_targets(report / "targets" / "pop.parquet")
    same = replace(ranked)
    assert lower_limit(1 / same.ranks - 1 / ranked.ranks, quiet.publish, quiet) == 0.0
