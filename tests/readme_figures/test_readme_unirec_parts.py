"""What UniRec's parts and the models beside are worth: the README's tables are those that are stored."""

from __future__ import annotations

import json
from typing import Any

import pytest
from stated import README, RESULTS, SETS, check, percent, statement, table
from unirec_results import UNIREC, of_one_seed

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
    "with the item enhancement by neighbours alone (`item_teacher`)": "unirec_item_neighbours",
    "with the sequence enhancement": "unirec_sequence_enhancement",
    "with the global term": "unirec_global_term",
    "with the global term at a weight of 1": "unirec_global_more",
}
OF_THE_PAPER = {
    "without the interval branch": "published_no_interval",
    "without the calendar": "published_no_calendar",
    "without the sequence enhancement": "published_no_sequence_enhancement",
    "without the item enhancement": "published_no_item_enhancement",
    "without the global term": "published_no_global_term",
}


def check_rows(heading: str, found: dict[str, Any], labels: dict[str, str], seeds: int) -> None:
    """Compare a table's rows, a model each and a set a column, with the stored comparisons.

    A figure of fewer seeds than the table's has their number in brackets behind it.
    """
    shown, head = table(heading), README[README.index(heading) :].splitlines()[0]
    sets = [
        SETS.get(c.strip(), "movielens") for c in head.removeprefix(heading).strip("| ").split("|")
    ]
    assert set(shown) == {label for label, model in labels.items() if model in found}
    for label, texts in shown.items():
        rows = {row["set"]: row for row in found[labels[label]]}
        assert {name for name, text in zip(sets, texts, strict=True) if text} == set(rows)
        for name, text in zip(sets, texts, strict=True):
            if text:
                few = "" if len(rows[name]["seeds"]) == seeds else f" ({len(rows[name]['seeds'])})"
                assert text.endswith(f"]{few}"), (label, name, few)
                check(text.removesuffix(few), *percent(rows[name]))


def test_other_models_against_sasrec() -> None:
    check_rows("| gain over SASRec, three seeds |", UNIREC["by_set"], OTHERS, 3)


@pytest.mark.parametrize(
    ("heading", "whole", "labels"),
    [
        ("| change of UniRec, one seed |", "unirec", PARTS),
        ("| change of the paper's form, one seed |", "unirec_published", OF_THE_PAPER),
    ],
)
def test_what_each_part_is_worth(heading: str, whole: str, labels: dict[str, str]) -> None:
    check_rows(heading, UNIREC["against"][whole]["by_set"], labels, 1)


def known_parts(whole: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the stored rows of a model less or with a part, by set and model."""
    by_model = UNIREC["against"][whole]["by_set"]
    return {(row["set"], model): row for model, rows in by_model.items() for row in rows}


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
        ("beauty", "unirec_item_neighbours"),
        *(("30music", f"unirec_{part}") for part in ("no_votes", "injection")),
        *(("30music", f"unirec_global_{part}") for part in ("term", "more")),
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
            r"On 30Music the global term is missed (\(Holm .*? \(p = \S+\))\. On Beauty",
            ("no_global_term", "no_interval", "no_item_enhancement", "no_sequence_enhancement"),
        ),
        "beauty": (
            r"On Beauty it is better without the global term (.*? \(p = \S+\)):",
            ("no_global_term", "no_sequence_enhancement", "no_item_enhancement"),
        ),
    }
    for name, (pattern, shown) in told.items():
        rows = {model: row for (where, model), row in parts.items() if where == name}
        found = [rows.pop(f"published_{part}") for part in shown]
        assert all(row["p_holm"] < 0.05 for row in found)
        assert {p for p, row in zip(shown, found, strict=True) if row["gain"] < 0} == (
            {"no_global_term"} if name == "30music" else set()
        )
        assert set(rows) <= {"published_no_calendar"}
        found += rows.values()
        check(statement(pattern), *(row["p_holm"] for row in found))
        assert all(row["p_holm"] > 0.05 for row in rows.values())


def test_what_models_beside_are_worth() -> None:
    told = statement(r"gains on 30Music and Toys (\(Holm p = .*? \[.*?\])")
    rows = {row["set"]: row for row in UNIREC["by_set"]["tisasrec"]}
    best = [rows.pop(name)["p_holm"] for name in ("30music", "toys")]
    pooled, paper = (UNIREC["pooled"][model] for model in ("tisasrec", "unirec_published"))
    check(told.replace("five", ""), max(best), *percent(pooled))
    assert min(row["p_holm"] for row in rows.values()) > 0.05
    loses = statement(r"the paper's form loses (\S+ % \[.*?\])")
    check(loses, *(-x for x in (percent(paper)[0], *percent(paper)[:0:-1])))
