"""Figures in the README are those that are stored."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.config import load_config, load_study_config, setting_of
from recsys.evaluation.significance import holm

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
UNIREC, AS_SEARCHED, EARLIER = (
    json.loads((RESULTS / "unirec" / name).read_text(encoding="utf-8"))
    for name in ("summary.json", "searched.json", "earlier.json")
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
    "UniRec": "unirec",
    "its votes alone (`neighbour_votes`)": "neighbour_votes",
    "transitions over a reach (`markov_far`)": "markov_far",
    "transitions to the next (`markov`)": "markov",
    "the paper's form": "unirec_published",
    "its ancestor MOJITO": "ancestor",
    "TiSASRec": "tisasrec",
    "Pop": "pop",
}
PARTS = {
    "without votes": "unirec_no_votes",
    "votes read no times": "unirec_votes_without_times",
    "without the interval branch": "unirec_no_interval",
    "nothing reads times": "unirec_without_times",
    "with the calendar": "unirec_calendar",
    "with attention by time": "unirec_time_bias",
    "with uniformity": "unirec_uniformity",
    "with rare items made of neighbours (`inject_tail`)": "unirec_injection",
    "with the item enhancement": "unirec_item_enhancement",
    "with the sequence enhancement": "unirec_sequence_enhancement",
    "with the global term": "unirec_global_term",
}
OF_THE_PAPER = {
    "without the interval branch": "published_no_interval",
    "without the calendar": "published_no_calendar",
    "without the sequence enhancement": "published_no_sequence_enhancement",
    "without the item enhancement": "published_no_item_enhancement",
    "without the global term": "published_no_global_term",
}


def of_one_seed(name: str, model: str, seed: int = 0) -> float:
    path = RESULTS / "unirec" / "cells" / name / model / f"{seed}.json"
    return float(json.loads(path.read_text("utf-8"))["metrics"]["ndcg@10"][0])


def check_rows(
    heading: str, found: dict[str, Any], earlier: dict[str, Any], labels: dict[str, str], seeds: int
) -> None:
    """Compare a table's rows, a model each and a set a column, with the stored comparisons.

    A figure of fewer seeds than the table's has their number in brackets behind it, one of the earlier
    summary a dagger: where there is none of now.
    """
    shown, head = table(heading), README[README.index(heading) :].splitlines()[0]
    sets = [
        SETS.get(c.strip(), "movielens") for c in head.removeprefix(heading).strip("| ").split("|")
    ]
    assert set(shown) == {n for n, model in labels.items() if model in found or model in earlier}
    for label, texts in shown.items():
        model = labels[label]
        rows = {row["set"]: ("†", row) for row in earlier.get(model, [])}
        rows |= {row["set"]: ("", row) for row in found.get(model, [])}
        assert {name for name, text in zip(sets, texts, strict=True) if text} == set(rows)
        for name, text in zip(sets, texts, strict=True):
            if text:
                mark, row = rows[name]
                few = "" if len(row["seeds"]) == seeds else f" ({len(row['seeds'])})"
                assert text.endswith(f"]{few}{mark}"), (label, name, few, mark)
                check(text.removesuffix(f"{few}{mark}"), *percent(row))


def test_other_models_against_sasrec() -> None:
    heading = "| gain over SASRec, three seeds |"
    check_rows(heading, UNIREC["by_set"], EARLIER["by_set"], OTHERS, 3)


@pytest.mark.parametrize(
    ("heading", "whole", "labels"),
    [
        ("| change of UniRec, one seed |", "unirec", PARTS),
        ("| change of the paper's form, one seed |", "unirec_published", OF_THE_PAPER),
    ],
)
def test_what_each_part_is_worth(heading: str, whole: str, labels: dict[str, str]) -> None:
    found, earlier = (some["against"][whole]["by_set"] for some in (UNIREC, EARLIER))
    check_rows(heading, found, earlier, labels, 1)


def known_parts(whole: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the stored rows of a model less or with a part, by set and model; of now before earlier ones."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for summary in (EARLIER, UNIREC):
        for model, rows in summary["against"][whole]["by_set"].items():
            found |= {(row["set"], model): dict(row) for row in rows}
    for row, corrected in zip(
        found.values(), holm(np.array([r["p"] for r in found.values()])), strict=True
    ):
        row["p_holm"] = corrected
    return found


def test_what_the_gain_is_made_of() -> None:
    of_sets = {r["set"]: r for r in UNIREC["against"]["sasrec"]["by_set"]["unirec_no_votes"]}
    told = statement(
        r"On 30Music no votes leave (\S+ % \[.*?\] over SASRec, on Beauty \S+ % \[.*?\]):"
    )
    check(told.replace("over", ""), *percent(of_sets["30music"]), *percent(of_sets["beauty"]))
    parts = known_parts("unirec")
    shown = {name for name, row in parts.items() if row["p_holm"] < 0.05}
    assert shown == {
        ("beauty", "unirec_no_votes"),
        ("beauty", "unirec_sequence_enhancement"),
        *(("30music", f"unirec_{part}") for part in ("no_votes", "injection", "global_term")),
    }
    most = statement(r"\(p by Holm over all rows at most (\S+)\);")
    assert max(parts[name]["p_holm"] for name in shown) <= float(most)
    least = statement(r"to do anything by itself \(p at least (\S+)\)\.")
    assert min(row["p_holm"] for name, row in parts.items() if name not in shown) >= float(least)
    seeds = statement(r"lowest of its three there \((\S+ \S+ \S+)\)")
    values = [of_one_seed("beauty", "unirec", seed) for seed in range(3)]
    check(seeds.replace(",", ""), *values)
    assert values[0] == min(values)


def test_what_was_left_out_of_the_compared_form() -> None:
    told = statement(r"neighbours would add (\S+ \S+ and \S+) % on validation")
    parts = ("calendar", "global_term", "injection")
    cells = [
        json.loads((RESULTS / "unirec" / "cells" / "30music" / m / "0.json").read_text("utf-8"))
        for m in ("unirec", *(f"unirec_{part}" for part in parts))
    ]
    whole, *others = (cell["training"]["best_validation_ndcg@10"] for cell in cells)
    check(told.replace(",", ""), *(100 * (other / whole - 1) for other in others))


def test_what_counts_alone_can_do() -> None:
    over = {row["set"]: row for row in against_rows("neighbour_votes")}
    told = by_set(statement(r"\(`kind: neighbour_votes`, nothing learned\) it gains (.*?); pooled"))
    assert set(told) == set(SETS.values())
    for name, texts in told.items():
        check(" ".join(texts), *percent(over[name]))
        assert over[name]["seeds"] == [0, 1, 2]
        assert (over[name]["p_holm"] < 0.01) == (name != "online_retail")
    pooled = AS_SEARCHED["against"]["neighbour_votes"]["pooled"]["unirec_searched"]
    check(statement(r"\(-2\.4 % .*?\); pooled (\S+ % \[.*?\])\."), *percent(pooled))
    [retail] = [row for row in against_rows("markov_far") if row["set"] == "online_retail"]
    below = statement(r"UniRec is (\S+ % \[.*?\]) below them")
    check(below, *(-x for x in (percent(retail)[0], *percent(retail)[:0:-1])))
    check(statement(r"below them \(Holm p = (\S+)\)\."), retail["p_holm"])


def against_rows(whole: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = AS_SEARCHED["against"][whole]["by_set"]["unirec_searched"]
    return rows


SEARCHED = load_study_config(ROOT / "configs" / "unirec_searched.yaml")


def test_what_the_papers_form_misses() -> None:
    found = {
        m: row["p_holm"]
        for (s, m), row in known_parts("unirec_published").items()
        if s == "30music"
    }
    told = statement(r"global term is missed (\(Holm p = \S+ no other part \(p at least \S+:)")
    missed, others = NUMBER.findall(told)
    check(missed, found.pop("published_no_global_term"))
    assert len(found) == 4 and min(found.values()) >= float(others)


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


def statement(pattern: str) -> str:
    """Return what the README says where it matches, lines joined; a space of the pattern is any space."""
    found = re.search(pattern.replace(" ", r"\s+"), README, re.DOTALL)
    assert found, pattern
    return " ".join(found[1].split())


def by_set(text: str) -> dict[str, list[str]]:
    """Return the numbers that follow each name of a set, by the key of the set."""
    names = {name.split(",")[0]: key for name, key in SETS.items()}
    parts = re.split(f"({'|'.join(names)})", text)[1:]
    return {names[n]: NUMBER.findall(t) for n, t in zip(parts[::2], parts[1::2], strict=True)}


def test_unirec_pooled() -> None:
    assert AS_SEARCHED["missing"] == []
    pooled = AS_SEARCHED["pooled"]["unirec_searched"]
    assert set(pooled["sets"]) == set(SETS.values())
    check(statement(r"Pooled over the five (\S+ % \[.*?\])"), *percent(pooled))
    rows = {row["set"]: row for row in AS_SEARCHED["by_set"]["unirec_searched"]}
    rest = [100 * row["gain"] for name, row in rows.items() if name != "movielens"]
    check(
        statement(r"without MovieLens, (671 users, \S+ %)"),
        rows["movielens"]["users"],
        sum(rest) / len(rest),
    )
    check(statement(r"Holm p = (\S+)\s+on every set"), max(row["p_holm"] for row in rows.values()))
    for name, label in {"movielens": "MovieLens", "online_retail": "Online Retail"}.items():
        gains = [
            100
            * (of_one_seed(name, "unirec_searched", seed) / of_one_seed(name, "sasrec", seed) - 1)
            for seed in range(3)
        ]
        check(statement(rf"differs:.*?(\S+ to \S+) % on {label}"), min(gains), max(gains))


def test_unirec_by_hand() -> None:
    rows = {row["set"]: row for row in UNIREC["by_set"]["unirec"]}
    assert all(row["seeds"] == [0, 1, 2] for row in rows.values())
    told = by_set(statement(r"before the search,.*? the gains are (.*?), pooled"))
    assert set(told) == set(rows)
    for name, [gain] in told.items():
        check(gain, 100 * rows[name]["gain"])
    check(
        statement(r"MovieLens \S+ %, pooled (\S+ % \[.*?\])\. Four"),
        *percent(UNIREC["pooled"]["unirec"]),
    )


def test_what_an_epoch_costs() -> None:
    times = json.loads((RESULTS / "unirec_cost.json").read_text("utf-8"))["times_sasrec"]
    told = statement(r"An epoch costs (.*?\))")
    words = r"(\S+) times .*30Music,.* form (\S+) times, .* neighbours (\S+) times"
    found = re.search(words, told)
    assert found
    check(
        " ".join(found.groups()),
        *(times[m] for m in ("unirec", "unirec_published", "unirec_injection")),
    )


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


def against(whole: str, model: str) -> dict[str, dict[str, Any]]:
    """Return the stored rows of a further comparison of the searched study, by set."""
    return {row["set"]: row for row in AS_SEARCHED["against"][whole]["by_set"][model]}


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


def slices_of(name: str) -> dict[str, dict[str, Any]]:
    [row] = [r for r in AS_SEARCHED["by_set"]["unirec_searched"] if r["set"] == name]
    found: dict[str, dict[str, Any]] = row["slices"]
    return found


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


def test_of_whom_the_models_know_more() -> None:
    ends, thirds = ("uniformity 1/5", "uniformity 5/5"), [f"frequency {i}/3" for i in (1, 2, 3)]
    told = statement(r"Regular histories are predicted better\*: (.*?)\. - \*Frequent")
    assert len(by_set(told)) == len(SETS)
    for name, texts in by_set(told).items():
        check(" ".join(texts[:2]), *(slices_of(name)[part]["baseline"] for part in ends))
    told = statement(r"Frequent items are predicted better\*: (.*?)\)\. - \*Gains")
    values = [float(text) for text in NUMBER.findall(told.replace("30Music", ""))]
    named = ("beauty", "toys", "movielens", "30music", "online_retail")
    expected = [slices_of(name)[part]["baseline"] for name in named for part in thirds]
    assert values == pytest.approx(expected, abs=0.00051)


def test_for_whom_the_gain_is_largest() -> None:
    for name in ("30music", "beauty", "toys"):
        rarest, *others = (slices_of(name)[f"frequency {i}/3"] for i in (1, 2, 3))
        assert all(rarest["low"] > other["high"] for other in others)
    retail = slices_of("online_retail")
    assert retail["frequency 1/3"]["high"] < 0
    check(statement(r"frequent ones gain most \((\S+) %\)"), 100 * retail["frequency 3/3"]["gain"])
    ends = ("uniformity 1/5", "uniformity 5/5")
    told = statement(r"irregular fifth (\S+ and \S+) %; in NDCG")
    check(told, *(100 * slices_of("30music")[part]["gain"] for part in ends))
    told = statement(r"in NDCG@10 (\S+ and \S+)\); on the other")
    check(told, *(slices_of("30music")[part]["difference"] for part in ends))
    assert slices_of("30music")[ends[0]]["high"] < slices_of("30music")[ends[1]]["low"]
    for name in ("online_retail", "beauty", "toys", "movielens"):
        first, last = (slices_of(name)[part] for part in ends)
        assert first["low"] < last["high"] and last["low"] < first["high"]


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
