"""The playlist benchmarks: what the bars are read from, and that the small of them runs."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import sorting
from playlist_embedding import measure
from playlist_probes import BLIND, RESULTS, SEEING, bars, is_made


def cell(value: float, detail: str = "shuffle 100%") -> dict[str, Any]:
    row = {"task": "permutation", "detail": detail, "value": value}
    return {"key": "k", "rows": [{**row, "base_low": 0.46, "base_high": 0.54}]}


def write(folder: Path, name: str, made: dict[str, Any]) -> None:
    set_, model = name.split("/")
    (folder / f"{set_}-{model}.json").write_text(json.dumps({**made, "model": model}))


def test_bars_are_read_from_the_cells_that_are_there(tmp_path: Path) -> None:
    write(tmp_path, "grateful_dead/mean", cell(0.5))
    write(tmp_path, "grateful_dead/bow_sif", cell(0.6))
    seen = cell(0.97)
    seen["rows"] += cell(0.99, "reverse 100%")["rows"]
    write(tmp_path, "grateful_dead/bi_bottleneck", seen)
    write(tmp_path, "30music/bi_bottleneck", cell(0.94))
    found = bars(tmp_path)
    assert found["order-blind vectors outside their interval"] == [
        "grateful_dead bow_sif shuffle 100%: 0.6"
    ]
    assert found["at 95 % or more at both"] == ["grateful_dead bi_bottleneck"]
    assert is_made(tmp_path / "grateful_dead-mean.json", "k")
    assert not is_made(tmp_path / "grateful_dead-mean.json", "other")
    assert not is_made(tmp_path / "none.json", "k")


def test_the_stored_cells_reproduce_what_was_published() -> None:
    """Bags of words cannot tell order and know best which song is in a list; autoencoders see order."""
    paths = sorted(RESULTS.glob("grateful_dead-*.json"))
    cells = {cell["model"]: cell for cell in (json.loads(path.read_text()) for path in paths)}
    value = {
        model: {(row["task"], row["detail"]): row["value"] for row in cell["rows"]}
        for model, cell in cells.items()
    }
    assert {"mean", "bow_sif", "bi_bottleneck"} <= value.keys()
    for model in value.keys() & set(BLIND):
        order = [v for (task, _), v in value[model].items() if task == "permutation"]
        assert len(order) == 15 and order == pytest.approx([0.5] * 15, abs=0.01)
    content, length = ("label", "song content"), ("label", "length")
    for model in value.keys() & set(SEEING):
        assert value[model][content] < value["bow_sif"][content]
        assert value[model][length] > value["bow_sif"][length]
    found = bars(RESULTS)
    assert found["order-blind vectors outside their interval"] == []
    assert "grateful_dead bi_bottleneck" in found["at 95 % or more at both"]


def test_embedding_and_queries_are_measured() -> None:
    pytest.importorskip("faiss")
    sizes = {"lists": 1000, "songs": 8, "catalogue": 300, "width": 8, "hidden": 16}
    found = measure(Namespace(**sizes, queries=80, threads=1, seed=0, index="pq_scan"))
    assert found["recall_at_10"] > 0.9
    assert found["encode_p50_ms"] + found["search_p50_ms"] == pytest.approx(
        found["query_p50_ms"], rel=0.5
    )
    assert found["bars"]["embedding within 120 s"] and len(found["bars"]) == 2


class Stopped(Exception):
    """Ends a cell early."""


def test_a_sorting_cell_that_was_cut_ends_where_an_undisturbed_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Namespace(hidden=8, batch=4, lr=3e-3, updates=30, seed=0)
    monkeypatch.setattr(sorting, "EVERY", 10)
    monkeypatch.setattr(sorting, "TESTED", 1000)
    whole = sorting.run(4, 1, 1, options, tmp_path / "whole.pt")
    plain = sorting.rate

    def stopped(update: int, updates: int) -> float:
        if update == 25:
            raise Stopped
        return plain(update, updates)

    kept = tmp_path / "cut.pt"
    monkeypatch.setattr(sorting, "rate", stopped)
    with pytest.raises(Stopped):
        sorting.run(4, 1, 1, options, kept)
    monkeypatch.setattr(sorting, "rate", plain)
    again = sorting.run(4, 1, 1, options, kept)
    for figure in ("exact", "losses"):
        assert again[figure] == whole[figure]
