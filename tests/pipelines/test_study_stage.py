"""`recsys study`: which cells there are, in which order, and a small one from files to its page."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from pipelines import cli
from pipelines.study import run_study
from pipelines.study_cells import Cell, Study
from pipelines.study_summary import PAGE, SUMMARY, study_tables
from recsys.config import StudyConfig, load_study_config, parse_study_config
from recsys.errors import ConfigError, DataError

UNIREC = Path(__file__).parents[2] / "configs" / "unirec_study.yaml"


def test_the_cells_most_worth_having_come_first() -> None:
    study = Study(load_study_config(UNIREC))
    found, sets = study.cells(), list(study.config.sets)
    assert len(found) == len(set(found))
    assert len({cell.name for cell in found}) == len(found)
    first = [(c.set, c.model, c.seed) for c in found[: 2 * len(sets)]]
    assert first == [(s, m, 0) for s in sets for m in ("sasrec", "unirec")]
    assert [c.seed for c in found] == sorted(c.seed for c in found)
    of_the_first_seed_alone = {c.model for c in found} - {c.model for c in found if c.seed == 1}
    assert {"pop", "markov", "unirec_no_votes"} <= of_the_first_seed_alone
    assert not any(c.model == "ancestor" for c in found if c.set in ("beauty", "toys"))


def test_a_cell_is_one_model_of_its_sets_experiment() -> None:
    study = Study(load_study_config(UNIREC))
    config = study.experiment(Cell("beauty", "unirec", 2))
    assert list(config.models) == ["unirec"]
    assert config.seed == 2
    assert config.workspace.parts[-4:] == ("out", "unirec_study", "runs", "beauty")
    assert config.publish.model == "unirec" and config.evaluation.baseline is None
    assert (config.data_seed, config.evaluation.splits) == (0, ["test"])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"baseline": "markov"}, "baseline is markov, which is none of models"),
        ({"once": ["pop"]}, "pop cannot be in both models and once"),
        ({"seeds": [1, 1]}, "seeds names something twice"),
        ({"against": {"x": ["x"]}}, r"against\.x names something twice"),
        ({"against": {"x": ["y", "y"]}}, r"against\.x names something twice"),
        ({"sets": {}}, "sets"),
        ({"sets": {"a/b": "a.yaml"}}, "sets.a/b"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], says: str) -> None:
    raw = {"name": "x", "sets": {"a": "a.yaml"}, "models": ["pop", "sasrec"], "baseline": "pop"}
    with pytest.raises(ConfigError, match=says):
        parse_study_config(raw | changes)


@pytest.fixture
def write_study(write_config: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a study of two small experiments and returns its path."""

    def write(**changes: Any) -> Path:
        first = tmp_path / "first.yaml"
        write_config(name="first").rename(first)
        raw = yaml.safe_load(first.read_text(encoding="utf-8"))
        raw["models"]["unirec"] = {**raw["models"]["sasrec"], "kind": "unirec", "width": 8}
        first.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
        second = tmp_path / "second.yaml"
        write_config(
            name="second",
            split={"kind": "last_n", "n": 2},
            models={
                name: {"kind": name.split("_")[0]} for name in ("pop", "markov", "markov_again")
            },
        ).rename(second)
        raw = {
            "name": "both",
            "output": str(tmp_path / "study"),
            "sets": {"first": str(first), "second": str(second)},
            "models": ["pop", "markov"],
            "baseline": "pop",
            "seeds": [0, 1],
            **changes,
        }
        path = tmp_path / "both.yaml"
        path.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"models": ["pop", "sasrec"], "baseline": "sasrec"}, r"second.* has no model sasrec"),
        ({"models": ["pop", "own_pop"]}, "own_pop is in none of the experiments"),
        ({"against": {"pop": ["own_pop"]}}, "own_pop is in none of the experiments"),
        ({"against": {"own_pop": ["pop"]}}, "own_pop is in none of the experiments"),
        ({"k": 7}, "does not measure at k = 7"),
    ],
)
def test_experiments_that_do_not_fit_are_named(
    changes: dict[str, Any], says: str, write_study: Callable[..., Path]
) -> None:
    with pytest.raises(ConfigError, match=says):
        Study(load_study_config(write_study(**changes))).cells()


def test_what_is_asked_for_must_be_of_the_study(write_study: Callable[..., Path]) -> None:
    config = load_study_config(write_study())
    with pytest.raises(ConfigError, match=r"set third is not of this study; it has first, second"):
        run_study(config, Console(file=io.StringIO()), sets=["third"])
    with pytest.raises(ConfigError, match="model sasrec is not of this study"):
        run_study(config, Console(file=io.StringIO()), models=["sasrec"])
    with pytest.raises(ConfigError, match=r"seed 7, 8 is not of this study; it has 0, 1$"):
        run_study(config, Console(file=io.StringIO()), seeds=[7, 1, 8])


def ended(*command: str) -> int | str | None:
    """Return the exit code of a command."""
    with pytest.raises(SystemExit) as found:
        cli.main(list(command))
    return found.value.code


@pytest.mark.ray
def test_models_of_equal_settings_are_trained_once_and_compared_each(
    write_study: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sets, names = {"second": str(tmp_path / "second.yaml")}, ["markov_again", "pop"]
    path = write_study(sets=sets, models=names, baseline="markov_again", once=["item_knn"])
    experiment = yaml.safe_load((tmp_path / "second.yaml").read_text(encoding="utf-8"))
    experiment["models"]["item_knn"] = {"kind": "item_knn"}
    (tmp_path / "second.yaml").write_text(yaml.safe_dump(experiment, sort_keys=False), "utf-8")
    study = Study(load_study_config(path))
    assert [cell.name for cell in study.compared() if cell.seed == 1] == [
        "second/markov_again/1",
        "second/pop/1",
    ]
    trained = ["second/markov/1", "second/pop/1"]
    assert [cell.name for cell in study.cells() if cell.seed == 1] == trained
    for seeds in ("x", "1,-1", "0.5"):
        assert ended("study", str(path), "--seeds", seeds) == 2
    assert f"--seeds is {seeds!r}; it is like 0,1,2" in " ".join(capsys.readouterr().err.split())
    assert ended("study", str(path), "--models", "item_knn", "--seeds", "1") == 2
    assert "have seed 0 alone" in capsys.readouterr().err
    assert ended("study", str(path), "--seeds", "1") == 0
    printed = capsys.readouterr().out
    assert "second/markov_again has the settings of second/markov: trained once" in printed
    assert "3 cells have no figures that count; without --sets, --models and --seeds" in printed
    assert [cell.name for cell in study.done()] == trained
    assert ended("study", str(path), "--models", "markov", "--seeds", "1") == 0  # by its run's name
    capsys.readouterr()
    summary = json.loads((study.directory / SUMMARY).read_text())
    assert {row["model"] for row in summary["over_seeds"]} == set(names)
    [row] = summary["by_set"]["pop"]
    assert row["seeds"] == [1] and row["baseline"] != row["value"]
    assert "second/markov_again is second/markov" in (study.directory / PAGE).read_text()

    # What is trained once is compared with every seed that the baseline has.
    assert ended("study", str(path), "--models", "item_knn") == 0
    capsys.readouterr()
    summary = json.loads((study.directory / SUMMARY).read_text())
    [knn] = summary["by_set"]["item_knn"]
    assert (knn["seeds"], knn["baseline"]) == ([1], row["baseline"])
    [own] = [r for r in summary["over_seeds"] if r["model"] == "item_knn"]
    assert own["seeds"] == [0] and knn["value"] == pytest.approx(own["ndcg@10"], abs=1e-4)

    # Under both names it is not compared with itself, and nothing is trained.
    further = {"pop": ["markov_again", "item_knn"], "markov": ["markov_again"]}
    both = study.config.model_copy(
        update={"models": [*names, "markov"], "once": [], "against": further}
    )
    run_study(both, Console(file=io.StringIO()), hours=0.0)
    summary = json.loads((study.directory / SUMMARY).read_text())
    assert list(summary["by_set"]) == ["pop"]
    [other] = summary["against"]["pop"]["by_set"]["markov_again"]  # by the seed that both have
    assert (other["value"], other["seeds"]) == (row["baseline"], [1])
    assert other["difference"] == -row["difference"]
    assert summary["against"]["markov"] == {"by_set": {}, "pooled": {}}
    assert summary["missing"] == [f"second/{m}/0" for m in ("markov_again", "pop", "markov")]
    assert summary["cells_left"] == 2
    assert [table.row_count for table in study_tables(summary)] == [2, 2, 0]
    assert "Against pop" in (study.directory / PAGE).read_text()


def elsewhere(config: StudyConfig, place: Path) -> StudyConfig:
    """Return the study as it is on another machine: data in other places, of the results only cells."""
    shutil.copytree(config.output / "both" / "cells", place / "study" / "both" / "cells")
    sets = {}
    for name, path in config.sets.items():
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        for part in ("events", "items"):
            [file] = raw["data"][part]
            raw["data"][part] = [str(shutil.copy(file, place))]
        sets[name] = place / f"{name}.yaml"
        sets[name].write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    return config.model_copy(update={"output": place / "study", "sets": sets})


@pytest.mark.ray
def test_a_study_runs_goes_on_and_notices_what_has_changed(
    write_study: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    further = {"markov": ["unirec"]}  # it reads neighbours, which are made only for those that do
    with pytest.raises(
        ConfigError, match="once: unirec learns in first, so one run does not stand"
    ):
        _ = Study(load_study_config(write_study(once=["unirec"]))).experiments
    path = write_study(against=further)
    config, out = load_study_config(path), io.StringIO()
    console = Console(file=out, width=200)
    directory = run_study(config, console, sets=["second"])
    summary = json.loads((directory / SUMMARY).read_text())
    [row] = summary["by_set"]["markov"]
    assert (row["set"], row["seeds"], summary["pooled"]["markov"]["sets"]) == (
        "second",
        [0, 1],
        ["second"],
    )
    assert row["gain"] == pytest.approx(
        (row["value"] - row["baseline"]) / row["baseline"], abs=1e-3
    )
    assert summary["missing"] == [
        "first/pop/0",
        "first/markov/0",
        "first/unirec/0",
        "first/pop/1",
        "first/markov/1",
    ]
    file = directory / "cells" / "second" / "markov" / "0.json"
    [mine] = [r for r in summary["over_seeds"] if r["model"] == "markov"]
    cell = json.loads(file.read_text())
    assert cell["metrics"]["ndcg@10"][0] == mine["ndcg@10"] == pytest.approx(row["value"], abs=1e-4)

    before = {p: p.stat().st_mtime_ns for p in (directory / "cells").rglob("*.json")}
    with pytest.raises(SystemExit) as ended:  # `run` knows a study by its sets
        cli.main(["run", str(path), "seeds=[0]", "against={}"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "first/markov/0" in printed and "all 2" in printed
    again = json.loads((directory / SUMMARY).read_text())
    assert again["missing"] == [] and again["pooled"]["markov"]["sets"] == ["first", "second"]
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert "Gain by set" in (directory / PAGE).read_text()
    assert [table.row_count for table in study_tables(again)] == [3]

    run_study(config, console, hours=0.0)
    assert "6 of 9 cells are up to date" in out.getvalue()
    assert "0 hours are over; 3 cells are left" in out.getvalue()
    run_study(config, console, sets=["first"], models=["unirec"])
    moved = elsewhere(config, tmp_path / "elsewhere")
    there = run_study(moved, console, hours=0.0)
    assert json.loads((there / SUMMARY).read_text()) == json.loads(
        (directory / SUMMARY).read_text()
    )
    assert not list((there / "runs").rglob("model.safetensors"))
    cells = there / "cells" / "second"
    shutil.copy(cells / "markov" / "0.parquet", cells / "pop" / "0.parquet")  # of other figures
    (cells / "pop" / "1.parquet").unlink()
    run_study(moved.model_copy(update={"slices": False}), console, hours=0.0)
    missing = json.loads((there / SUMMARY).read_text())["missing"]
    assert {"second/pop/0", "second/pop/1"} <= set(missing)

    experiment = config.sets["second"]
    experiment.write_text(experiment.read_text().replace("n: 2", "n: 3"))
    # Its cells are of other data than it has now: not counted, though nothing of it is asked for.
    run_study(config, console, sets=["first"], hours=0.0)
    changed = json.loads((directory / SUMMARY).read_text())
    assert [r["set"] for r in changed["by_set"]["markov"]] == ["first"]
    [told] = [line for line in out.getvalue().splitlines() if "the files as they are" in line]
    assert told.startswith("second: figures of second/pop/0, second/markov/0, second/pop/1,")
    of_second = {f"second/{model}/{seed}" for model in ("pop", "markov") for seed in (0, 1)}
    assert of_second <= set(changed["missing"])
    run_study(config, console, sets=["second"], models=["markov"])
    [told] = [line for line in out.getvalue().splitlines() if "data or settings have" in line]
    assert told.startswith("second: figures of second/pop/0, second/markov/0, second/pop/1,")
    changed = json.loads((directory / SUMMARY).read_text())
    assert "second/pop/0" in changed["missing"] and "second/markov/1" not in changed["missing"]
    assert [r["set"] for r in changed["by_set"]["markov"]] == ["first"]  # nothing is paired
    run_study(config.model_copy(update={"k": 5}), console, hours=0.0)
    assert len(json.loads((directory / SUMMARY).read_text())["missing"]) == 9

    for nonsense in ('{"keys": ', "[]", '{"set": "second"}'):
        file.write_text(nonsense)
        with pytest.raises(DataError, match=r"0\.json holds no figures of a cell; delete it"):
            run_study(config, console, hours=0.0)
