"""What an epoch of UniRec costs beside SASRec's of the same hidden width, on the study's 30Music.

The models are those of configs/unirec_30music.yaml: all read and train 128 numbers a place (the published
form 64 of the item and 64 of the time), and so does the form whose rare items are made of neighbours.
Measured is the processor time of whole training steps (loss, gradients, clipping, Adam) on the same
batches, the models in turns, so that a busy machine slows all of them alike; an epoch is the median step
times its number of steps. The published form is measured in the last third of the training, when both
enhancements are at work, which is when it costs most. The bar is four times SASRec.

    RECSYS_DATA_DIR=... python tests/benchmarks/unirec_cost.py
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from environments import machine, now
from rich.console import Console
from torch import nn

from pipelines.fitting import open_data
from pipelines.stages import plan, run_steps
from pipelines.statistics import training_statistics
from recsys.config import ExperimentConfig, TrainingConfig, load_config
from recsys.data.sequences import TrainingData
from recsys.data.statistics import TrainingStatistics
from recsys.data.windows import TrainingBatches
from recsys.models import EncoderModel, build_model
from recsys.runtime import derive_seed
from recsys.training.fit import FitPlan, build_objective
from recsys.training.module import decay_groups
from recsys.training.objective import Objective

RESULT = Path(__file__).parent / "results" / "unirec_cost.json"
BAR = 4.0
CONFIG = Path(__file__).parents[2] / "configs" / "unirec_30music.yaml"
MODELS = (
    "sasrec",
    "unirec",
    "unirec_published",
    "tisasrec",
    "ancestor",
    "unirec_time_bias",
    "unirec_injection",
)
PROGRESS = 0.8
WARM_UP = 3


@dataclass
class Side:
    """A model in training, and the processor seconds of its steps."""

    model: EncoderModel
    objective: Objective
    optimizer: torch.optim.Optimizer
    training: TrainingConfig
    seconds: list[float]

    def step(self, batch: Any) -> None:
        """Make one step and note what it took."""
        began = time.process_time()
        loss = self.objective(self.model, batch, PROGRESS)
        loss.backward()
        if self.training.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.training.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.seconds.append(time.process_time() - began)


def side(
    name: str,
    whole: ExperimentConfig,
    work: Path,
    data: TrainingData,
    statistics: TrainingStatistics,
    seed: int,
) -> Side:
    """Return a model of the study, ready to be trained."""
    config: Any = whole.models[name]
    torch.manual_seed(derive_seed(seed, 1))
    model = build_model(config, data.store.n_items)
    assert isinstance(model, EncoderModel)
    fit_plan = FitPlan(config.training, whole.evaluation, data, None, work, statistics=statistics)
    objective = build_objective(model, fit_plan, data.item_counts(), 1000)
    groups = decay_groups(nn.ModuleList([model, objective]), config.training.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=config.training.lr, fused=True)
    return Side(model.train(), objective, optimizer, config.training, [])


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--work", type=Path, default=None, help="`runs` of a study, if it has been run"
    )
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        work = (options.work or Path(folder)).absolute()
        config = load_config(CONFIG, [f"output={work}", f"seed={options.seed}"])
        steps = [step for stage in ("prepare", "features") for step in plan(config, stage)]
        run_steps(config, steps, Console())
        store, split = open_data(config, "main")
        data = TrainingData(store, split.train_end)
        statistics = training_statistics(config, "main")
        sides = {name: side(name, config, work, data, statistics, options.seed) for name in MODELS}
        first = sides["sasrec"].training
        batches = TrainingBatches(data, 50, first.batch_size, repeats=first.repeats)
        for _, batch in zip(range(options.steps + WARM_UP), batches.epoch(0), strict=False):
            for each in sides.values():
                each.step(batch)
        seconds = {name: median(each.seconds[WARM_UP:]) for name, each in sides.items()}
    result = {
        "benchmark": "unirec_cost",
        "date": now(),
        "command": f"python tests/benchmarks/unirec_cost.py --steps {options.steps} "
        f"--seed {options.seed}",
        "bar": {"times_sasrec": BAR},
        "steps_per_epoch": len(batches),
        "epoch_processor_seconds": {n: round(s * len(batches), 1) for n, s in seconds.items()},
        "times_sasrec": {n: round(s / seconds["sasrec"], 2) for n, s in seconds.items()},
        "parameters": {
            name: sum(p.numel() for p in each.model.parameters()) for name, each in sides.items()
        },
        "machine": machine() | {"threads": 1, "load_before": round(load, 2)},
    }
    print(json.dumps(result, indent=1))
    options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
