"""The rest of a basket: does a loss of sets teach the same model more than the loss of the next line?

The two learned models of configs/continuation_online_retail.yaml differ in their objective, and in the
weight of the neighbours' votes, which validation chose for each. They are trained in this process with the
same seeds, data and number of epochs (weights that are there are used again), and asked with the models
that count for the hidden half of every test basket. A basket's figure is its mean over the seeds; means by
basket with bootstrap intervals; paired sign-flip tests with Holm's correction over all pairs. The means of
each seed stand beside.

    python tests/benchmarks/basket_losses.py --work out/basket_losses

It needs `recsys prepare` and `recsys features` of that configuration in the output directory.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environments import machine, now

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results" / "basket_losses"
CONFIG = "configs/continuation_online_retail.yaml"
KEYS: tuple[tuple[str, int | None], ...] = (
    ("ndcg", 10),
    ("r_precision", None),
    ("recall", 20),
    ("hr", 10),
)


def main() -> None:
    """Train what is not there yet, ask all models, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("out/basket_losses"))
    parser.add_argument("--data", type=Path, default=Path("out"), help="the output directory")
    parser.add_argument("--seeds", default="0,1,2", help="with commas between")
    parser.add_argument("--split", default="test", choices=("validation", "test"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    torch.set_num_threads(1)
    from recsys.config import load_config

    config = load_config(ROOT / CONFIG, [f"output={options.data}"])
    seeds = [int(text) for text in options.seeds.split(",")]
    options.output.mkdir(parents=True, exist_ok=True)
    result = {
        "benchmark": "basket_losses",
        "date": now(),
        "command": f"python tests/benchmarks/basket_losses.py --seeds {options.seeds} --split "
        f"{options.split}",
        "config": CONFIG,
        "seeds": seeds,
        "split": options.split,
        **ask(config, seeds, options.work, options.split),
        "models": {name: model.model_dump(mode="json") for name, model in config.models.items()},
        "versions": {package: version(package) for package in ("recsys", "torch", "numpy")},
        "machine": machine(),
    }
    path = options.output / f"{options.split}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    for name, figures in result["figures"].items():
        print(f"{name:<12}", figures)
    for row in result["tests"]:
        print(row)


def ask(config: Any, seeds: list[int], work: Path, split_name: str) -> dict[str, Any]:
    """Return figures and paired tests of all models on one split."""
    from recsys.data.sequences import SequenceStore, Split, TrainingData
    from recsys.evaluation.intervals import bootstrap, user_means
    from recsys.evaluation.metrics import target_metric
    from recsys.evaluation.ranking import rank_targets
    from recsys.evaluation.significance import holm, permutation_test
    from recsys.models import CountingModel, EncoderModel, build_model

    store = SequenceStore.load(config.workspace / "features" / "sequences")
    split = Split.load(config.workspace / "prepared" / "splits" / "main")
    data = TrainingData(store, split.train_end)

    def means_of(name: str, seed: int) -> Any:
        """Return the metrics of every basket, float64 [baskets, metrics]."""
        settings = config.models[name]
        torch.manual_seed(seed)
        model = build_model(settings, store.n_items)
        if isinstance(model, CountingModel):
            model.fit(data)
        elif isinstance(model, EncoderModel):
            seeded = config.model_copy(update={"seed": seed})
            train(model, settings, seeded, data, split.validation, work / f"{name}-s{seed}")
        ranked = rank_targets(
            model, store, split.targets(split_name), config.evaluation, list_length=1, name=name
        )
        values = [target_metric(ranked.ranks, ranked.offsets, key) for key in KEYS]
        found = user_means(np.stack(values, axis=1), ranked.user)[1]
        print(name, seed, found.mean(axis=0).round(4), file=sys.stderr, flush=True)
        return found

    learned = [name for name, settings in config.models.items() if hasattr(settings, "training")]
    every = {
        name: [means_of(name, seed) for seed in (seeds if name in learned else seeds[:1])]
        for name in config.models
    }
    means = {name: np.mean(found, axis=0) for name, found in every.items()}
    rng = np.random.default_rng(seeds[0])
    figures, tests = {}, []
    for name, mine in means.items():
        low, high = bootstrap(mine, 2000, 0.95, rng)
        rows = zip(KEYS, mine.mean(axis=0), low, high, strict=True)
        figures[name] = {called(key): [round(float(x), 4) for x in row] for key, *row in rows}
    pairs = list(combinations(means, 2))
    p = np.stack([permutation_test(means[a] - means[b], 10_000, rng) for a, b in pairs])
    for m, key in enumerate(KEYS):
        corrected = holm(p[:, m])
        for (a, b), one, adjusted in zip(pairs, p[:, m], corrected, strict=True):
            difference = round(float((means[b] - means[a])[:, m].mean()), 4)
            tests.append(
                {
                    "models": [b, a],
                    "metric": called(key),
                    "difference": difference,
                    "p": round(float(one), 5),
                    "p_holm": round(float(adjusted), 5),
                }
            )
    by_seed = {name: np.round(np.mean(every[name], axis=1), 4).tolist() for name in learned}
    return {
        "baskets": len(means[learned[0]]),
        "figures": figures,
        "by_seed": {"metrics": [called(key) for key in KEYS], **by_seed},
        "tests": tests,
    }


def train(
    model: Any, settings: Any, config: Any, data: Any, validation: Any, directory: Path
) -> None:
    """Fit a learned model, or load the weights of an earlier call."""
    from safetensors.torch import load_file

    from recsys.training.fit import WEIGHTS, FitPlan, fit

    if (directory / WEIGHTS).is_file():
        model.load_state_dict(load_file(directory / WEIGHTS))
        model.eval()
        return
    plan = FitPlan(
        training=settings.training,
        evaluation=config.evaluation,
        data=data,
        validation=validation,
        directory=directory,
        seed=config.seed,
        on_epoch=lambda row: print(directory.name, row, file=sys.stderr, flush=True),
    )
    fit(model, plan)


def called(key: tuple[str, int | None]) -> str:
    """Return a metric's name with its cut-off."""
    return f"{key[0]}@{key[1]}" if key[1] else key[0]


if __name__ == "__main__":
    main()
