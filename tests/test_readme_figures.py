"""Figures in the README are those that are stored."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "tests" / "benchmarks" / "results"
NUMBER = re.compile(r"[-+]?\d*\.?\d+")
SETS = {
    "30Music": "30music",
    "Online Retail": "online_retail",
    "Beauty": "beauty",
    "Toys": "toys",
    "MovieLens, last rating": "movielens",
}
UNIREC = json.loads((RESULTS / "unirec" / "summary.json").read_text(encoding="utf-8"))


def table(heading: str) -> dict[str, list[str]]:
    """Return the cells of the table with this header line, by the first cell of each row."""
    lines = README[README.index(heading) :].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]
    return {first: rest for first, *rest in rows}


def check(text: str, *values: float) -> None:
    """Compare the numbers of a text with values, each as exactly as it is written."""
    found = NUMBER.findall(text.replace("−", "-"))
    assert len(found) == len(values), (text, values)
    for number, value in zip(found, values, strict=True):
        decimals = len(number.partition(".")[2])
        assert abs(float(number) - value) <= 0.5 * 10**-decimals + 1e-9, (text, values)


def percent(row: dict[str, Any]) -> list[float]:
    return [100 * row[name] for name in ("gain", "low", "high")]


@pytest.mark.parametrize("name", SETS)
def test_unirec_against_sasrec(name: str) -> None:
    shown = table("| | SASRec | UniRec | gain | most irregular fifth | rarest third |")
    assert list(shown) == list(SETS)
    [row] = [row for row in UNIREC["by_set"]["unirec"] if row["set"] == SETS[name]]
    base, model, gain, *slices = shown[name]
    check(base, row["baseline"])
    check(model, row["value"])
    check(gain, *percent(row))
    for text, part in zip(slices, ("uniformity 5/5", "frequency 1/3"), strict=True):
        check(text, *percent(row["slices"][part]))


def test_unirec_pooled() -> None:
    found = re.search(r"Pooled over the five (\S+ % \[.*?\])", README)
    assert found
    check(found[1], *percent(UNIREC["pooled"]["unirec"]))


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
