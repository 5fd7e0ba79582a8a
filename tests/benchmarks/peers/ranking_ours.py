"""Our side of the evaluation benchmark: full ranking and the metrics derived from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ranking_side import HISTORY, KS, Clock, Problem, Settings, make_problem, read_settings, run

from recsys.config import EvaluationConfig
from recsys.data.batches import SequenceBatch
from recsys.data.sequences import SequenceStore, Split, Targets
from recsys.evaluation.beyond import coverage, gini, list_counts
from recsys.evaluation.evaluate import Ground, target_values
from recsys.evaluation.intervals import mean_over_users, user_means
from recsys.evaluation.ranking import rank_targets
from recsys.models.contract import EncoderModel


class Newest(EncoderModel):
    """The query is the vector of the newest item."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__(len(table) - 1, table.shape[1])
        self.max_length = HISTORY
        self.register_buffer("table", table)

    def hidden(self, batch: SequenceBatch) -> Any:
        return self.table[batch.items]

    def encode_items(self, items: torch.Tensor | None = None) -> Any:
        return self.table if items is None else self.table[items]


def main() -> None:
    """Rank all targets, derive 10 metrics at four cut-offs, report."""
    settings = read_settings()
    torch.set_num_threads(settings.threads)
    problem = make_problem(settings)
    ground, targets = make_ground(problem, settings)
    model = Newest(torch.from_numpy(problem.table))

    def evaluate(clock: Clock) -> dict[str, float]:
        ranked = rank_targets(model, ground.store, targets, ground.config)
        clock.mark("ranking")
        keys, values = target_values(ranked, ground)
        means = mean_over_users(user_means(values, ranked.user)[1])
        metrics = {f"{name}@{k}": float(mean) for (name, k), mean in zip(keys, means, strict=True)}
        for k in KS:
            listed = list_counts(ranked.top, k, settings.items)
            metrics |= {f"coverage@{k}": coverage(listed), f"gini@{k}": gini(listed)}
        clock.mark("metrics")
        return metrics

    run(evaluate, settings.users, ("torch", "numpy"))


def make_ground(problem: Problem, settings: Settings) -> tuple[Ground, Targets]:
    """Return the problem as a store of sequences and its targets."""
    users = settings.users
    events = np.concatenate([problem.histories, problem.targets[:, None]], axis=1)
    offsets = np.arange(users + 1, dtype=np.int64) * (HISTORY + 1)
    targets = Targets(np.arange(users, dtype=np.int32), offsets[1:] - 1, offsets[1:])
    ground = Ground(
        dataset="benchmark",
        store=SequenceStore(events.ravel(), offsets, settings.items),
        split=Split(offsets[1:] - 1, targets, targets),
        split_name="test",
        config=EvaluationConfig(ks=list(KS), list_length=max(KS)),
        item_counts=np.bincount(problem.histories.ravel(), minlength=settings.items + 1),
        item_vectors=problem.table,
        seed=settings.seed,
    )
    return ground, targets


if __name__ == "__main__":
    main()
