from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from recsys.evaluation.evaluate import MetricRow
from recsys.evaluation.page import Cell, table
from recsys.evaluation.report import write_report


class Checker(HTMLParser):
    """Collects text and makes sure that every tag is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass  # closed by itself

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def row(
    model: str, metric: str, k: int | None, value: float | None, part: str = "all"
) -> MetricRow:
    ends = (None, None) if value is None else (value - 0.01, value + 0.02)
    return MetricRow(
        dataset="shop",
        split="test",
        model=model,
        metric=metric,
        k=k,
        slice=part,
        value=value,
        low=ends[0],
        high=ends[1],
        users=123,
    )


ROWS = [
    *(row(m, "ndcg", k, v) for m, v in (("pop", 0.1), ("sas<rec>", 0.25)) for k in (5, 10)),
    *(row(m, "hr", 10, v) for m, v in (("pop", 0.2), ("sas<rec>", 0.4))),
    *(row(m, "gini", 10, v) for m, v in (("pop", 0.99), ("sas<rec>", 0.5))),
    *(row(m, "ild", 10, None) for m in ("pop", "sas<rec>")),
    *(row(m, "mrr", None, 0.3) for m in ("pop", "sas<rec>")),
    *(row(m, "r_precision", None, v) for m, v in (("pop", 0.0321), ("sas<rec>", 0.0456))),
    *(row(m, "ndcg", 10, 0.05, "item cold") for m in ("pop", "sas<rec>")),
]
COMPARISON = {
    "split": "test",
    "metric": "ndcg",
    "k": 10,
    "model_a": "pop",
    "model_b": "sas<rec>",
    "difference": -0.15,
    "low": -0.2,
    "high": -0.1,
    "p": 0.00005,
    "p_holm": 0.0123,
    "users": 123,
}


@pytest.fixture
def document(tmp_path: Path) -> str:
    path = tmp_path / "report.html"
    about = {"date": "2024-02-29", "exclusion": "all seen items are excluded"}
    leakage = {"main": {"newest_training": 17, "test": {"unseen_items": 4}}}
    training = [{"model": "sas<rec>", "epochs": "17", "training": "61.5 s", "padding": "2.4%"}]
    write_report(path, "shop & co", about, ROWS, [COMPARISON], leakage, training)
    return path.read_text(encoding="utf-8")


def test_document_is_well_formed_and_needs_nothing_else(document: str) -> None:
    checker = Checker()
    checker.feed(document)
    assert checker.open == []
    assert not re.search(r"(?:src|href)=|url\(|@import|<script", document)
    assert "prefers-color-scheme: dark" in document


def test_text_is_escaped(document: str) -> None:
    assert "shop &amp; co" in document
    assert "sas<rec>" not in document


def test_document_says_what_it_stands_on(document: str) -> None:
    checker = Checker()
    checker.feed(document)
    text = "\n".join(checker.text)
    for expected in (
        *("2024-02-29", "all seen items are excluded", "shop: test", "123", "NDCG@10", "HR@10"),
        *("0.2500", "0.2400 to 0.2700", "item cold", "-0.1500", "-0.2000 to -0.1000"),
        *("5.0e-05", "0.0123", "Leakage: main", "newest training", "test: unseen items", "n/a"),
    ):
        assert expected in text, expected


def tables(document: str) -> dict[str, list[list[str]]]:
    """Return the cells of every table under its caption, a list a row, the header first."""
    found = {}
    for part in re.findall(r"<table>(.*?)</table>", document, re.DOTALL):
        [caption] = re.findall(r"<caption>(.*?)</caption>", part)
        rows = re.findall(r"<tr>(.*?)</tr>", part)
        found[caption] = [
            [re.sub("<.*?>", " ", cell).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
            for row in rows
        ]
    return found


def test_all_cut_offs_show_each_metric_at_the_ones_it_has(document: str) -> None:
    rest = "; below each value its interval; the best is marked"
    found = tables(document)
    assert found[f"R-precision{rest}"] == [
        ["model", "R-precision", "users"],
        ["pop", "0.0321 0.0221 to 0.0521", "123"],
        ["sas&lt;rec&gt;", "0.0456 0.0356 to 0.0656", "123"],
    ]
    assert found[f"NDCG{rest}"][0] == ["model", "NDCG@5", "NDCG@10", "users"]
    assert found[f"HR{rest}"][0] == ["model", "HR@10", "users"]
    cells = {cell for caption in found if rest in caption for row in found[caption] for cell in row}
    assert "" not in cells and "0" not in cells


def test_trainings_are_shown(document: str, tmp_path: Path) -> None:
    [shown] = [rows for caption, rows in tables(document).items() if "Learned" in caption]
    assert shown == [
        ["model", "epochs", "training", "padding"],
        ["sas&lt;rec&gt;", "17", "61.5 s", "2.4%"],
    ]
    write_report(tmp_path / "counted.html", "x", {}, ROWS, [])
    assert "Training" not in (tmp_path / "counted.html").read_text(encoding="utf-8")


def test_best_is_marked_and_for_gini_the_lowest(document: str) -> None:
    assert '<td class="best">0.2500' in document
    assert '<td class="best">0.5000' in document
    assert '<td class="best">0.9900' not in document


def test_folds_do_not_mix(tmp_path: Path) -> None:
    other = [MetricRow(**{**r, "dataset": "shop/fold1", "value": 0.7777}) for r in ROWS]  # type: ignore[typeddict-item]
    path = tmp_path / "report.html"
    compared = [{**COMPARISON, "dataset": "shop"}]
    write_report(path, "folds", {}, [*ROWS, *other], compared)
    first, second = path.read_text(encoding="utf-8").split("<h2>shop/fold1: test</h2>")
    assert "0.7777" not in first
    assert "0.7777" in second
    assert "-0.1500" in first
    assert "-0.1500" not in second


def test_table_escapes_its_cells() -> None:
    assert "&lt;b&gt;" in table("c", ["h"], [[Cell("<b>")]])
