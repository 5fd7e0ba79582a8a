"""Early stopping of a search's trials that is the same whether or not the search was killed in between.

Ray Tune keeps the trials and the proposals of a search, but not what its scheduler has seen: after a
restart, the first trials would be judged by nobody. Here the scheduler is told again, in the old order,
what the trials have written down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from recsys.config import TuneConfig

METRIC: Final = "best_ndcg"
"""The highest validation NDCG@10 so far: what a trial would keep."""
EPOCHS: Final = "epochs_done"

Reports = Callable[[], Mapping[str, list[dict[str, float]]]]
"""Returns what each trial (by id, in order of their begin) has reported before this start."""


def scheduler(tune: TuneConfig, reports: Reports) -> Any:
    """Return the Ray Tune scheduler that the configuration asks for, with a memory."""
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule

    match tune.stop:
        case "asha":
            return _with_memory(ASHAScheduler)(
                reports,
                time_attr=EPOCHS,
                max_t=tune.epochs,
                grace_period=min(tune.grace, tune.epochs),
                reduction_factor=tune.reduction,
            )
        case "median":
            # It may not let a trial wait for others, which here run one after another.
            return _with_memory(MedianStoppingRule)(
                reports, time_attr=EPOCHS, grace_period=tune.grace, min_time_slice=tune.epochs
            )
        case "off":
            return FIFOScheduler()


def _with_memory(kind: Any) -> Any:
    """Return a kind of scheduler that judges every report once, those before a restart first."""

    class Remembering(kind):  # type: ignore[misc]
        def __init__(self, reports: Reports, **settings: Any) -> None:
            super().__init__(**settings)
            self.reports = reports
            self.told = False
            self.decisions: dict[tuple[str, int], str] = {}

        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            self._tell(tune_controller)
            return self._decide(tune_controller, trial, result)

        def _tell(self, tune_controller: Any) -> None:
            if self.told:
                return
            self.told = True
            trials = {trial.trial_id: trial for trial in tune_controller.get_trials()}
            for name, earlier in self.reports().items():
                if name in trials:  # not one that began after the last saved state
                    for report in earlier:
                        self._decide(tune_controller, trials[name], report)

        def _decide(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            """Return the decision on a report; a trial that goes on makes its old reports again."""
            key = (trial.trial_id, int(result.get(EPOCHS, 0)))
            if key not in self.decisions:
                decision = super().on_trial_result(tune_controller, trial, result)
                self.decisions[key] = str(decision)
            return self.decisions[key]

    return Remembering
