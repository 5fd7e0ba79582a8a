from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipelines import summary
from pipelines.summary import comparison_lines, figure, print_summary
from recsys.config import load_config
from recsys.manifest import write_manifest


def row(
    model: str, metric: str, k: int | None, value: float | None, **changes: Any
) -> dict[str, Any]:
    low, high = (None, None) if value is None else (value - 0.01, value + 0.02)
    base = {"dataset": "tiny", "split": "test", "slice": "all", "users": 1234}
    return {
        **base,
        "model": model,
        "metric": metric,
        "k": k,
        "value": value,
        "low": low,
        "high": high,
    } | changes


def comparison(**changes: Any) -> dict[str, Any]:
    base = {"dataset": "tiny", "split": "test", "metric": "ndcg", "k": 10}
    figures = {"difference": 0.0321, "low": 0.01, "high": 0.05, "p": 0.001, "p_holm": 0.002}
    return {**base, **figures, "model_a": "sasrec", "model_b": "pop", "users": 1234} | changes


TRAINED = {
    "epochs": 20,
    "metrics": {
        "best_epoch": 17.0,  # counted from zero
        "padding_share": 0.0242,
        "train_seconds": 2345.56,
        "validation_seconds": 62.14,
    },
}


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (row("pop", "hr", 10, 0.25), "0.2500 [0.2400, 0.2700]"),
        (row("pop", "hr", 10, 0.25, low=None, high=None), "0.2500"),
        (row("pop", "hr", 10, None), "-"),
        (None, "-"),
    ],
)
def test_a_figure_has_its_interval(given: dict[str, Any] | None, shown: str) -> None:
    assert figure(given) == shown


def test_a_test_line_says_difference_interval_and_corrected_p() -> None:
    rows = [
        comparison(),
        comparison(k=5),
        comparison(metric="hr"),
        comparison(split="validation"),
        comparison(dataset="other"),
    ]
    assert comparison_lines(rows, "tiny", "test") == [
        "sasrec - pop: NDCG@10 +0.0321 [+0.0100, +0.0500], p = 0.0020"
    ]


def test_the_summary_has_every_model_and_where_everything_is(
    write_config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(summary, "own_command", lambda: "recsys")
    config = load_config(write_config())
    report, bundle = tmp_path / "out/tiny/reports/r1", tmp_path / "out/tiny/bundles/tiny-markov@1"
    report.mkdir(parents=True)
    rows = [
        row(model, metric, k, value)
        for model, value in (("pop", 0.1), ("markov", 0.3), ("sasrec", 0.2))
        for metric, k in (("hr", 10), ("ndcg", 10), ("mrr", None), ("mrr", 10), ("coverage", 10))
    ]
    rows += [row("pop", "hr", 10, 0.9, slice="tail"), row("pop", "hr", 10, 0.8, split="validation")]
    (report / "metrics.json").write_text(json.dumps(rows))
    (report / "comparisons.json").write_text(json.dumps([comparison()]))
    runs = {"pop": {"epochs": 0, "metrics": {"train_seconds": 0.1}}, "sasrec": TRAINED}
    for name, manifest in runs.items():
        (tmp_path / "out/tiny/runs" / name).mkdir(parents=True)
        write_manifest(tmp_path / "out/tiny/runs" / name, manifest)
    write_manifest(report, {"runs": {f"main/{name}": name for name in runs}})
    out = io.StringIO()
    print_summary(config, report, bundle, Console(file=out, width=160))
    lines = out.getvalue().splitlines()
    heading = next(line for line in lines if "HR@10" in line)
    assert heading.split() == ["model", "HR@10", "NDCG@10", "MRR", "coverage@10", "users"]
    models = [line.split()[0] for line in lines if "1,234" in line]
    assert models == ["pop", "markov", "sasrec"]
    [training] = [line.split() for line in lines if "2,345.6 s" in line]
    assert training == ["sasrec", "20", "18", "2,345.6", "s", "62.1", "s", "2.4%"]
    assert "0.9" not in out.getvalue() and "0.8" not in out.getvalue()
    assert "sasrec - pop: NDCG@10" in out.getvalue()
    assert lines[-3:] == [
        "report  out/tiny/reports/r1/report.html",
        "bundle  out/tiny/bundles/tiny-markov@1",
        "serve   recsys serve out/tiny/bundles",
    ]


def test_the_program_is_called_by_name_only_where_that_works(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(summary.shutil, "which", lambda name: "/usr/bin/recsys")
    assert summary.own_command() == "recsys"
    monkeypatch.setattr(summary.shutil, "which", lambda name: None)
    monkeypatch.setattr(summary.sys, "executable", str(tmp_path / ".venv/bin/python"))
    monkeypatch.chdir(tmp_path)
    assert summary.own_command() == ".venv/bin/recsys"
