"""UniRec against SASRec and against counts: gains, whole and by slice, in the README are those stored."""

from __future__ import annotations

import json
import re

import pytest
from stated import NUMBER, RESULTS, SETS, by_set, check, percent, statement, table
from unirec_results import AS_SEARCHED, UNIREC, against, of_one_seed, slices_of


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


def test_what_counts_alone_can_do() -> None:
    over = against("neighbour_votes", "unirec_searched")
    told = by_set(statement(r"\(`kind: neighbour_votes`, nothing learned\) it gains (.*?); pooled"))
    assert set(told) == set(SETS.values())
    for name, texts in told.items():
        check(" ".join(texts), *percent(over[name]))
        assert over[name]["seeds"] == [0, 1, 2]
        assert (over[name]["p_holm"] < 0.01) == (name != "online_retail")
    pooled = AS_SEARCHED["against"]["neighbour_votes"]["pooled"]["unirec_searched"]
    check(statement(r"\(-2\.4 % .*?\); pooled (\S+ % \[.*?\])\."), *percent(pooled))
    retail = against("markov_far", "unirec_searched")["online_retail"]
    below = statement(r"UniRec is (\S+ % \[.*?\]) below them")
    check(below, *(-x for x in (percent(retail)[0], *percent(retail)[:0:-1])))
    check(statement(r"below them \(Holm p = (\S+)\)\."), retail["p_holm"])


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
