"""Figures of items that training has not seen: those in the README are those that are stored."""

from __future__ import annotations

import json

import pytest
from stated import RESULTS, check, table

COLD = {
    "bag of tokens": "bag_of_tokens",
    "MiniLM's vectors": "minilm",
    "ItemKNN + texts": "item_knn_strong_text",
    "the same, new items inherit** (`text.inherit`)": "item_knn_inherits",
}


@pytest.mark.parametrize("name", COLD)
def test_items_that_training_has_not_seen(name: str) -> None:
    result = json.loads((RESULTS / "text_models" / "scientific_text_cold.json").read_text("utf-8"))
    shown = table("| | hidden, among all items | hidden, among hidden |")
    assert list(shown) == list(COLD)
    for text, part in zip(shown[name], result["parts"].values(), strict=True):
        mean, *interval = part[COLD[name]]["ndcg@10"]
        check(text, mean, *(interval if "[" in text else ()))
