"""Make the candidate the champion, if it is not worse: paired by user, at a stated level, on guard metrics.

Not worse means: the one-sided lower limit of candidate less champion lies above minus the margin, a
share of the champion's value. A candidate of which nothing certain is known is therefore refused.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipelines.environment import set_environment
from pipelines.publish import bundles_directory
from pipelines.tracking import tracker_settings
from recsys.config import ExperimentConfig, PublishConfig
from recsys.errors import ArtifactError, MissingExtraError
from recsys.manifest import MANIFEST, read_manifest

if TYPE_CHECKING:
    from recsys.evaluation.measured import RunChoice
    from recsys.evaluation.metrics import Float64

CHAMPION: Final = "champion"
SINCE: Final = "champion_since"
GUARDS: Final = "guards"
"""Tags of the promoted version: when, and by what comparison."""


@dataclass(frozen=True)
class Guard:
    """One metric of the two: values, the difference's lower limit, and what it may not fall below."""

    metric: str
    candidate: float
    champion: float
    difference: float
    low: float
    allowed: float
    users: int

    @property
    def passed(self) -> bool:
        """Whether the candidate is not worse."""
        return self.low >= self.allowed


@dataclass(frozen=True)
class Promotion:
    """What was decided, and by what.

    Attributes:
        model: name in the registry.
        candidate: version that was asked about.
        champion: version that was the champion before, None for the first.
        guards: the comparisons; none where there was no other champion.
        promoted: whether the alias was moved.
    """

    model: str
    candidate: str
    champion: str | None
    guards: tuple[Guard, ...]
    promoted: bool


def promote(config: ExperimentConfig) -> Promotion:
    """Move the alias `champion` to the candidate unless a guard refuses; say what was found.

    The first champion needs no comparison: there is nothing it could be worse than.

    Raises:
        ArtifactError: there is no candidate, or the two were not measured on the same targets.
    """
    client, model = _client(config), config.name
    candidate = _version(client, model, config.publish.alias)
    if candidate is None:
        raise ArtifactError(
            f"no version of {model} has the alias {config.publish.alias} in the registry at "
            f"{tracker_settings(config, '').uri}; run `recsys publish` first"
        )
    champion = _version(client, model, CHAMPION)
    number, before = str(candidate.version), None if champion is None else str(champion.version)
    if champion is not None and number == before:
        return Promotion(model, number, before, (), promoted=False)
    guards: tuple[Guard, ...] = ()
    if champion is not None:
        mine, theirs = _measured(config, candidate), _measured(config, champion)
        guards = tuple(_guard(name, mine, theirs, config) for name in config.publish.guards)
    passed = all(guard.passed for guard in guards)
    if passed:
        client.set_registered_model_alias(model, CHAMPION, number)
        now = datetime.now(UTC).isoformat(timespec="minutes")
        client.set_model_version_tag(model, number, SINCE, now)
        found = [asdict(guard) for guard in guards]
        client.set_model_version_tag(model, number, GUARDS, json.dumps(found))
    return Promotion(model, number, before, guards, promoted=passed)


def _client(config: ExperimentConfig) -> Any:
    set_environment()
    try:
        from mlflow.tracking import MlflowClient
    except ModuleNotFoundError as error:
        raise MissingExtraError("mlflow", "track") from error
    uri = tracker_settings(config, "").uri
    return MlflowClient(uri, uri)


def _version(client: Any, model: str, alias: str) -> Any | None:
    """Return the version that an alias names, None where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(model, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise ArtifactError(f"the registry does not answer: {error}") from error


def _measured(config: ExperimentConfig, version: Any) -> list[RunChoice]:
    """Return where the test split of a registered bundle's run was measured, newest first.

    Only by the rule of exclusion that the bundle answers by: its lists are the ones to be judged.
    """
    from recsys.evaluation.measured import judges, measured_runs
    from recsys.evaluation.reports import METRICS, find_reports, read_table

    info = _bundle_info(config, version)
    run, exclude = info.get("run"), info.get("exclude", "seen")
    reports = [r for r in find_reports(config.workspace) if r.problem is None]
    names = {name for r in reports for name in read_table(r, METRICS).rows["dataset"].unique()}
    found = [
        choice
        for dataset in sorted(names)
        for choice in measured_runs(reports, dataset, "test")
        if judges(choice, info)
    ]
    if not found:
        raise ArtifactError(
            f"version {version.version} of {config.name} is of run {run} and excludes {exclude!r}; no "
            f"report below {config.workspace / 'reports'} measured that on the test split; run `recsys "
            f"evaluate` with evaluation.exclude={exclude}"
        )
    return found


def _bundle_info(config: ExperimentConfig, version: Any) -> dict[str, Any]:
    """Return the facts that travel in a registered bundle."""
    named = Path(version.tags.get("bundle", ""))
    for path in (named, bundles_directory(config) / named.name):
        if named.name and (path / MANIFEST).is_file():
            info: dict[str, Any] = read_manifest(path)["info"]
            return info
    raise ArtifactError(
        f"the bundle {named} of version {version.version} is gone, so it cannot be compared; publish it "
        "again, or delete the alias"
    )


def _guard(
    name: str,
    candidates: list[RunChoice],
    champions: list[RunChoice],
    config: ExperimentConfig,
) -> Guard:
    """Compare the newest measurements of the two that have the same targets."""
    from recsys.evaluation.measured import values_of

    metric, _, k = name.partition("@")
    key = (metric, int(k))
    for one in candidates:
        for other in champions:
            mine, theirs = values_of(one, key), values_of(other, key)
            if one.dataset == other.dataset and mine.targets == theirs.targets:
                difference = mine.value - theirs.value
                low = lower_limit(difference, config.publish, config)
                champion = float(theirs.value.mean())
                return Guard(
                    metric=name,
                    candidate=float(mine.value.mean()),
                    champion=champion,
                    difference=float(difference.mean()),
                    low=low,
                    allowed=-config.publish.guard_margin * champion,
                    users=len(difference),
                )
    raise ArtifactError(
        f"candidate ({candidates[0].report.id}) and champion ({champions[0].report.id}) of {config.name} "
        "were measured on different targets or by different rules of exclusion, so they cannot be paired "
        "by user; evaluate both with the same data, split and evaluation.exclude in one configuration"
    )


def lower_limit(difference: Float64, publish: PublishConfig, config: ExperimentConfig) -> float:
    """Return the one-sided lower limit of the mean difference at `guard_level`.

    The percentile bootstrap's over users, or beyond 20,000 of them its normal limit.
    """
    import numpy as np

    from recsys.evaluation.compare import MANY_USERS, normal_limit
    from recsys.evaluation.intervals import bootstrap

    level = 2 * publish.guard_level - 1  # what a two-sided interval with this lower end holds
    if len(difference) > MANY_USERS:
        return normal_limit(difference, level)[1]
    rng = np.random.default_rng((config.seed, 0))
    low, _ = bootstrap(difference[:, None], config.evaluation.bootstrap, level, rng)
    return float(low[0])
