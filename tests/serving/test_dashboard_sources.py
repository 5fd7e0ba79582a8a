from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.evaluation.measured import RunChoice, rows_of, values_of
from recsys.evaluation.paired import compared, names, win_rows
from recsys.evaluation.reports import COMPARISONS, EXPOSURE, find_reports, read_table
from recsys.evaluation.targets_file import read_targets
from serving.dashboard.sources import (
    choices,
    epochs,
    frame_csv,
    open_library,
    part_rows,
    standings,
)
from serving.dashboard.sources import (
    measured as all_rows,
)
from serving.dashboard.views.beyond import frontier_rows


@pytest.fixture
def copied(measured: Any, tmp_path: Path) -> Path:
    """A copy of the output directory that a test may break."""
    shutil.copytree(measured.output, tmp_path / "out")
    return tmp_path / "out"


def stored(measured: Any, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((measured.report / name).read_text())
    return rows


def test_figures_are_those_of_the_report_to_the_last_digit(measured: Any) -> None:
    library = open_library(measured.output)
    assert library.problems == ()
    shown = all_rows(library)
    for row, expected in zip(
        shown.iter_rows(named=True), stored(measured, "metrics.json"), strict=True
    ):
        assert {key: row[key] for key in expected} == expected
    runs = json.loads((measured.report / "manifest.json").read_text())["runs"]
    assert set(shown["run"].unique()) == set(runs.values())
    assert shown["source"].unique().to_list() == [
        f"tiny/reports/{measured.report.name}/metrics.json"
    ]


def test_standings_rank_each_data_set_and_name_the_source(measured: Any) -> None:
    rows = standings(all_rows(open_library(measured.output)), "test", "ndcg", 10)
    values = rows["value"].to_list()
    assert values == sorted(values, reverse=True)
    assert rows["rank"].to_list() == [1, 2, 3]
    users = len(_ranks(measured, "pop"))  # leave-one-out: one target a user
    assert rows["users"].to_list() == [users] * 3
    gini = standings(all_rows(open_library(measured.output)), "test", "gini", 10)
    assert gini["value"].to_list() == sorted(gini["value"].to_list())  # lower is better


def test_of_two_reports_the_newest_counts_unless_all_are_wanted(copied: Path) -> None:
    [report] = (copied / "tiny" / "reports").iterdir()
    newer = report.with_name("ffffffff")
    shutil.copytree(report, newer)
    rows = json.loads((newer / "metrics.json").read_text())
    for row in rows:
        row["value"] = 0.75
    (newer / "metrics.json").write_text(json.dumps(rows))
    (newer / "manifest.json").touch()
    frame = all_rows(open_library(copied))
    assert standings(frame, "test", "ndcg", 10)["value"].unique().to_list() == [0.75]
    both = standings(frame, "test", "ndcg", 10, older=True)
    assert set(both["report"]) == {"ffffffff", report.name}
    assert len(both) == 6


@pytest.mark.parametrize(
    ("file", "content", "word"),
    [
        ("manifest.json", "{", "not valid JSON"),
        ("manifest.json", None, "missing"),
        ("manifest.json", '{"schema_version": 1, "key": "x"}', "names no runs"),
        ("metrics.json", "[{", "cannot be read"),
        ("metrics.json", '{"rows": 1}', "no list"),
        ("metrics.json", None, "missing"),
    ],
)
def test_a_broken_report_becomes_a_problem_in_words(
    copied: Path, file: str, content: str | None, word: str
) -> None:
    [report] = (copied / "tiny" / "reports").iterdir()
    (report / file).unlink()
    if content is not None:
        (report / file).write_text(content)
    library = open_library(copied)
    assert library.reports == ()
    assert word in library.problems[0].why
    assert report.name in library.problems[0].where
    assert len(all_rows(library)) == 0


def test_runs_without_a_report_are_named(copied: Path) -> None:
    shutil.rmtree(copied / "tiny" / "reports")
    [problem] = open_library(copied).problems
    assert (problem.where, "no report" in problem.why) == ("tiny", True)


def test_an_output_that_does_not_exist_has_nothing(tmp_path: Path) -> None:
    library = open_library(tmp_path / "nowhere")
    assert (library.reports, library.problems) == ((), ())
    assert len(all_rows(library)) == 0


def test_an_experiment_alone_can_be_looked_at(measured: Any) -> None:
    [report] = find_reports(measured.output / "tiny")
    assert report.path == measured.report.absolute()


def runs_of(measured: Any) -> dict[str, RunChoice]:
    return {run.model: run for run in choices(open_library(measured.output), "tiny", "test")}


def test_stored_comparisons_are_taken_as_they_are_and_may_be_turned(measured: Any) -> None:
    runs = runs_of(measured)
    [expected] = [
        row
        for row in stored(measured, COMPARISONS)
        if (row["split"], row["metric"], row["k"], row["model_a"]) == ("test", "ndcg", 10, "markov")
    ]
    [row] = compared([runs["markov"], runs["pop"]], ("ndcg", 10), measured.config.evaluation)
    figures = ("difference", "low", "high", "p", "users")
    assert {key: row[key] for key in figures} == {key: expected[key] for key in figures}  # type: ignore[literal-required]
    [turned] = compared([runs["pop"], runs["markov"]], ("ndcg", 10), measured.config.evaluation)
    assert turned["difference"] == -expected["difference"]
    assert (turned["low"], turned["high"]) == (-expected["high"], -expected["low"])


def test_pairs_that_no_report_holds_are_computed_as_a_report_would(measured: Any) -> None:
    from recsys.evaluation.compare import compare_models

    runs, config = runs_of(measured), measured.config.evaluation
    everything = compare_models(
        measured.report,
        ["pop", "markov", "sasrec"],
        config.model_copy(update={"baseline": None}),
        seed=measured.config.seed,
    )
    expected = [row for row in everything if (row["metric"], row["k"]) == ("ndcg", 10)]
    found = compared(list(runs.values()), ("ndcg", 10), config, seed=measured.config.seed)
    pairs = {("pop", "markov"), ("pop", "sasrec"), ("markov", "sasrec")}
    assert {(row["model_a"], row["model_b"]) for row in found} == pairs
    [mine] = [row for row in found if row["model_a"] == "markov"]
    [same] = [row for row in expected if row["model_a"] == "markov"]
    # One column and many are summed in another order, so the last digit may differ.
    for name in ("difference", "low", "high", "p"):
        assert mine[name] == pytest.approx(same[name], rel=1e-12)  # type: ignore[literal-required]


def test_wins_count_every_user_once(measured: Any) -> None:
    runs = runs_of(measured)
    frame = win_rows([runs["markov"], runs["pop"]], ("hr", 10))
    row = frame.row(0, named=True)
    assert row["better"] + row["equal"] + row["worse"] == len(_ranks(measured, "pop"))
    one, other = (
        np.array([ranks[0] <= 10 for ranks in _ranks(measured, model)])
        for model in ("markov", "pop")
    )
    assert row["better"] == int((one & ~other).sum())
    assert row["worse"] == int((~one & other).sum())


def _ranks(measured: Any, model: str) -> list[Any]:
    ranked = read_targets(measured.report / "targets" / f"{model}.parquet")
    return np.split(ranked.ranks, ranked.offsets[1:-1])


def test_the_mean_over_users_is_the_figure_that_is_shown(measured: Any) -> None:
    for run in runs_of(measured).values():
        for key in (("ndcg", 10), ("mrr", None), ("recall", 5)):
            rows = rows_of(run).filter(
                (pl.col("metric") == key[0])
                & (pl.col("k").is_null() if key[1] is None else pl.col("k") == key[1])
                & (pl.col("slice") == "all")
            )
            assert float(values_of(run, key).value.mean()) == pytest.approx(
                rows["value"].item(), 1e-12
            )


def test_runs_of_the_same_model_are_told_apart_by_their_report(measured: Any) -> None:
    run = runs_of(measured)["pop"]
    assert names([run, run]) == [f"pop ({run.report.id})"] * 2


def test_exposure_sums_to_one_for_every_model(measured: Any) -> None:
    [report] = open_library(measured.output).reports
    rows = part_rows(report, EXPOSURE, dataset="tiny", split="test", model="markov")
    for k in measured.config.evaluation.ks:
        mine = [row for row in rows if row["k"] == k]
        assert sum(row["list_share"] for row in mine) == pytest.approx(1.0)
        assert sum(row["target_share"] for row in mine) == pytest.approx(1.0)
        assert sum(row["items"] for row in mine) == 25


def test_a_damaged_part_is_no_rows(copied: Path) -> None:
    [report] = open_library(copied).reports
    (report.path / EXPOSURE).write_text("{")
    assert part_rows(report, EXPOSURE) == []
    (report.path / COMPARISONS).write_text("[]")
    assert len(read_table(report, COMPARISONS).rows) == 0


def test_epochs_come_from_the_run(measured: Any) -> None:
    runs = runs_of(measured)
    assert [row["loss"] for row in epochs(runs["sasrec"].directory)] == [3.25, 2.75]
    assert epochs(runs["pop"].directory) == []
    assert epochs(None) == []


def test_csv_has_every_digit() -> None:
    frame = pl.DataFrame({"a": [0.1234567890123456], "b": [["x", "y"]]})
    assert frame_csv(frame) == 'a,b\n0.1234567890123456,"[""x"", ""y""]"\n'


def test_a_frontier_of_either_shape_is_read() -> None:
    rows = [{"ndcg@10": 0.2, "ild@10": 0.5}, {"dataset": "other", "ndcg@10": 0.1}]
    assert frontier_rows(rows, "tiny", "test") == rows[:1]
    assert frontier_rows({"points": rows}, "tiny", "test") == rows[:1]
    assert frontier_rows("nonsense", "tiny", "test") == []
