from __future__ import annotations

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


def test_a_run_is_named_with_its_fold_where_there_are_several() -> None:
    assert shown_name("deep", "main") == "deep"
    assert shown_name("deep", "fold2") == "deep fold2"
