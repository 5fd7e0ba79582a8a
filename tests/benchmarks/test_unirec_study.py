"""The stored study: it begins with the cells that are stored, and no summary loses any."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import unirec_study
import yaml

from pipelines.study_summary import SUMMARY


@pytest.mark.ray
def test_stored_cells_are_begun_with_and_not_lost(
    write_config: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        models = {"pop": {"kind": "pop"}, "markov": {"kind": "markov"}}
        write_config(name=name, models=models).rename(tmp_path / f"{name}.yaml")
    study = {
        "name": "both", "sets": {name: f"{name}.yaml" for name in ("one", "two")},
        "models": ["pop", "markov"], "baseline": "pop", "seeds": [0],
    }  # fmt: skip
    (tmp_path / "configs").mkdir()
    file = tmp_path / "configs" / "unirec_study.yaml"
    file.write_text(yaml.safe_dump(study), encoding="utf-8")
    monkeypatch.setattr(unirec_study, "ROOT", tmp_path)

    def run(*arguments: str, work: str = "work") -> None:
        places = ["--work", str(tmp_path / work), "--output", str(tmp_path / "stored")]
        monkeypatch.setattr(sys, "argv", ["unirec_study.py", *arguments, *places])
        unirec_study.main()

    run()
    summary = tmp_path / "stored" / SUMMARY
    first = json.loads(summary.read_text())
    assert first["missing"] == [] and first["by_set"]["markov"]
    shutil.rmtree(tmp_path / "work")
    run("--hours", "0", work="other")  # nothing is trained
    assert json.loads(summary.read_text())["by_set"] == first["by_set"]
    assert not list((tmp_path / "other").rglob("model.safetensors"))
    with pytest.raises(SystemExit, match=r"it covers two/markov/0, two/pop/0, which this run does"):
        run("--sets", "one", "--hours", "0", work="third")
    assert json.loads(summary.read_text())["missing"] == []
    # A cell that was trained after a change is stored, and no older one is put in its place.
    cell = "cells/two/markov/0.json"
    before = (tmp_path / "stored" / cell).read_bytes()
    experiment = tmp_path / "two.yaml"
    raw = yaml.safe_load(experiment.read_text(encoding="utf-8")) | {"seed": 5}
    experiment.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    run("--sets", "two", work="other")
    trained = (tmp_path / "other" / "both" / cell).read_bytes()
    assert (tmp_path / "stored" / cell).read_bytes() == trained != before
    shutil.rmtree(tmp_path / "other" / "both" / "runs")
    run("--hours", "0", work="other")
    assert (tmp_path / "other" / "both" / cell).read_bytes() == trained
    # What the configuration asks for beside is missing, and keeps no summary from being made.
    file.write_text(yaml.safe_dump(study | {"seeds": [0, 1]}), encoding="utf-8")
    run("--hours", "0", work="other")
    assert len(json.loads(summary.read_text())["missing"]) == 4
    # The other study has cells in common, and a summary of its own.
    searched = study | {"models": ["markov", "pop"], "baseline": "markov"}
    (file.parent / "unirec_searched.yaml").write_text(yaml.safe_dump(searched), encoding="utf-8")
    run("--config", "unirec_searched", "--hours", "0", work="other")
    found = json.loads((tmp_path / "stored" / "searched.json").read_text())
    assert (found["missing"], found["baseline"]) == ([], "markov")
    assert json.loads(summary.read_text())["baseline"] == "pop"
