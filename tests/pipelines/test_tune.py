"""Searches on the tiny log: what they write, that a kill changes nothing, and that a trial is a training."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import psutil
import pytest
import yaml

from pipelines.fitting import fit_model
from pipelines.progress import EPOCHS_FILE
from pipelines.ray_session import ray_session
from pipelines.search import trial_config
from pipelines.stages import plan, run_tune
from pipelines.tune import Trial, best_of, best_yaml, search_directory, tune_model
from recsys.config import ExperimentConfig, RayConfig, TuneConfig, dump_config, parse_config
from recsys.errors import ConfigError, RecsysError
from recsys.manifest import read_manifest

pytestmark = pytest.mark.ray

SPACE = {"training.lr": {"log_uniform": [0.0003, 0.03]}, "max_length": {"integers": [5, 10]}}
TRIALS = 3


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[None]:
    """A session of two workers for all tests of this file."""
    with ray_session(RayConfig(workers=2, object_store_mb=80)):
        yield


def with_search(
    config: ExperimentConfig, space: object = SPACE, **tune: object
) -> ExperimentConfig:
    section = {"trials": TRIALS, "epochs": 4, "grace": 1, "reduction": 2, **tune}
    raw = config.model_dump(mode="json")
    return parse_config({**raw, "tune": {"space": {"sasrec": space}, **section}})


def results(directory: Path) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Return trials and epochs without what is of the clock."""
    trials = pl.read_parquet(directory / "trials.parquet").drop("seconds")
    same = ["trial", "epoch", "loss", "ndcg@10", "hr@10", "padding_share"]
    epochs = pl.read_parquet(directory / "epochs.parquet").select(same)
    return trials.to_dicts(), epochs.to_dicts()


def kill_after(trials: int, config: ExperimentConfig, folder: Path) -> None:
    """Search in another process and kill it, with its Ray, when so many trials have an epoch."""
    file = folder / "killed.yaml"
    file.write_text(dump_config(config))
    code = (
        "from pathlib import Path; from pipelines.tune import tune_model; "
        "from recsys.config import load_config; "
        f"tune_model(load_config(Path({str(file)!r})), 'sasrec')"
    )
    process = psutil.Process(subprocess.Popen([sys.executable, "-c", code]).pid)
    work = search_directory(config, "sasrec")
    work = work.with_name(f".{work.name}.partial")
    until = time.monotonic() + 180
    while len(list(work.glob(f"trials/*/{EPOCHS_FILE}"))) < trials and time.monotonic() < until:
        time.sleep(0.02)
    for one in [*process.children(recursive=True), process]:
        one.kill()
    process.wait()
    assert work.is_dir(), "it was not killed in the middle"


@pytest.mark.slow
def test_a_killed_search_ends_as_one_that_was_not(
    fitted_experiment: ExperimentConfig, tmp_path: Path
) -> None:
    first = with_search(fitted_experiment)
    other = first.model_copy(update={"output": tmp_path / "killed"})
    shutil.copytree(first.workspace, other.workspace)

    directory = tune_model(first, "sasrec")
    expected = results(directory)
    kill_after(2, other, tmp_path)
    assert results(tune_model(other, "sasrec")) == expected

    trials, epochs = expected
    assert [trial["trial"] for trial in trials] == list(range(TRIALS))
    # The configuration's own settings come first, and the rule ended some trial early.
    assert trials[0]["max_length"] == 10 and trials[0]["training.lr"] == 0.001
    assert len(epochs) == sum(int(str(trial["epochs"])) for trial in trials) < TRIALS * 4
    best = max(trials, key=lambda trial: float(str(trial["ndcg@10"])))
    manifest = read_manifest(directory)
    assert manifest["best"]["trial"] == best["trial"] and manifest["fold"] == "main"
    assert not (directory / "trials").exists() and not (directory / "ray").exists()

    before = (directory / "manifest.json").stat().st_mtime_ns
    (directory / "trials" / "left").mkdir(parents=True)  # by a kill just before they were deleted
    assert tune_model(first, "sasrec") == directory
    assert (directory / "manifest.json").stat().st_mtime_ns == before
    assert not (directory / "trials").exists()

    # A trial is the training that its settings would have, and `best.yaml` holds those settings.
    chosen = {key: best[key] for key in SPACE}
    rows = fit_model(trial_config(first, "sasrec", chosen), "sasrec", "main", tmp_path / "fit")
    mine = [row for row in epochs if row["trial"] == best["trial"]]
    assert [row["ndcg@10"] for row in mine] == [row["ndcg@10"] for row in rows][: len(mine)]
    assert [row["loss"] for row in mine] == pytest.approx(
        [row["loss"] for row in rows][: len(mine)]
    )
    pasted = yaml.safe_load((directory / "best.yaml").read_text())["models"]["sasrec"]
    assert pasted["max_length"] == best["max_length"] and pasted["training"]["epochs"] == 4
    assert pasted["training"]["lr"] == best["training.lr"]


def test_a_setting_that_cannot_be_trained_counts_as_the_worst(
    fitted_experiment: ExperimentConfig,
) -> None:
    """Its message is kept, the search goes on, and every trial is recorded in MLflow."""
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{fitted_experiment.output / 'runs.db'}"
    raw = {**fitted_experiment.model_dump(mode="json"), "tracking": {"uri": uri}}
    space = {"training.lr": {"choice": [0.001, 1e30]}}
    config = with_search(parse_config(raw), space, trials=3, epochs=1, stop="off")
    directory = tune_model(config, "sasrec")
    trials = pl.read_parquet(directory / "trials.parquet").to_dicts()
    failed = [trial for trial in trials if trial["training.lr"] == 1e30]
    assert failed and all(trial["failure"] and trial["ndcg@10"] is None for trial in failed)
    assert read_manifest(directory)["best"]["training.lr"] == 0.001
    client = MlflowClient(uri)
    [experiment] = [e for e in client.search_experiments() if e.name == "tiny"]
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["trial"] for run in runs) == ["0", "1", "2"]
    states = {run.data.params["training.lr"]: run.info.status for run in runs}
    assert states == {"0.001": "FINISHED", "1e+30": "FAILED"}
    assert all("ndcg_at_10" in run.data.metrics for run in runs if run.info.status == "FINISHED")


def test_a_search_of_which_nothing_can_be_trained_says_why() -> None:
    trials = [Trial("a", {}, [], "the training has diverged"), Trial("b", {}, [], None)]
    with pytest.raises(RecsysError, match=r"tune sasrec: no trial gave a figure; the training has"):
        best_of(trials, "sasrec")


def test_of_equal_trials_the_earlier_is_the_best() -> None:
    rows = [
        {"epoch": 0, "ndcg@10": 0.1},
        {"epoch": 1, "ndcg@10": 0.3},
        {"epoch": 2, "ndcg@10": 0.3},
    ]
    trials = [Trial(name, {}, rows[:n], None) for name, n in (("a", 1), ("b", 2), ("c", 3))]
    assert best_of(trials, "sasrec") == 1
    assert trials[2].best == rows[1]


def test_overrides_of_the_best_setting_are_the_setting(
    fitted_experiment: ExperimentConfig, tmp_path: Path
) -> None:
    from recsys.config import load_config

    config = with_search(fitted_experiment)
    settings = {"training.lr": 0.00123, "max_length": 7}
    text = best_yaml(config, "sasrec", settings)
    overrides = text.splitlines()[0].removeprefix("# As overrides: ").split(" ")
    file = tmp_path / "config.yaml"
    file.write_text(dump_config(config))
    wanted = trial_config(config, "sasrec", settings).models["sasrec"]
    assert load_config(file, overrides).models["sasrec"] == wanted


def test_a_trial_of_data_parallel_training_takes_the_sequences_of_all(
    fitted_experiment: ExperimentConfig,
) -> None:
    config = with_search(fitted_experiment)
    two = config.model_copy(update={"ray": RayConfig(train_workers=2)})
    model = trial_config(two, "sasrec", {"training.batch_size": 8}).models["sasrec"]
    assert model.training.batch_size == 16  # type: ignore[union-attr]


def test_every_model_is_a_step_and_no_section_is_told(fitted_experiment: ExperimentConfig) -> None:
    from rich.console import Console

    titles = [step.title for step in plan(with_search(fitted_experiment), "tune")]
    assert titles == ["tune sasrec"]
    with pytest.raises(ConfigError, match="no section tune"):
        run_tune(fitted_experiment, Console(quiet=True))


def test_budget_and_space_make_the_key(fitted_experiment: ExperimentConfig) -> None:
    config = with_search(fitted_experiment)
    assert isinstance(config.tune, TuneConfig)
    keys = {
        search_directory(c, "sasrec")
        for c in (
            config,
            with_search(fitted_experiment, trials=5),
            with_search(fitted_experiment, {"width": {"choice": [8, 16]}}),
        )
    }
    assert len(keys) == 3
