"""Our best setting, trained to its end: how many seconds of training until which quality.

Test figures are noted beside the validation's to place the moment when a level is first passed; the
epoch that is kept is chosen on validation alone. Ranking is left out of the seconds.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side import Events, read_side

from recsys.config import SASRecConfig, load_config
from recsys.data.sequences import SequenceStore, Targets, TrainingData
from recsys.evaluation.ranking import rank_targets
from recsys.models.sasrec import SASRec
from recsys.runtime import derive_seed
from recsys.training.fit import FitPlan, fit
from recsys.training.validation import means_by_user

ROOT = Path(__file__).parents[3]


def main() -> None:
    """Fit by configs/beauty.yaml and print the curve and the kept epoch's test figures."""
    settings, events = read_side()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(settings.threads)
    experiment = load_config(ROOT / "configs" / "beauty.yaml")
    config = experiment.models["sasrec"]
    if not isinstance(config, SASRecConfig):
        raise TypeError("sasrec in configs/beauty.yaml is no SASRec")
    store = SequenceStore(events.items.astype(np.int32), events.offsets, events.n_items)
    torch.manual_seed(derive_seed(settings.seed))
    model = SASRec(config, events.n_items)
    curve: list[dict[str, float]] = []
    trained = 0.0

    def note(row: dict[str, float]) -> None:
        nonlocal trained
        trained += row["seconds"]
        if "ndcg@10" in row:
            point = {"epoch": row["epoch"] + 1, "training_seconds": round(trained, 1)}
            point |= {f"validation_{name}": round(row[name], 4) for name in ("hr@10", "ndcg@10")}
            curve.append(point | test_figures())
            print(curve[-1], file=sys.stderr, flush=True)

    def test_figures() -> dict[str, float]:
        was_training = model.training
        model.eval()
        targets = nth_from_last(events, 1)
        means = means_by_user(rank_targets(model, store, targets, experiment.evaluation))
        model.train(was_training)
        ndcg, hr = means.mean(axis=0)
        return {"test_hr@10": round(float(hr), 4), "test_ndcg@10": round(float(ndcg), 4)}

    with tempfile.TemporaryDirectory() as folder:
        fit(
            model,
            FitPlan(
                training=config.training,
                evaluation=experiment.evaluation,
                data=TrainingData(store, events.offsets[1:] - 2),
                validation=nth_from_last(events, 2),
                directory=Path(folder),
                seed=settings.seed,
                on_epoch=note,
            ),
        )
    report: dict[str, Any] = {"curve": curve, "kept": test_figures()}
    print(json.dumps(report), flush=True)


def nth_from_last(events: Events, nth: int) -> Targets:
    """Return every user's nth event from the end as a target."""
    start = events.offsets[1:] - nth
    return Targets(np.arange(len(start), dtype=np.int32), start, start + 1)


if __name__ == "__main__":
    main()
