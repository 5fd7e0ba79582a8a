"""What parts of UniRec find on logs with a planted truth: figures in the README are those that are stored."""

from __future__ import annotations

import json
import re

from stated import README, RESULTS, check, statement


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
    back = statement(
        r"the paper's form (\S+ %, ours at a weight of 1 instead of 0\.1 \S+ %), at 0\.1 nothing"
    )
    paper, ours = (
        by_name["returns", form, part]["relative_gain"]
        for form, part in (
            ("published", "global term"),
            ("compact, no other times", "global term, weight 1"),
        )
    )
    check(back, 100 * paper[0], 1, 0.1, 100 * ours[0])
    assert min(paper[1], ours[1]) > 0 and max(paper[0], ours[0]) < 0.1
    low, high = by_name["returns", "compact", "global term"]["relative_gain"][1:]
    assert low < 0 < high
