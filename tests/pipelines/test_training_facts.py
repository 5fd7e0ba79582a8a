from __future__ import annotations

import pytest

from pipelines.training_facts import shown_name, training_facts

METRICS = {
    "train_seconds": 167.678,
    "validation_seconds": 62.136,
    "events_per_second": 9596.1,
    "padding_share": 0.02422,
    "best_epoch": 17.0,
}


def test_learned_models_have_a_row_and_counted_ones_none() -> None:
    counted = {"epochs": 0, "metrics": {"train_seconds": 0.2}}
    assert training_facts({"pop": counted, "deep": {"epochs": 20, "metrics": METRICS}}) == [
        {
            "model": "deep",
            "epochs": "20",
            "best epoch": "18",
            "training": "167.7 s",
            "validation": "62.1 s",
            "padding": "2.4%",
        }
    ]
    assert training_facts({}) == []


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("main/deep", "deep"),
        ("main/deep/refit", "deep (refit)"),
        ("fold2/deep", "deep fold2"),
        ("fold2/deep/refit", "deep fold2 (refit)"),
    ],
)
def test_a_run_is_named_by_model_fold_and_refit(title: str, shown: str) -> None:
    assert shown_name(title) == shown


def test_a_refit_has_no_best_epoch() -> None:
    metrics = {"train_seconds": 1.0, "validation_seconds": 0.0, "padding_share": 0.5}
    [row] = training_facts({"deep (refit)": {"epochs": 3, "metrics": metrics}})
    assert row["epochs"] == "3" and row["best epoch"] == "-"
