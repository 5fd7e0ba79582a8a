from __future__ import annotations

import json
import logging
import socket
import sqlite3
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from pipelines.environment import DEFAULTS, set_environment
from pipelines.tracking import Tracker, TrackerSettings, code_tags, flatten, tracker_settings
from recsys.config import ExperimentConfig, parse_config

pytestmark = [
    pytest.mark.skipif(find_spec("mlflow") is None, reason="needs the extra 'track'"),
    # MLflow and what it is built on warn about themselves; that is not ours to mend.
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"
    ),
]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for the module: making its tables takes seconds."""
    return tmp_path_factory.mktemp("tracking") / "mlflow.db"


def settings_for(database: Path, run_name: str = "sasrec", **changes: Any) -> TrackerSettings:
    artifacts = (database.parent / "mlartifacts").as_uri()
    return TrackerSettings(f"sqlite:///{database}", "trial", run_name, artifacts, **changes)


def rows(database: Path, query: str, *values: Any) -> list[Any]:
    with sqlite3.connect(database) as connection:
        found = connection.execute(query, values).fetchall()
    connection.close()
    return found


def dead_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_run_keeps_params_metrics_tags_and_artifacts(database: Path, tmp_path: Path) -> None:
    tracker = Tracker(settings_for(database))
    run_id = tracker.start_run(
        {"model": {"width": 64, "kind": "sasrec"}, "seed": 3}, {"data": "d1"}
    )
    assert run_id is not None
    tracker.log_epoch({"ndcg@10": 0.1}, step=1)
    tracker.log_epoch({"ndcg@10": 0.2}, step=2)
    tracker.log_metrics({"test/hr@10": 0.5})
    (tmp_path / "report.html").write_text("<p>report</p>")
    tracker.log_artifact(tmp_path / "report.html")
    tracker.finish()

    assert tracker.failures == 0
    stored = dict(rows(database, "select key, value from params where run_uuid = ?", run_id))
    assert stored == {"model.width": "64", "model.kind": "sasrec", "seed": "3"}
    epochs = rows(
        database,
        "select step, value from metrics where run_uuid = ? and key = 'ndcg_at_10' order by step",
        run_id,
    )
    assert epochs == [(1, 0.1), (2, 0.2)]
    assert ("d1",) in rows(database, "select value from tags where run_uuid = ?", run_id)
    [(status, uri)] = rows(
        database, "select status, artifact_uri from runs where run_uuid = ?", run_id
    )
    assert status == "FINISHED"
    copy = Path(uri.removeprefix("file://")) / "report.html"
    assert copy.read_text() == "<p>report</p>"
    assert copy.is_relative_to(database.parent / "mlartifacts")


def test_another_tracker_goes_on_with_a_run(database: Path) -> None:
    first = Tracker(settings_for(database))
    run_id = first.start_run({"lr": 0.1}, {})
    first.log_epoch({"loss": 2.0}, step=0)
    first.finish("FAILED")

    second = Tracker(settings_for(database, run_id=run_id))
    assert second.start_run({"lr": 0.2}, {}) == run_id  # parameters of a run never change
    [(status,)] = rows(database, "select status from runs where run_uuid = ?", run_id)
    assert status == "RUNNING"
    second.log_epoch({"loss": 1.0}, step=1)
    second.finish()
    assert second.failures == 0
    losses = rows(
        database, "select step, value from metrics where run_uuid = ? order by step", run_id
    )
    assert losses == [(0, 2.0), (1, 1.0)]
    assert rows(database, "select value from params where run_uuid = ?", run_id) == [("0.1",)]


def test_more_parameters_than_one_call_takes(database: Path) -> None:
    tracker = Tracker(settings_for(database))
    run_id = tracker.start_run({f"p{i}": i for i in range(250)} | {"long": "x" * 9000}, {})
    assert tracker.failures == 0
    [(count,)] = rows(database, "select count(*) from params where run_uuid = ?", run_id)
    assert count == 251


def test_the_newest_version_of_a_model_has_the_alias(database: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "demo@0123abcd"
    bundle.mkdir()
    versions = []
    for _ in range(2):
        tracker = Tracker(settings_for(database))
        tracker.start_run({}, {})
        versions.append(tracker.register("demo", bundle, "candidate", {"data": "d1"}))
        tracker.finish()
        assert tracker.failures == 0
    assert versions == ["1", "2"]
    aliases = rows(database, "select alias, version from registered_model_aliases")
    assert aliases == [("candidate", 2)]
    sources = rows(database, "select distinct source from model_versions")
    assert sources == [(bundle.as_uri(),)]  # a local registry points to the bundle, no copy


def test_a_dead_server_costs_seconds_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    set_environment()
    import mlflow.tracking  # noqa: F401  # its import is not what is timed

    settings = TrackerSettings(f"http://127.0.0.1:{dead_port()}", "trial", "sasrec")
    tracker = Tracker(settings)
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, logger="pipelines.tracking"):
        assert tracker.start_run({"lr": 0.1}, {}) is None
        for step in range(50):
            tracker.log_epoch({"loss": 1.0}, step)
        assert tracker.register("demo", Path("nowhere"), "candidate", {}) is None
        tracker.finish()
    assert time.monotonic() - began < 60
    assert tracker.failures == 1 + 50 + 1 + 1
    messages = [r.getMessage() for r in caplog.records if r.name == "pipelines.tracking"]
    assert len(messages) == 2
    assert "failed to start a run" in messages[0] and "the job goes on" in messages[0]
    assert "53 tracking calls" in messages[1]


@pytest.mark.parametrize("uri", ["bogus://somewhere", "postgresql://nobody@127.0.0.1:9/none"])
def test_an_unusable_address_is_a_warning(uri: str, caplog: pytest.LogCaptureFixture) -> None:
    tracker = Tracker(TrackerSettings(uri, "trial", "sasrec"))
    assert tracker.start_run({}, {}) is None
    assert tracker.failures == 1
    assert uri in caplog.text


def test_a_server_that_dies_on_the_way_is_left_alone_after_three_failures(database: Path) -> None:
    tracker = Tracker(settings_for(database))
    tracker.start_run({}, {})
    calls = 0

    class Dead:
        def log_batch(self, *args: object, **kwargs: object) -> None:
            nonlocal calls
            calls += 1
            raise ConnectionError("gone")

    tracker._client = Dead()
    for step in range(10):
        tracker.log_epoch({"loss": 1.0}, step)
    assert calls == 3
    assert tracker.failures == 10


def test_switched_off_nothing_happens_and_nothing_is_counted(tmp_path: Path) -> None:
    tracker = Tracker(settings_for(tmp_path / "off.db", enabled=False))
    assert tracker.start_run({"lr": 1}, {}) is None
    tracker.log_epoch({"loss": 1.0}, 0)
    tracker.finish()
    assert tracker.failures == 0
    assert not (tmp_path / "off.db").exists()


def config_with(tmp_path: Path, **tracking: Any) -> ExperimentConfig:
    return parse_config(
        {
            "name": "mine",
            "output": str(tmp_path),
            "data": {"events": ["events.csv"]},
            "models": {"pop": {"kind": "pop"}},
            "tracking": tracking,
        }
    )


def test_settings_default_to_a_file_in_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    settings = tracker_settings(config_with(tmp_path), "pop")
    assert settings.uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert settings.artifacts == (tmp_path / "mlartifacts" / "mine").as_uri()
    assert (settings.experiment, settings.run_name) == ("mine", "pop")


def test_settings_prefer_the_configuration_to_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://env")
    assert tracker_settings(config_with(tmp_path), "pop").uri == "http://env"
    chosen = tracker_settings(config_with(tmp_path, uri="http://own", experiment="e"), "pop")
    assert (chosen.uri, chosen.experiment, chosen.artifacts) == ("http://own", "e", None)


def test_a_relative_database_is_the_same_file_from_any_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = tracker_settings(config_with(tmp_path, uri="sqlite:///runs/own.db"), "pop")
    assert settings.uri == f"sqlite:///{tmp_path}/runs/own.db"
    assert settings.artifacts == (tmp_path / "runs" / "mlartifacts" / "mine").as_uri()


def test_flatten_gives_dotted_names_in_order() -> None:
    nested = {"b": {"x": 1, "y": {"z": None}}, "a": [1, 2]}
    assert list(flatten(nested)) == [("b.x", 1), ("b.y.z", None), ("a", [1, 2])]


def test_code_tags_name_the_code() -> None:
    tags = code_tags()
    assert len(tags["code_hash"]) == 64
    assert tags == code_tags()


def test_the_environment_is_set_but_never_overruled() -> None:
    environ = {"DO_NOT_TRACK": "0"}
    set_environment(environ)
    assert environ == {**DEFAULTS, "DO_NOT_TRACK": "0"}


def test_importing_the_tracker_does_not_import_mlflow() -> None:
    code = "import json, sys, pipelines.tracking; print(json.dumps('mlflow' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is False
