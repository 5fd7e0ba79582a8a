"""Record runs in MLflow, and go on without it when it cannot be reached.

A tracker is built from plain settings, so that a training worker in another process can make its
own and join a run by id. Every call that fails is logged and counted; after three failures in a row
the tracker stops trying, so that a dead server costs seconds and never a training run.
"""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import recsys
from pipelines.environment import set_environment
from recsys.config import ExperimentConfig, PretrainConfig
from recsys.errors import MissingExtraError
from recsys.published import REGISTRY

T = TypeVar("T")
logger = logging.getLogger(__name__)

SQLITE: Final = "sqlite:///"
GIVE_UP_AFTER: Final = 3
PARAMS_PER_CALL: Final = 100  # limits of the MLflow protocol
PARAM_LENGTH: Final = 6000
TAG_LENGTH: Final = 8000


@dataclass(frozen=True)
class TrackerSettings:
    """Everything a tracker needs, in plain values that cross a process border.

    Attributes:
        uri: MLflow tracking address; also that of the model registry.
        experiment: MLflow experiment, made if it does not exist.
        run_name: name of a new run.
        artifacts: where a new experiment keeps its files, as a URI; None leaves it to the server.
        run_id: an existing run to go on with, instead of a new one.
        enabled: with False every call does nothing, and that is not counted as a failure.
    """

    uri: str
    experiment: str
    run_name: str
    artifacts: str | None = None
    run_id: str | None = None
    enabled: bool = True


def tracker_settings(config: ExperimentConfig | PretrainConfig, run_name: str) -> TrackerSettings:
    """Return where runs go: the experiment's own setting, MLFLOW_TRACKING_URI, or a local file.

    The local file is `mlflow.db` in the output directory. An SQLite file has its artifacts beside
    it, in `mlartifacts`; elsewhere the server decides.
    """
    local = f"{SQLITE}{config.output.absolute() / REGISTRY}"
    uri = config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or local
    artifacts = None
    if uri.startswith(SQLITE):
        database = Path(uri.removeprefix(SQLITE)).absolute()  # workers run in other directories
        uri = f"{SQLITE}{database}"
        artifacts = (database.parent / "mlartifacts" / config.name).as_uri()
    return TrackerSettings(
        uri=uri,
        experiment=config.tracking.experiment or config.name,
        run_name=run_name,
        artifacts=artifacts,
        enabled=config.tracking.enabled,
    )


class Tracker:
    """One MLflow run. No method raises when tracking fails.

    Attributes:
        run_id: the run's id, None until `start_run` has succeeded.
        failures: calls that were not recorded.
    """

    def __init__(self, settings: TrackerSettings) -> None:
        self.settings = settings
        self.run_id: str | None = None
        self.failures = 0
        self._in_a_row = 0
        self._client: Any = None

    def start_run(self, params: Mapping[str, Any], tags: Mapping[str, str]) -> str | None:
        """Start a run, or go on with `settings.run_id`; return its id, None if tracking is down.

        Nested parameters get dotted names. A run that goes on keeps the parameters it has.
        """

        def start() -> str:
            if self.settings.run_id is not None:
                self._client.set_terminated(self.settings.run_id, "RUNNING")  # reopen it
                return self.settings.run_id
            run = self._client.create_run(
                self._experiment_id(), run_name=self.settings.run_name, tags=_cut_tags(tags)
            )
            return str(run.info.run_id)

        self.run_id = self._attempt("start a run", start)
        if self.run_id is None:
            # There is nothing to attach later calls to: they are counted, not tried.
            self._in_a_row = GIVE_UP_AFTER
        elif self.settings.run_id is None:
            self._log_params(params)
        return self.run_id

    def log_epoch(self, metrics: Mapping[str, float], step: int) -> None:
        """Record an epoch's metrics; `@` in a name becomes `_at_`, which MLflow allows."""
        self._log_batch("log an epoch", metrics, step)

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Record figures that belong to the run as a whole."""
        self._log_batch("log metrics", metrics, 0)

    def log_artifact(self, path: Path) -> None:
        """Keep a copy of a file, or of a directory under its own name, with the run."""

        def log() -> None:
            if path.is_dir():
                self._client.log_artifacts(self.run_id, str(path), path.name)
            else:
                self._client.log_artifact(self.run_id, str(path))

        self._attempt(f"log {path.name}", log)

    def describe(self, bundle: Path) -> None:
        """Write into a bundle what makes it an MLflow model; see `pipelines/scoring.py`."""

        def describe() -> None:
            from pipelines.scoring import describe_model

            describe_model(bundle, self.run_id)

        self._attempt("describe the bundle", describe)

    def register(self, model: str, path: Path, alias: str, tags: Mapping[str, str]) -> str | None:
        """Add a bundle to the model registry, let `alias` name it, and return its version.

        In a local registry the version points to the bundle where it lies; a tracking server gets a
        copy, so that other machines can fetch it.
        """

        def register() -> str:
            source = path.absolute().as_uri()
            if not self.settings.uri.startswith(SQLITE):
                self._client.log_artifacts(self.run_id, str(path), path.name)
                root = self._client.get_run(self.run_id).info.artifact_uri
                source = f"{root}/{path.name}"
            if not self._client.search_registered_models(f"name = '{model}'"):
                self._client.create_registered_model(model)
            version = self._client.create_model_version(
                model, source, run_id=self.run_id, tags=_cut_tags(tags)
            ).version
            self._client.set_registered_model_alias(model, alias, version)
            return str(version)

        return self._attempt("register the bundle", register)

    def finish(self, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED") -> None:
        """End the run and say how many calls were lost, if any."""
        self._attempt("end the run", lambda: self._client.set_terminated(self.run_id, status))
        if self.failures:
            logger.warning(
                "%d tracking calls to %s were not recorded", self.failures, self.settings.uri
            )

    def _log_batch(self, what: str, metrics: Mapping[str, float], step: int) -> None:
        def log() -> None:
            from mlflow.entities import Metric

            now = int(time.time() * 1000)
            batch = [Metric(_allowed(name), float(v), now, step) for name, v in metrics.items()]
            self._client.log_batch(self.run_id, metrics=batch)

        self._attempt(what, log)

    def _log_params(self, params: Mapping[str, Any]) -> None:
        def log() -> None:
            from mlflow.entities import Param

            flat = (Param(_allowed(k), str(v)[:PARAM_LENGTH]) for k, v in flatten(params))
            while some := list(islice(flat, PARAMS_PER_CALL)):
                self._client.log_batch(self.run_id, params=some)

        self._attempt("log parameters", log)

    def _attempt(self, what: str, call: Callable[[], T]) -> T | None:
        """Return what the call returns; None, counted and logged, if it fails in any way."""
        if not self.settings.enabled:
            return None
        if self._in_a_row >= GIVE_UP_AFTER:
            self.failures += 1
            return None
        try:
            self._connect()
            result = call()
        # MLflow passes on whatever its store raises: HTTP, SQL, a missing driver, a full disk.
        except Exception as error:
            self.failures += 1
            self._in_a_row += 1
            logger.warning(
                "Tracking at %s failed to %s (%s: %s); the job goes on",
                self.settings.uri,
                what,
                type(error).__name__,
                " ".join(str(error).split())[:200],
            )
            return None
        self._in_a_row = 0
        return result

    def _connect(self) -> None:
        if self._client is not None:
            return
        set_environment()  # usage reports off, short time-outs: read when MLflow is imported
        try:
            from mlflow.tracking import MlflowClient
        except ModuleNotFoundError as error:
            raise MissingExtraError("mlflow", "track") from error
        for name in ("alembic", "mlflow.store.db.utils"):  # they narrate every table they make
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client = MlflowClient(self.settings.uri, self.settings.uri)

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self.settings.experiment)
        if found is not None:
            return str(found.experiment_id)
        made = self._client.create_experiment(
            self.settings.experiment, artifact_location=self.settings.artifacts
        )
        return str(made)


def flatten(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield `(dotted name, value)` of every leaf of nested mappings, in order."""
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def code_tags() -> dict[str, str]:
    """Return which code ran: version, hash of the sources, the git commit if there is one."""
    package = Path(recsys.__file__).parent
    digest = hashlib.sha256()
    for folder in (package, package.parent / "features", package.parent / "pipelines"):
        for source in sorted(folder.rglob("*.py")):
            digest.update(source.relative_to(package.parent).as_posix().encode())
            digest.update(source.read_bytes())
    tags = {"code_version": recsys.__version__, "code_hash": digest.hexdigest()}
    if (package.parent / ".git").exists() and (commit := _git_commit(package.parent)):
        tags["git_commit"] = commit
    return tags


def _git_commit(checkout: Path) -> str | None:
    """Return the checked-out commit, None where git is missing or there is no commit yet."""
    try:
        done = subprocess.run(
            ["git", "-C", str(checkout), "rev-parse", "--verify", "--quiet", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.info("git does not answer (%s); runs carry the hash of the sources only", error)
        return None
    return done.stdout.strip() or None


def _allowed(name: str) -> str:
    """Return a name in MLflow's alphabet: letters, digits, `_-. :/`."""
    name = name.replace("@", "_at_")
    return "".join(c if c.isalnum() or c in "_-. :/" else "_" for c in name)


def _cut_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: str(value)[:TAG_LENGTH] for key, value in tags.items()}
