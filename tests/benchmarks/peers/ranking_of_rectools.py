"""RecTools' side of the evaluation benchmark; the variant names its ranker, `torch` or `implicit`."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch
from ranking_side import HISTORY, KS, Clock, Problem, Settings, make_problem, read_settings, run
from rectools import metrics as m
from rectools.models.rank import Distance, ImplicitRanker, TorchRanker
from scipy import sparse


def main() -> None:
    """Rank all targets, derive nine metrics at four cut-offs, report."""
    warnings.filterwarnings("ignore")
    settings = read_settings()
    torch.set_num_threads(settings.threads)
    problem = make_problem(settings)
    users = np.arange(settings.users)
    rows = np.repeat(users, HISTORY)
    past = pd.DataFrame({"user_id": rows, "item_id": problem.histories.ravel(), "weight": 1})
    held_out = pd.DataFrame({"user_id": users, "item_id": problem.targets, "weight": 1})
    held_out = held_out[problem.unseen]
    ones = np.ones(rows.size, np.float32)
    shape = (settings.users, settings.items + 1)
    seen = sparse.csr_matrix((ones, (rows, problem.histories.ravel())), shape)
    catalogue, asked = np.arange(1, settings.items + 1), make_metrics()

    def evaluate(clock: Clock) -> dict[str, float]:
        ranker = make_ranker(problem, settings)
        user, item, score = ranker.rank(
            users, max(KS), filter_pairs_csr=seen, sorted_object_whitelist=catalogue
        )
        clock.mark("ranking")
        lists = pd.DataFrame({"user_id": user, "item_id": item, "score": score})
        lists["rank"] = lists.groupby("user_id", sort=False).cumcount() + 1
        lists = lists[lists["user_id"].isin(held_out["user_id"])]
        values: dict[str, float] = m.calc_metrics(asked, lists, held_out, past, catalogue)
        clock.mark("metrics")
        return values

    run(evaluate, settings.users, ("rectools", "torch", "numpy", "pandas"))


def make_ranker(problem: Problem, settings: Settings) -> Any:
    """Return the ranker of the variant."""
    queries = problem.table[problem.histories[:, -1]]
    if settings.variant == "torch":
        return TorchRanker(Distance.DOT, "cpu", queries, problem.table)
    return ImplicitRanker(Distance.DOT, queries, problem.table, num_threads=settings.threads)


def make_metrics() -> dict[str, Any]:
    """Return its metrics at all cut-offs."""
    asked = {}
    for k in KS:
        asked |= {
            f"hr@{k}": m.HitRate(k),
            f"recall@{k}": m.Recall(k),
            f"ndcg@{k}": m.NDCG(k, divide_by_achievable=True),
            f"mrr@{k}": m.MRR(k),
            f"map@{k}": m.MAP(k),
            f"precision@{k}": m.Precision(k),
            f"coverage@{k}": m.CatalogCoverage(k, normalize=True),
            f"inverse_user_frequency@{k}": m.MeanInvUserFreq(k),
            f"popularity@{k}": m.AvgRecPopularity(k),
        }
    return asked


if __name__ == "__main__":
    main()
