"""How equal the comparison of UniRec is: what the README says of the search and of the epochs is stored."""

from __future__ import annotations

import json
from typing import Any

import pytest
from stated import RESULTS, ROOT, SETS, by_set, check, percent, statement
from unirec_results import AS_SEARCHED, against, of_one_seed

from recsys.config import load_config, load_study_config, setting_of

SEARCHED = load_study_config(ROOT / "configs" / "unirec_searched.yaml")


@pytest.mark.parametrize("name", SEARCHED.sets)
def test_searched_settings_are_those_that_the_search_found(name: str) -> None:
    config = load_config(ROOT / SEARCHED.sets[name])
    found = json.loads((RESULTS / "unirec" / "search" / f"{name}.json").read_text("utf-8"))
    assert config.tune is not None
    for model in (name for name in SEARCHED.models if name.endswith("_searched")):
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


def validated(name: str, model: str) -> float:
    """Return a model's best NDCG@10 on validation, the mean over the three seeds."""
    cells = RESULTS / "unirec" / "cells" / name
    where = model if (cells / model).is_dir() else model.removesuffix("_searched")  # equal settings
    found = [json.loads((cells / where / f"{s}.json").read_text("utf-8")) for s in range(3)]
    return float(sum(cell["training"]["best_validation_ndcg@10"] for cell in found)) / 3


def test_what_the_search_found() -> None:
    told = by_set(statement(r"for SASRec and for UniRec: (.*?)\. On the test"))
    assert set(told) == set(SETS.values())
    epochs = {}
    for name, texts in told.items():
        file = RESULTS / "unirec" / "search" / f"{name}.json"
        models = json.loads(file.read_text("utf-8"))["models"]
        for text, model in zip(texts, ("sasrec", "unirec"), strict=True):
            found = models[model]
            check(text, 100 * (validated(name, f"{model}_searched") / validated(name, model) - 1))
            assert len(found["trials"]) == found["budget"]["trials"] == 8
            assert {"seed", "command", "versions", "machine"} <= found.keys()
            epochs[name, model] = [trial["epochs"] for trial in found["trials"]]
    assert min(min(some) for some in epochs.values()) == 3
    for name, label in {"movielens": "MovieLens", "online_retail": "Online Retail"}.items():
        pair = statement(rf"{label}: (\d+ and \d+)")
        check(pair, *(sum(epochs[name, model]) for model in ("sasrec", "unirec")))


def test_what_the_search_is_worth_on_the_test() -> None:
    changed = {
        (model, name): row
        for model in ("sasrec", "unirec")
        for name, row in against(model, f"{model}_searched").items()
    }
    assert all(row["seeds"] == [0, 1, 2] for row in changed.values())
    helped = {
        r"helps SASRec on 30Music \((\S+ % \[.*?\])\)": changed.pop(("sasrec", "30music")),
        r"and UniRec on Toys \((\S+ % \[.*?\]);": changed.pop(("unirec", "toys")),
    }
    for pattern, row in helped.items():
        check(statement(pattern), *percent(row))
        assert row["low"] > 0 and row["p_holm"] <= float(statement(r"Holm p at most (\S+)\),"))
    nothing = changed["unirec", "online_retail"]
    told = statement(r"UniRec on Online Retail (\S+ % \[.*?\], Holm p = \S+)\)\.")
    check(told, *percent(nothing), nothing["p_holm"])
    assert min(row["p_holm"] for row in changed.values()) > 0.05


def test_what_more_epochs_are_worth() -> None:
    for model in ("sasrec_searched", "unirec_searched"):
        assert against(model, model.replace("searched", "longer"))["beauty"]["difference"] == 0
    searched = {row["set"]: row for row in AS_SEARCHED["by_set"]["unirec_searched"]}
    sasrec = {"30Music": "sasrec_searched", "Toys": "sasrec"}  # on Toys that is what was found
    for label, base in sasrec.items():
        name, row = SETS[label], against("sasrec_longer", "unirec_longer")[SETS[label]]
        told = statement(rf"on {label} (SASRec has .*? there and not \S+ %)")
        pairs, gain = told.split(", and the gain is ")
        models = ("sasrec_longer", base, "unirec_longer", "unirec_searched")
        check(pairs, *(of_one_seed(name, model) for model in models))
        before = 100 * searched[name]["by_seed"][0] / of_one_seed(name, base)
        check(gain, *percent(row), before)
