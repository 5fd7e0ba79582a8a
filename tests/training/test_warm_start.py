"""An earlier model in a changed catalogue: what stays, where new items stand, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recsys.config import ModelConfig, SASRecConfig, TiSASRecConfig, UniRecConfig
from recsys.data.batches import batch_from_lists
from recsys.data.sequences import SequenceStore, TrainingData
from recsys.data.vocabulary import Vocabulary
from recsys.errors import ArtifactError
from recsys.models import EncoderModel, build_model
from recsys.training.warm_start import CarriedOver, Earlier, carry_over, companions, item_tables

SASREC = SASRecConfig(width=8, heads=2, blocks=1, max_length=6)
CONFIGS: list[ModelConfig] = [
    SASREC,
    TiSASRecConfig(width=8, heads=2, blocks=1, max_length=6),
    UniRecConfig(width=8, heads=2, blocks=1, max_length=6, item_bias=True, inject_tail="inputs"),
    UniRecConfig(
        width=8, heads=2, blocks=1, max_length=6, item_bias=True, inject_tail="inputs", votes={}
    ),
]
"""Votes keep more neighbours than there are items here, and so all."""
OLD = ["b", "d", "f", "h", "j"]
NEW = ["a", "b", "c", "d", "e", "f", "h"]
"""j has left; a, c and e have come. So b, d, f, h move from 1, 2, 3, 4 to 2, 4, 6, 7."""
MOVED = {1: 2, 2: 4, 3: 6, 4: 7}


def drawn(config: ModelConfig, n_items: int, seed: int) -> EncoderModel:
    torch.manual_seed(seed)
    model = build_model(config, n_items)
    assert isinstance(model, EncoderModel)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
        model.default_query.normal_()
    return model.eval()


def data_of(*histories: list[int]) -> TrainingData:
    """Events of the new catalogue."""
    offsets = np.concatenate([[0], np.cumsum([len(h) for h in histories])]).astype(np.int64)
    items = np.array([item for history in histories for item in history], dtype=np.int32)
    return TrainingData(SequenceStore(items, offsets, len(NEW)), offsets[1:])


def earlier_of(model: EncoderModel, counts: list[int] | None = None) -> Earlier:
    old, new = (Vocabulary(pl.Series(ids), first_index=1) for ids in (OLD, NEW))
    return Earlier.of(model.state_dict(), old, np.array([0, *(counts or [3] * 5)]), new)


def carried(
    config: ModelConfig = SASREC,
    data: TrainingData | None = None,
    counts: list[int] | None = None,
    items: pl.DataFrame | None = None,
) -> tuple[EncoderModel, EncoderModel, CarriedOver]:
    """Return the earlier model, the new one, and how its items came."""
    old, new = drawn(config, len(OLD), 0), drawn(config, len(NEW), 1)
    return (
        old,
        new,
        carry_over(new, config, earlier_of(old, counts), data or data_of([2, 4]), items),
    )


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.kind)
@torch.no_grad()
def test_what_was_known_has_the_scores_it_had(config: ModelConfig) -> None:
    old, new, found = carried(config)
    histories, moved = [[1, 3, 2], [4], []], [[2, 6, 4], [7], []]
    times = [[10, 7000, 90000], [5], []]
    before = old.score(
        batch_from_lists(histories, times, 6, [list(range(len(h))) for h in histories])
    )
    after = new.score(batch_from_lists(moved, times, 6, [list(range(len(h))) for h in moved]))
    torch.testing.assert_close(after[:, list(MOVED.values())], before[:, list(MOVED)])
    assert found == CarriedOver(learned=4, unchanged=0, by_events=0, by_texts=0, drawn=3, dropped=1)


@torch.no_grad()
def test_a_new_item_stands_among_those_around_it() -> None:
    """c (3) comes right after b (2), two places before f (6), and once before f again."""
    history = [[2, 3, 1, 6], [3, 6]]
    _, new, found = carried(data=data_of(*history))
    table = new.encode_items()
    # b: 1; f: 1/2 + 1. Of a (1), which is new itself: c is not known before the same round ends.
    torch.testing.assert_close(table[3], (1.0 * table[2] + 1.5 * table[6]) / 2.5)
    torch.testing.assert_close(table[1], (0.5 * table[2] + 1.0 * table[6]) / 1.5)
    assert (found.by_events, found.drawn) == (2, 1)  # e (5) has no event


@torch.no_grad()
def test_who_meets_only_new_items_follows_them() -> None:
    _, new, found = carried(data=data_of([2, 1], [1, 3], [3, 5]))
    table = new.encode_items()
    for item in (1, 3, 5):
        torch.testing.assert_close(table[item], table[2])
    assert found.by_events == 3


def test_only_training_events_say_where_an_item_stands() -> None:
    data = data_of([2, 4, 3, 6])
    cut = TrainingData(data.store, data.train_end - 2)
    wanted, known = (np.isin(np.arange(8), some) for some in ([3], [2, 4, 6, 7]))
    assert companions(data, wanted, known).item.tolist() == [3, 3, 3]
    assert companions(cut, wanted, known).item.tolist() == []


@torch.no_grad()
def test_an_item_without_earlier_events_counts_as_new() -> None:
    """d was in the catalogue of the earlier model, which never saw it: its row there means nothing."""
    old, new, found = carried(data=data_of([2, 4]), counts=[3, 0, 3, 0, 3])
    torch.testing.assert_close(new.encode_items()[4], new.encode_items()[2])
    torch.testing.assert_close(new.encode_items()[7], old.encode_items()[4])  # h: nothing is known
    assert (found.learned, found.by_events, found.unchanged) == (2, 1, 1)


@torch.no_grad()
def test_texts_stand_in_where_no_event_says_anything() -> None:
    titles = ["red shoe", "blue shoe", "tea pot", "green hat", "unheard of", "red hat", "big lamp"]
    items = pl.DataFrame({"item_id": NEW, "item": range(1, 8), "title": titles})
    _, new, found = carried(items=items)
    table = new.encode_items()
    weights = torch.linalg.lstsq(table[[2, 6]].T, table[1][:, None]).solution[:, 0]
    torch.testing.assert_close(table[1], weights @ table[[2, 6]], atol=1e-4, rtol=1e-4)
    assert weights.sum().item() == pytest.approx(1, abs=1e-4) and (weights > 0.1).all()
    assert (found.by_texts, found.drawn) == (1, 2)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.kind)
def test_the_tables_of_items_are_found_by_their_size(config: ModelConfig) -> None:
    expected = {"item_table.weight"}
    if config.kind == "unirec":
        expected |= {"item_bias.weight", "neighbours", "is_rare"}
        expected |= {name for name, _ in drawn(config, 7, 0).named_buffers() if "votes." in name}
    assert item_tables(config, drawn(config, 7, 0)) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 16}, r"item_table.weight \[6, 8\] instead of \[8, 16\]"),
        ({"max_length": 9}, r"position_table.weight \[6, 8\] instead of \[9, 8\]"),
        ({"blocks": 2}, r"they differ in blocks\.1\."),
    ],
)
def test_another_model_is_refused(changes: dict[str, Any], message: str) -> None:
    other = SASREC.model_copy(update=changes)
    with pytest.raises(ArtifactError, match=message):
        carry_over(
            drawn(other, len(NEW), 1), other, earlier_of(drawn(SASREC, 5, 0)), data_of([2, 4])
        )
