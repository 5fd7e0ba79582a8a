"""Schedulers with a memory judge after a restart as they would have without it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from pipelines.stopping import EPOCHS, METRIC, scheduler
from recsys.config import TuneConfig

pytestmark = pytest.mark.ray

CURVES = {
    "a": [0.2, 0.35, 0.4, 0.5],
    "b": [0.1, 0.5, 0.6, 0.7],
    "c": [0.3, 0.31, 0.32, 0.33],
    "d": [0.25, 0.6, 0.7, 0.8],
    "e": [0.01, 0.02, 0.03, 0.04],
}


@dataclass(eq=False)
class MadeTrial:
    trial_id: str
    status: str = "RUNNING"


@dataclass
class Controller:
    trials: list[MadeTrial] = field(default_factory=list)

    def get_trials(self) -> list[MadeTrial]:
        return self.trials

    def get_live_trials(self) -> list[MadeTrial]:
        return self.trials


def reports(name: str, epochs: int) -> list[dict[str, float]]:
    return [{METRIC: value, EPOCHS: i + 1} for i, value in enumerate(CURVES[name][:epochs])]


def judge(tune: TuneConfig, start: int, earlier: dict[str, int]) -> dict[str, int]:
    """Return the epochs of each trial, those before `start` being known from an earlier attempt."""
    rule = scheduler(tune, lambda: {name: reports(name, n) for name, n in earlier.items()})
    rule.set_search_properties(METRIC, "max")
    controller, made = Controller(), dict(earlier)
    for name in list(CURVES)[:start]:
        controller.trials.append(MadeTrial(name))
        rule.on_trial_add(controller, controller.trials[-1])
    for name in list(CURVES)[start:]:
        trial = next((t for t in controller.trials if t.trial_id == name), MadeTrial(name))
        if trial not in controller.trials:
            controller.trials.append(trial)
            rule.on_trial_add(controller, trial)
        for report in reports(name, 4):
            made[name] = int(report[EPOCHS])
            if rule.on_trial_result(controller, trial, report) == "STOP":
                break
    return made


def tune_of(stop: str) -> TuneConfig:
    space: dict[str, Any] = {"sasrec": {"width": {"choice": [8]}}}
    return TuneConfig.model_validate(
        {"space": space, "epochs": 5, "grace": 1, "reduction": 2, "stop": stop}
    )


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ("asha", {"a": 4, "b": 1, "c": 2, "d": 4, "e": 1}),
        ("median", {"a": 4, "b": 4, "c": 4, "d": 4, "e": 1}),
    ],
)
@pytest.mark.parametrize("start", [0, 1, 2, 3, 4])
def test_a_restart_changes_no_decision(stop: str, expected: dict[str, int], start: int) -> None:
    earlier = {name: expected[name] for name in list(CURVES)[:start]}
    assert judge(tune_of(stop), start, earlier) == expected


def test_a_trial_that_reports_again_is_judged_as_before() -> None:
    """It was stopped at its second epoch, but the search was killed before it ended."""
    expected = {"a": 4, "b": 1, "c": 2, "d": 4, "e": 1}
    earlier = {"a": 4, "b": 1, "c": 2}
    assert judge(tune_of("asha"), 2, earlier) == expected


def test_without_a_rule_every_trial_ends_by_itself() -> None:
    rule = scheduler(tune_of("off"), dict)
    trial = MadeTrial("a")
    assert rule.on_trial_result(Controller([trial]), trial, reports("e", 1)[0]) == "CONTINUE"
