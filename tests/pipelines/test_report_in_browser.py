"""The report of an evaluation, as a browser shows it."""

from __future__ import annotations

import json
import re
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from pipelines.evaluate import evaluate
from recsys.config import ExperimentConfig

PROBE = (
    "<script>addEventListener('load', () => document.documentElement.dataset.asked ="
    " performance.getEntriesByType('resource').map(one => one.name).join(' '))</script>"
)
"""Appended to a copy of a page: notes all that the page asked for, whether or not it was answered."""


def opened(page: Path, folder: Path) -> tuple[str, list[str]]:
    """Return `(the document, the addresses it asked for)` after Chromium has opened it offline."""
    copy = folder / f"probed-{page.name}"
    copy.write_text(page.read_text(encoding="utf-8") + PROBE, encoding="utf-8")
    done = subprocess.run(
        [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND"),
            *(f"--user-data-dir={folder / 'profile'}", "--dump-dom", copy.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    [asked] = re.findall(r'<html[^>]* data-asked="(.*?)"', done.stdout)
    return done.stdout, unescape(asked).split()


def table_under(document: str, caption: str) -> list[list[str]]:
    """Return the cells of the first table whose caption begins so, the header's row first."""
    start = document.index(f"<caption>{caption}")
    rows = re.findall(r"<tr>(.*?)</tr>", document[start : document.index("</table>", start)])
    return [[re.sub("<.*?>", " ", cell) for cell in _cells(row)] for row in rows]


def _cells(row: str) -> list[str]:
    return re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)


@pytest.mark.browser
def test_the_report_opens_without_a_network_and_shows_the_figures(
    fitted_experiment: ExperimentConfig, without_ray: list[Any], tmp_path: Path
) -> None:
    report = evaluate(fitted_experiment)
    document, asked = opened(report / "report.html", tmp_path)
    assert asked == []
    rows = json.loads((report / "metrics.json").read_text())
    test = document[document.index("<h2>tiny: test</h2>") :]
    header, *body = table_under(test, "At k = 10;")
    assert [cells[0] for cells in body] == ["pop", "markov", "sasrec"]
    for metric, name in (("ndcg", "NDCG@10"), ("hr", "HR@10"), ("mrr", "MRR@10")):
        for cells in body:
            [value] = [
                row["value"]
                for row in rows
                if (row["model"], row["metric"], row["k"], row["split"], row["slice"])
                == (cells[0], metric, 10, "test", "all")
            ]
            assert cells[header.index(name)].split()[0] == f"{value:.4f}", (cells[0], metric)


@pytest.mark.browser
def test_a_page_that_asks_for_something_would_be_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<!doctype html><p>x</p><img src="http://example.invalid/x.png">')
    assert opened(page, tmp_path)[1] == ["http://example.invalid/x.png"]
