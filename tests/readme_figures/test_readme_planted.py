"""What parts of UniRec find on logs with a planted truth: figures in the README are those that are stored."""

from __future__ import annotations

import json

import numpy as np
from scipy.stats import ttest_rel
from stated import RESULTS, check, statement

ANSWERS = json.loads((RESULTS / "planted.json").read_text("utf-8"))["answers"]
BY_NAME = {(a["scenario"], a["form"], a["part"]): a for a in ANSWERS}
TIMELESS = "compact, no other times"


def test_planted_truths() -> None:
    null = [answer for answer in ANSWERS if answer["scenario"] == "null"]
    found = statement(r"Of (\d+ questions where nothing is planted \d+) find")
    check(found, len(null), sum(not answer["met"] for answer in null))
    for part, question in {
        "`inject_tail`": ("rare", "compact", "inject_tail inputs"),
        "`uniformity`": ("regularity", TIMELESS, "uniformity"),
        "`votes`": ("drift", TIMELESS, "votes"),
    }.items():
        answer = BY_NAME[question]
        stated = statement(rf"planted truth.*?\({part}, (.*?)[,)]")
        if "to" in stated:
            check(stated, answer["without"], answer["with"])
        else:
            check(stated, 100 * answer["relative_gain"][0])
        assert answer["met"]


def test_what_both_forms_find() -> None:
    told = statement(
        r"both forms find the gap (\(ours .*? to \.\d+) when the part learns the next item"
    )
    asked = ("gap", "interval"), ("calendar", "calendar")
    found = [BY_NAME[s, form, part] for s, part in asked for form in ("compact", "published")]
    ours, papers = (
        BY_NAME["thinned", form, "sequence enhancement"] for form in ("compact", "published")
    )
    other = BY_NAME["thinned", "published", "sequence enhancement, target"]
    assert all(answer["met"] for answer in (*found, ours, papers, other))
    ends = [x for answer in (ours, papers) for x in (answer["without"], answer["with"])]
    check(
        told.replace("one of three", ""),
        *(100 * answer["relative_gain"][0] for answer in found),
        *ends,
        other["with"],
    )
    with_part, without = papers["by_seed"]
    assert sum(x <= y for x, y in zip(with_part, without, strict=True)) == 1


def test_items_that_come_back() -> None:
    told = statement(r"needs a weight of 10 instead of 0\.1 (\(.*? instead of \S+ %)\.")
    forms = ("compact", TIMELESS, "published")
    little, much = (
        [BY_NAME["returns", form, f"global term{weight}"] for form in forms]
        for weight in ("", ", weight 10")
    )
    gains = [100 * answer["relative_gain"][0] for answer in (*much, *little)]
    check(told.replace("at 0.1", ""), gains[0], gains[1], gains[4], gains[2], gains[5])
    assert [answer["met"] for answer in much] == [True, True, False]
    low, high = little[0]["relative_gain"][1:]
    assert low < 0 < high  # nothing
    others = statement(r"first of three seeds; the others gain (\S+ %, without times \S+ %)")
    sums = [[sum(some[1:]) for some in answer["by_seed"]] for answer in much[:2]]
    check(others, *(100 * (having / lacking - 1) for having, lacking in sums))


def test_rare_items_by_neighbours_alone() -> None:
    [answer] = json.loads((RESULTS / "planted_items.json").read_text("utf-8"))["answers"]
    having, lacking = (np.array(some) for some in answer["by_seed"])
    assert len(having) == 11
    told = statement(r"not in every training: (\S+ against \S+) over eleven")
    check(told, answer["with"], answer["without"])
    more = statement(r"over eleven, more in (\d+) of them")
    check(more, int((having > lacking).sum()))
    p, without_first = (ttest_rel(having[i:], lacking[i:]).pvalue for i in (0, 1))
    check(statement(r"\(paired t (p = \S+) without the one").replace(";", ""), p)
    check(statement(r"weights were chosen on (p = \S+)\)\."), without_first)
    for form in ("compact", "published"):
        assert BY_NAME["rare", form, "item enhancement"]["met"] is False
    papers = statement(r"In the paper's form, which has (\S+) on these rare items")
    check(papers, BY_NAME["rare", "published", "inject_tail inputs"]["without"])
    harm = BY_NAME["rare", "published", "item enhancement, neighbours"]["relative_gain"]
    low, high = BY_NAME["rare", "published", "inject_tail inputs"]["relative_gain"][1:]
    assert harm[2] < 0 and low < 0 < high
