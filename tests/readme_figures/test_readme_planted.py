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
        r"the paper's form (\S+ %, ours without times \S+ %, or \S+ % at a weight of 1 instead of 0\.1)"
    )
    gains = [
        by_name["returns", form, part]["relative_gain"]
        for form, part in (
            ("published", "global term"),
            ("compact, no other times", "global term"),
            ("compact, no other times", "global term, weight 1"),
        )
    ]
    check(back, *(100 * gain for gain, _, _ in gains), 1, 0.1)
    assert all(low > 0 and gain < 0.1 for gain, low, _ in gains)
    low, high = by_name["returns", "compact", "global term"]["relative_gain"][1:]
    assert low < 0 < high  # with times
    without = statement(r"nothing in the paper's, which has (\S+) without it")
    check(without, by_name["rare", "published", "inject_tail inputs"]["without"])
