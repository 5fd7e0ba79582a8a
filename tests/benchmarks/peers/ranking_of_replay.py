"""RePlay's side of the evaluation benchmark: its filter of seen items, torch's top-k, its metrics.

The lists are made as its `TopItemsCallback` makes them, block by block, and collected as a Polars
frame; the metrics are those of `OfflineMetrics`. The variant `builder` takes `TorchMetricsBuilder`
instead, which is faster, has seven metrics and keeps no rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import polars as pl
import torch
from ranking_side import HISTORY, KS, Clock, Problem, Settings, make_problem, read_settings, run
from replay import metrics as m
from replay.metrics.torch_metrics_builder import TorchMetricsBuilder
from replay.nn.lightning.postprocessor import SeenItemsFilter

BLOCK = 256
NAMES = {
    "hr": m.HitRate,
    "recall": m.Recall,
    "ndcg": m.NDCG,
    "mrr": m.MRR,
    "map": m.MAP,
    "precision": m.Precision,
    "coverage_of_training": m.Coverage,
    "replay_novelty": m.Novelty,
    "surprisal": m.Surprisal,
    "rocauc": m.RocAuc,
}


def main() -> None:
    """Rank all targets, derive the metrics at four cut-offs, report."""
    warnings.filterwarnings("ignore")
    settings = read_settings()
    torch.set_num_threads(settings.threads)
    problem = make_problem(settings)
    by_variant = {"": offline, "builder": builder}
    evaluate = by_variant[settings.variant]
    packages = ("replay-rec", "torch", "numpy", "polars")
    run(lambda clock: evaluate(problem, settings, clock), settings.users, packages)


@torch.no_grad()
def lists(
    problem: Problem, settings: Settings
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Yield `(users, items, scores)` of the best 100 of every block; items count from 0 here."""
    table = torch.from_numpy(problem.table[1:])
    seen = torch.from_numpy(problem.histories.astype(np.int64) - 1)
    hide = SeenItemsFilter(settings.items, "seen")
    for at in range(0, settings.users, BLOCK):
        part = slice(at, min(at + BLOCK, settings.users))
        logits = table[seen[part, -1]] @ table.T
        scores, items = hide.on_prediction({"seen": seen[part]}, logits).topk(max(KS), dim=1)
        yield part, items, scores


def offline(problem: Problem, settings: Settings, clock: Clock) -> dict[str, float]:
    """Return the metrics of `OfflineMetrics` over frames."""
    found = list(lists(problem, settings))
    user = np.repeat(np.arange(settings.users), max(KS))
    frame = pl.DataFrame(
        {
            "query_id": user,
            "item_id": torch.cat([items for _, items, _ in found]).flatten().numpy() + 1,
            "rating": torch.cat([scores for _, _, scores in found]).flatten().numpy(),
        }
    )
    clock.mark("ranking")
    kept = np.flatnonzero(problem.unseen)
    truth = pl.DataFrame({"query_id": kept, "item_id": problem.targets[kept].astype(np.int64)})
    past = pl.DataFrame(
        {
            "query_id": np.repeat(np.arange(settings.users), HISTORY),
            "item_id": problem.histories.ravel().astype(np.int64),
        }
    )
    frame = frame.filter(pl.col("query_id").is_in(kept))
    values = m.OfflineMetrics([metric(list(KS)) for metric in NAMES.values()])(frame, truth, past)
    names = {metric.__name__: name for name, metric in NAMES.items()}
    clock.mark("metrics")
    return {f"{names[key.split('@')[0]]}@{key.split('@')[1]}": v for key, v in values.items()}


def builder(problem: Problem, settings: Settings, clock: Clock) -> dict[str, float]:
    """Return the metrics of `TorchMetricsBuilder`, fed block by block."""
    asked = ["recall", "precision", "ndcg", "map", "mrr", "novelty", "coverage"]
    measure = TorchMetricsBuilder(asked, top_k=list(KS), item_count=settings.items)
    measure.reset()
    unseen = torch.from_numpy(problem.unseen)
    targets = torch.from_numpy(problem.targets.astype(np.int64) - 1)[:, None]
    seen = torch.from_numpy(problem.histories.astype(np.int64) - 1)
    for part, items, _ in lists(problem, settings):
        kept = unseen[part]
        measure.add_prediction(items[kept], targets[part][kept], seen[part][kept])
    values = dict(measure.get_metrics())
    clock.mark("ranking_and_metrics")
    own = {"coverage": "coverage_of_training", "novelty": "replay_novelty"}
    return {
        f"{own.get(name, name)}@{k}": float(value)
        for key, value in values.items()
        for name, k in [key.split("@")]
    }


if __name__ == "__main__":
    main()
