"""What UniRec's parts and the models beside are worth: the README's tables are those that are stored."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from stated import NUMBER, README, RESULTS, SETS, check, percent, statement, table
from unirec_results import EARLIER, UNIREC, of_one_seed

from recsys.evaluation.significance import holm

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


def test_what_the_papers_form_misses() -> None:
    parts = known_parts("unirec_published")
    told = {
        "30music": (
            r"global term is missed (\(Holm p = \S+ and the form is better without the interval branch "
            r"\(p = \S+ no other part shows \(p at least \S+)\. On Beauty",
            {"no_global_term": -1, "no_interval": 1},
        ),
        "beauty": (
            r"On Beauty it is better without the global term (\(p = \S+ .*? \(p at least \S+):",
            {"no_global_term": 1},
        ),
    }
    for name, (pattern, shown) in told.items():
        rows = {model: row for (where, model), row in parts.items() if where == name}
        *values, least = (float(n) for n in NUMBER.findall(statement(pattern)))
        for value, (part, sign) in zip(values, shown.items(), strict=True):
            row = rows.pop(f"published_{part}")
            assert sign * row["gain"] > 0 and row["p_holm"] < 0.05
            assert value == pytest.approx(
                row["p_holm"], abs=0.5 * 10 ** -(2 if value >= 0.01 else 4)
            )
        assert rows and min(row["p_holm"] for row in rows.values()) >= least


def test_what_models_beside_are_worth() -> None:
    told = statement(r"gains on 30Music and Toys (\(Holm p = .*? \[.*?\])")
    rows = {row["set"]: row for row in UNIREC["by_set"]["tisasrec"]}
    best = [rows.pop(name)["p_holm"] for name in ("30music", "toys")]
    pooled, paper = (UNIREC["pooled"][model] for model in ("tisasrec", "unirec_published"))
    check(told.replace("five", ""), max(best), *percent(pooled))
    assert min(row["p_holm"] for row in rows.values()) > 0.05
    loses = statement(r"the paper's form loses (\S+ % \[.*?\])")
    check(loses, *(-x for x in (percent(paper)[0], *percent(paper)[:0:-1])))
