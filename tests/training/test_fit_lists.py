"""Training of models that read whole lists: they learn, resume, begin with given vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from test_fit import ITEMS, assert_same_result, plan
from test_fit_sets import Stopped, stop_after_the_first
from test_fit_sets import plan as plan_of_baskets

from recsys.config import LossConfig, Seq2SeqConfig, SetModelConfig, TrainingConfig
from recsys.config.sets import AttentionPoolConfig, DeepSetsConfig, SIFConfig
from recsys.data.song_vectors import read_song_vectors
from recsys.data.vocabulary import Vocabulary
from recsys.errors import DataError
from recsys.models.playlists.seq2seq import Seq2Seq
from recsys.models.sets.mean import SIF
from recsys.models.sets.model import SetModel
from recsys.training.fit import fit

SAMPLED = LossConfig(kind="sampled_softmax", negatives=16, sampler="popularity")


def writer(**settings: Any) -> Seq2Seq:
    torch.manual_seed(1)
    sizes = {"width": 16, "hidden": 24, "max_length": 12, "heads": 2}
    return Seq2Seq(Seq2SeqConfig(**sizes | settings), ITEMS)


@pytest.mark.parametrize(
    "settings",
    [{"task": "continue"}, {"cell": "lstm", "attention": False}, {"cell": "transformer"}],
    ids=["bi", "bottleneck", "transformer"],
)
def test_it_learns_what_follows(settings: dict[str, Any], tmp_path: Path) -> None:
    model = writer(**settings)
    rows = fit(model, plan(tmp_path, epochs=60, patience=60, validate_every=20))
    assert rows[-1]["ndcg@10"] > 0.8
    assert model.default_query.abs().max() > 0


def test_it_learns_by_drawn_negatives_too(tmp_path: Path) -> None:
    rows = fit(writer(), plan(tmp_path, epochs=14, loss=SAMPLED))
    assert max(row["ndcg@10"] for row in rows) > 0.7


def test_a_reconstruction_keeps_its_last_epoch(tmp_path: Path) -> None:
    rows = fit(writer(task="reconstruct"), plan(tmp_path, epochs=4, patience=1))
    assert len(rows) == 4
    assert all("ndcg@10" not in row for row in rows)
    assert rows[-1]["loss"] < rows[0]["loss"]


@pytest.mark.parametrize("made", [lambda: writer(), lambda: pooled()], ids=["seq2seq", "set"])
def test_a_resumed_training_ends_where_an_undisturbed_one_does(made: Any, tmp_path: Path) -> None:
    whole = plan(tmp_path / "whole", epochs=3, loss=SAMPLED)
    fit(made(), whole)
    stopped = replace(whole, directory=tmp_path / "stopped", on_epoch=stop_after_the_first)
    with pytest.raises(Stopped):
        fit(made(), stopped)
    fit(made(), replace(stopped, on_epoch=None))
    assert_same_result(tmp_path / "whole", tmp_path / "stopped")


def pooled(encoder: Any = None, **training: Any) -> SetModel:
    torch.manual_seed(1)
    config = SetModelConfig(
        encoder=encoder or AttentionPoolConfig(width=16),
        max_length=18,
        training=TrainingConfig(**training),
    )
    return SetModel(config, ITEMS)


def test_a_set_learns_what_follows_it(tmp_path: Path) -> None:
    """Walks on a ring: the newest item cannot be told in a set, but all its neighbours are likely."""
    rows = fit(pooled(), plan(tmp_path, epochs=60, patience=60, validate_every=20))
    assert rows[-1]["ndcg@10"] > 0.4  # chance: 0.15


def test_a_set_learns_the_next_basket_as_a_set(tmp_path: Path) -> None:
    model = pooled(DeepSetsConfig(width=16))
    model.encoder.item_table = torch.nn.Embedding(33, 16, padding_idx=0)
    model.n_items = 32
    rows = fit(model, plan_of_baskets(tmp_path, {"kind": "set_softmax"}, epochs=12))
    assert max(row["ndcg@10"] for row in rows) > 0.3


def test_sif_is_counted_when_training_is_over(tmp_path: Path) -> None:
    model = pooled(SIFConfig(width=16))
    fit(model, run := plan(tmp_path, epochs=1))
    assert isinstance(model.encoder, SIF)
    assert model.encoder.common.norm() == pytest.approx(1.0, abs=1e-5)
    counts = run.data.item_counts()
    expected = 1e-3 / (1e-3 + counts / counts.sum())
    np.testing.assert_allclose(model.encoder.weight.numpy()[1:], expected[1:], rtol=1e-5)


def vectors_file(path: Path, ids: list[str], width: int, value: float = 0.5) -> Path:
    rows = [[value + row] * width for row in range(len(ids))]
    pl.DataFrame({"item_id": ids, "vector": rows}).write_parquet(path)
    return path


CATALOGUE = Vocabulary.of_items(["a", "b", "c"])


def test_given_vectors_are_matched_by_id(tmp_path: Path) -> None:
    path = vectors_file(tmp_path / "v.parquet", ["c", "x", "a"], 4)
    table = read_song_vectors(path, CATALOGUE, 4)
    assert table.shape == (4, 4)
    assert table[[1, 3]].tolist() == [[2.5] * 4, [0.5] * 4]
    assert np.isnan(table[[0, 2]]).all()


@pytest.mark.parametrize(
    ("ids", "width", "value", "says"),
    [
        (["a"], 5, 0.5, "vectors of 5 numbers, but the model's width is 4"),
        (["a", "b", "a"], 4, 0.5, "items more than once, such as a"),
        (["b"], 4, float("nan"), "not finite, first at item b"),
        (["x"], 4, 0.5, "knows no item of the catalogue"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(
    ids: list[str], width: int, value: float, says: str, tmp_path: Path
) -> None:
    path = vectors_file(tmp_path / "v.parquet", ids, width, value)
    with pytest.raises(DataError, match=says):
        read_song_vectors(path, CATALOGUE, 4)
    with pytest.raises(DataError, match="missing"):
        read_song_vectors(tmp_path / "none.parquet", CATALOGUE, 4)
