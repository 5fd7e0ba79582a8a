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

from recsys.config import LossConfig, Seq2SeqConfig, SetModelConfig, TrainingConfig, VotesConfig
from recsys.config.sets import AttentionPoolConfig, DeepSetsConfig, SIFConfig
from recsys.data.song_vectors import read_song_vectors
from recsys.data.vocabulary import Vocabulary
from recsys.errors import DataError
from recsys.models.neighbour_votes import NeighbourVotes
from recsys.models.playlists.seq2seq import Seq2Seq
from recsys.models.sets.mean import SIF
from recsys.models.sets.model import SetModel
from recsys.training.fit import fit
from recsys.training.list_objectives import remaining, written_on

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


@pytest.mark.parametrize("against", ["all", "sampled"])
def test_it_learns_what_is_left_as_a_set(against: str, tmp_path: Path) -> None:
    """Walks on a ring: all that is left is likely, so the next item is at least among the first."""
    loss = LossConfig(kind="set_softmax", against=against, negatives=16)
    model = writer(task="continue")
    run = plan(tmp_path, epochs=60, patience=60, validate_every=20)
    training = run.training.model_copy(update={"objective": "rest_set", "loss": loss})
    rows = fit(model, replace(run, training=training))
    assert rows[-1]["ndcg@10"] > 0.4  # chance: 0.15


def test_what_is_left_at_every_step_is_a_set() -> None:
    aims = torch.tensor([[4, 2, 4, 7], [5, 0, 0, 0], [0, 0, 0, 0], [3, 3, 1, 0]])
    sets = remaining(aims)
    found = [sets.items[sets.rows == row].tolist() for row in range(len(sets))]
    assert found == [[2, 4, 7], [2, 4, 7], [4, 7], [7], [5], [3, 1], [3, 1], [1]]
    assert sets.offsets.tolist() == [0, 3, 6, 8, 9, 10, 12, 14, 15]


def test_a_rest_is_judged_from_its_cut_alone() -> None:
    """The queries of the rest equal those of reading the beginning and writing song by song."""
    model = writer(task="continue", dropout=0.0).eval()
    items = torch.tensor([[3, 9, 1, 7, 2], [5, 6, 8, 0, 0]])
    lengths = torch.tensor([5, 3])
    queries, aims = written_on(model, items, lengths, torch.Generator().manual_seed(3))
    for row, length in enumerate(lengths.tolist()):
        left = int((aims[row] != 0).sum())
        cut = length - left
        assert aims[row, :left].tolist() == items[row, cut:length].tolist()
        begun = items[row : row + 1, :cut]
        start = items[row, cut - 1 : cut] if cut else torch.zeros(1, dtype=torch.long)
        inputs = torch.cat([start, items[row, cut : length - 1]])[None]
        alone = model.write(begun, torch.tensor([cut]), inputs)[0]
        torch.testing.assert_close(queries[row, :left], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"task": "both", "training": {"objective": "rest_set"}}, "use task: continue"),
        (
            {"task": "continue", "training": {"objective": "next_basket"}},
            "use next_event, or rest_set",
        ),
        ({"training": {"repeats": "mask"}}, "leave it at keep"),
    ],
)
def test_objectives_that_a_writer_does_not_have_are_refused(
    settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        Seq2SeqConfig.model_validate(settings)


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


def test_votes_are_counted_when_a_model_is_fitted(tmp_path: Path) -> None:
    votes = VotesConfig(history=3, reach=2)
    config = SetModelConfig(encoder=DeepSetsConfig(width=16), max_length=12, votes=votes)
    model, run = SetModel(config, ITEMS), plan(tmp_path, epochs=1)
    fit(model, run)
    alone = NeighbourVotes(votes, ITEMS)
    alone.fit(run.data)
    assert model.votes is not None
    expected = alone.state_dict()
    assert expected and all(
        torch.equal(found, expected[name]) for name, found in model.votes.state_dict().items()
    )
    assert any(bool(tensor.any()) for tensor in expected.values())


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
