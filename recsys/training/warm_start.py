"""Training that goes on from an earlier model: its weights, carried over to a catalogue that changed.

Weights that have a row for each item are carried over row by row, all others as they are. An item that the
earlier model has learned keeps its row. A new one is given the mean of the items around it in the
training events,

    row(new) = sum_j w_j row(j) / sum_j w_j,    w_j = sum over events of new and j in one history,
                                                      at most `REACH` apart, of 1 / their distance

over the `MOST` items j of greatest weight, which are learned or were placed before it (so a new album whose
songs meet only one another is placed from the first of them that met an older song). Where no event
says anything, items of like texts stand in; where no text does either, it starts as in a new training.
Items that left the catalogue are gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.config import ModelConfig
from recsys.data.sequences import Int64, TrainingData
from recsys.data.vocabulary import Vocabulary
from recsys.errors import ArtifactError
from recsys.evaluation.metrics import Float64
from recsys.models import EncoderModel, build_model
from recsys.retrieval.exclusion import Bools
from recsys.schema import ITEM, PAD
from recsys.words import Words

REACH: Final = 5
"""Events between a new item and one that says where it stands, at most."""
MOST: Final = 10
"""Items that a new one is placed by."""


@dataclass(frozen=True)
class Earlier:
    """The model that a training goes on from, seen from the catalogue of the new one.

    Attributes:
        state: its tensors.
        row: int64 [n_items + 1], what each item of the new catalogue was in it; 0 for new items.
        learned: bool [n_items + 1], the items that it had training events of.
        n_items: size of its own catalogue.
    """

    state: Mapping[str, Tensor]
    row: Int64
    learned: Bools
    n_items: int

    @classmethod
    def of(
        cls, state: Mapping[str, Tensor], old: Vocabulary, counts: Int64, new: Vocabulary
    ) -> Earlier:
        """Match two catalogues by external id.

        Args:
            state: tensors of the earlier model.
            old: its items.
            counts: int64 [old items + 1], its training events by item.
            new: items of the model to come.
        """
        row = np.concatenate([[PAD], old.encode(new.ids.to_list())]).astype(np.int64)
        return cls(state, row, (counts[row] > 0) & (row != PAD), len(old))


@dataclass(frozen=True)
class Placed:
    """New items and what they are made of, one row a pair.

    Attributes:
        item: int64 [P], the new ones.
        partner: int64 [P], known ones.
        weight: float64 [P]; those of an item add up to 1.
    """

    item: Int64
    partner: Int64
    weight: Float64


@dataclass(frozen=True)
class CarriedOver:
    """How many items of the new catalogue came how: all of them together are `items`.

    Attributes:
        learned: with the row that the earlier model had learned.
        unchanged: with its row, though it had no events of them, nor has the new training.
        by_events: placed by the items around them.
        by_texts: placed by items of like texts.
        drawn: as in a new training.
        dropped: items of the earlier catalogue that are gone.
    """

    learned: int
    unchanged: int
    by_events: int
    by_texts: int
    drawn: int
    dropped: int


def carry_over(
    model: EncoderModel,
    config: ModelConfig,
    earlier: Earlier,
    data: TrainingData,
    items: pl.DataFrame | None = None,
) -> CarriedOver:
    """Fill a new model with what an earlier one has learned; see the head of this file.

    Args:
        model: drawn anew, for the new catalogue.
        config: what it was built from; that of the earlier one may differ in its training only.
        earlier: the model before.
        data: what the new one will learn from.
        items: the new catalogue with its texts, one row an item in the order of their indices.

    Raises:
        ArtifactError: a tensor of the earlier model does not fit the new one.
    """
    state, tables = model.state_dict(), item_tables(config, model)
    # A buffer with a row for each item, such as its text's vector, is no weight: the new one is right.
    learned = {name for name, _ in model.named_parameters()}
    _check(state, earlier, tables, learned)
    known = earlier.learned.copy()
    wanted = ~known
    wanted[PAD] = False
    rounds = []
    while len((placed := companions(data, wanted, known)).item):
        rounds.append(placed)
        known[placed.item], wanted[placed.item] = True, False
    by_events = int(known.sum() - earlier.learned.sum())
    if items is not None and wanted.any():
        rounds.append(placed := _of_like_texts(items, wanted, known))
        known[placed.item], wanted[placed.item] = True, False
    with torch.no_grad():
        for name, tensor in state.items():
            if name not in tables:
                tensor.copy_(earlier.state[name])
            elif name in learned:
                _fill(tensor, earlier.state[name], earlier.row, rounds)
    model.goes_on = True
    there = earlier.row != PAD
    return CarriedOver(
        learned=int(earlier.learned.sum()),
        unchanged=int((wanted & there).sum()),
        by_events=by_events,
        by_texts=int(known.sum() - earlier.learned.sum()) - by_events,
        drawn=int((wanted & ~there).sum()),
        dropped=earlier.n_items - int(there.sum()),
    )


def item_tables(config: ModelConfig, model: EncoderModel) -> set[str]:
    """Return the names of the tensors that have a row for each item: those that grow with a catalogue."""
    with torch.device("meta"):  # shapes alone, without memory
        larger = build_model(config, model.n_items + 1).state_dict()
    return {name for name, own in model.state_dict().items() if own.shape != larger[name].shape}


def companions(data: TrainingData, wanted: Bools, known: Bools) -> Placed:
    """Return the known items around the wanted ones: `MOST` of each, ties to the smaller item.

    Args:
        data: the training events.
        wanted: bool [n_items + 1].
        known: the same.
    """
    users, own = data.events()
    parts = []
    for distance in range(1, REACH + 1):
        together = users[distance:] == users[:-distance]
        for one, other in ((own[:-distance], own[distance:]), (own[distance:], own[:-distance])):
            hit = together & wanted[one] & known[other]
            parts.append(
                pl.DataFrame({"item": one[hit], "partner": other[hit]}).with_columns(
                    weight=pl.lit(1.0 / distance)
                )
            )
    return _heaviest(pl.concat(parts))


def _of_like_texts(items: pl.DataFrame, wanted: Bools, known: Bools) -> Placed:
    """Return the same by texts: partners are known items that share telling words."""
    texts = [name for name, kind in items.schema.items() if kind == pl.String and name != ITEM]
    rows = items.select(texts).rows(named=True) if texts else [{}] * len(items)
    words = Words(items.filter(pl.Series(known[1:])))
    number: dict[str, int] = dict(zip(items[ITEM].to_list(), range(1, len(items) + 1), strict=True))
    found = [
        (item, number[name], likeness)
        for item in np.flatnonzero(wanted).tolist()
        for name, likeness in words.alike({k: v or "" for k, v in rows[item - 1].items()}, MOST)
    ]
    schema = {"item": pl.Int32, "partner": pl.Int32, "weight": pl.Float64}
    return _heaviest(pl.DataFrame(found, schema=schema, orient="row"))


def _heaviest(pairs: pl.DataFrame) -> Placed:
    """Add up the weights of equal pairs, keep each item's `MOST` heaviest, and let them add up to 1."""
    best = (
        pairs.group_by("item", "partner")
        .agg(pl.col("weight").sum())
        .sort(["item", "weight", "partner"], descending=[False, True, False])
        .group_by("item", maintain_order=True)
        .head(MOST)
        .with_columns(pl.col("weight") / pl.col("weight").sum().over("item"))
    )
    item, partner = (best[name].to_numpy().astype(np.int64) for name in ("item", "partner"))
    return Placed(item, partner, best["weight"].to_numpy().copy())


def _fill(tensor: Tensor, old: Tensor, row: Int64, rounds: Sequence[Placed]) -> None:
    """Set the rows of one table: those that were there, then those placed by others, in order."""
    there = np.flatnonzero((row != PAD) | (np.arange(len(row)) == PAD))
    tensor[torch.from_numpy(there)] = old[torch.from_numpy(row[there])].to(tensor)
    for placed in rounds:
        to, by = torch.from_numpy(placed.item), torch.from_numpy(placed.partner)
        share = torch.from_numpy(placed.weight).to(tensor).view(-1, *[1] * (tensor.ndim - 1))
        parts = tensor[by] * share
        tensor[to] = 0.0
        tensor.index_add_(0, to, parts)


def _check(
    state: Mapping[str, Tensor], earlier: Earlier, tables: set[str], learned: set[str]
) -> None:
    """Refuse an earlier model of other tensors, or of other shapes among those that it hands on."""
    odd = sorted(set(state) ^ set(earlier.state))
    for name in [] if odd else state:
        if name in tables and name not in learned:
            continue  # made anew; with few items its rows may be shorter, too
        ours, theirs = state[name].shape, earlier.state[name].shape
        same = ours[1:] == theirs[1:] if name in tables else ours == theirs
        odd += [] if same else [f"{name} {list(theirs)} instead of {list(ours)}"]
    if odd:
        raise ArtifactError(
            "the earlier model does not fit the one to be trained: they differ in "
            f"{', '.join(odd[:5])}; set the model's settings to those of the earlier one, or train "
            "without warm_start"
        )
