"""Figures in the README are those that are stored."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from recsys.config import load_config, load_study_config, setting_of

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
UNIREC, AS_SEARCHED = (
    json.loads((RESULTS / "unirec" / name).read_text(encoding="utf-8"))
    for name in ("summary.json", "searched.json")
)


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
    shown = table(
        "| | SASRec | UniRec | gain | most regular fifth | most irregular fifth | rarest third |"
    )
    assert list(shown) == list(SETS)
    [row] = [r for r in AS_SEARCHED["by_set"]["unirec_searched"] if r["set"] == SETS[name]]
    assert row["seeds"] == [0, 1, 2] and all(gain > 0 for gain in row["by_seed"])
    base, model, gain, *slices = shown[name]
    check(base, row["baseline"])
    check(model, row["value"])
    check(gain, *percent(row))
    parts = ("uniformity 1/5", "uniformity 5/5", "frequency 1/3")
    for text, part in zip(slices, parts, strict=True):
        check(text, *percent(row["slices"][part]))


OTHERS = {
    "UniRec as searched": "unirec_searched",
    "SASRec as searched": "sasrec_searched",
    "votes read no times": "unirec_votes_without_times",
    "no interval branch": "unirec_no_interval",
    "nothing reads times": "unirec_without_times",
    "no votes": "unirec_no_votes",
    "with the calendar": "unirec_calendar",
    "with the global term": "unirec_global_term",
    "with attention by time": "unirec_time_bias",
    "with uniformity": "unirec_uniformity",
    "rare items made of neighbours": "unirec_injection",
    "with the item enhancement": "unirec_item_enhancement",
    "with the sequence enhancement": "unirec_sequence_enhancement",
    "the paper's form": "unirec_published",
    "the paper's form without interval": "published_no_interval",
    "… without calendar": "published_no_calendar",
    "… without sequence enhancement": "published_no_sequence_enhancement",
    "… without item enhancement": "published_no_item_enhancement",
    "… without global term": "published_no_global_term",
    "its ancestor MOJITO": "ancestor",
    "TiSASRec": "tisasrec",
    "Markov": "markov",
    "Pop": "pop",
}


def of_one_seed(name: str, model: str) -> float:
    path = RESULTS / "unirec" / "cells" / name / model / "0.json"
    return float(json.loads(path.read_text("utf-8"))["metrics"]["ndcg@10"][0])


def test_unirec_less_its_parts_and_other_models() -> None:
    start = "| gain over SASRec, one seed |"
    heading = README[README.index(start) :].splitlines()[0]
    shown, names = table(start), [cell.strip() for cell in heading.strip("|").split("|")][1:]
    sets = [SETS.get(name, "movielens") for name in names]
    for name, text in zip(sets, shown.pop("UniRec"), strict=True):
        check(text, 100 * (of_one_seed(name, "unirec") / of_one_seed(name, "sasrec") - 1))
    assert set(shown) <= set(OTHERS)
    for label, texts in shown.items():
        rows = {row["set"]: row for row in UNIREC["by_set"][OTHERS[label]]}
        assert {name for name, text in zip(sets, texts, strict=True) if text} == set(rows)
        for name, text in zip(sets, texts, strict=True):
            if text:
                assert rows[name]["seeds"] == [0]
                check(text, *percent(rows[name]))


SEARCHED = load_study_config(ROOT / "configs" / "unirec_searched.yaml")


@pytest.mark.parametrize("name", SEARCHED.sets)
def test_searched_settings_are_those_that_the_search_found(name: str) -> None:
    config = load_config(ROOT / SEARCHED.sets[name])
    found = json.loads((RESULTS / "unirec" / "search" / f"{name}.json").read_text("utf-8"))
    assert config.tune is not None
    for model in SEARCHED.models:
        settings = config.models[model]
        own = model.removesuffix("_searched")
        best = found["models"][own]["best"]
        searched = config.tune.space[own]
        assert {key: setting_of(settings, key) for key in searched} == {
            key: pytest.approx(best[key], rel=1e-3) for key in searched
        }
        # Nothing else differs from what is configured.
        assert settings_without(settings, searched) == settings_without(
            config.models[own], searched
        )


def settings_without(model: Any, keys: Any) -> dict[str, Any]:
    """Return the settings of a model but those of dotted keys."""
    settings: dict[str, Any] = model.model_dump(mode="json")
    for key in keys:
        *path, last = key.split(".")
        place = settings
        for part in path:
            place = place[part]
        del place[last]
    return settings


def test_planted_truths() -> None:
    answers = json.loads((RESULTS / "planted.json").read_text("utf-8"))["answers"]
    null = [answer for answer in answers if answer["scenario"] == "null"]
    found = re.search(r"Of (\d+)\s+questions where\s+nothing\s+is\s+planted\s+(\d+)\s+find", README)
    assert found
    check(" ".join(found.groups()), len(null), sum(not answer["met"] for answer in null))
    by_name = {(a["scenario"], a["form"], a["part"]): a for a in answers}
    for part, question in {
        "`inject_tail`": ("rare", "compact", "inject_tail inputs"),
        "`uniformity`": ("regularity", "compact, no other times", "uniformity"),
        "`votes`": ("drift", "compact, no other times", "votes"),
    }.items():
        answer = by_name[question]
        stated = re.search(rf"\({part},\s+(.*?)[,)]", README[README.index("planted truth") :])
        assert stated
        if "to" in stated[1]:
            check(stated[1], answer["without"], answer["with"])
        else:
            check(stated[1], 100 * answer["relative_gain"][0])


def test_unirec_pooled_and_by_hand() -> None:
    found = re.search(r"Pooled over the five (\S+ % \[.*?\]); Holm p = (\S+)", README)
    assert found
    check(found[1], *percent(AS_SEARCHED["pooled"]["unirec_searched"]))
    check(found[2], max(row["p_holm"] for row in AS_SEARCHED["by_set"]["unirec_searched"]))
    hand = re.search(r"before the search,[^:]*the\s+gains\s+are\s+([^:]*\])\.", README)
    assert hand
    by_set = {row["set"]: row for row in UNIREC["by_set"]["unirec"]}
    assert all(row["seeds"] == [0, 1, 2] for row in by_set.values())
    gains = [100 * by_set[name]["gain"] for name in SETS.values()]
    check(hand[1].replace("30Music", ""), *gains, *percent(UNIREC["pooled"]["unirec"]))


def test_what_the_search_found() -> None:
    stated = re.search(r"on\s+validation, for SASRec and for UniRec: ([^.]*(\.\d[^.]*)*)", README)
    assert stated
    found = []
    for name in SETS.values():
        result = json.loads((RESULTS / "unirec" / "search" / f"{name}.json").read_text("utf-8"))
        found += [100 * result["models"][model]["gain"] for model in ("sasrec", "unirec")]
    check(stated[1].replace("30Music", ""), *found)


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
