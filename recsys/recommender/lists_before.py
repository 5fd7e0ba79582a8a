"""The lists that came before the history of a query, for models that read them.

What a list before held is no part of the history: it is not excluded, and only a model with
`reads_previous` makes anything of it. A list counts by its place, so one without any known item still
is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from recsys.data.batches import SequenceBatch
from recsys.data.previous import UNKNOWN_AGE
from recsys.data.sequences import Int64
from recsys.data.vocabulary import Vocabulary
from recsys.errors import DataError
from recsys.schema import PAD


@dataclass(frozen=True)
class ListsBefore:
    """The newest lists before a history, in dense indices.

    Attributes:
        items: int64 [P], the known items of all lists that the model reads.
        ages: int64 [P], how many lists ago each was, 1 for the list right before.
        dropped: lists that are not read: the oldest of more than the model reads, or all.
        unknown: ids of the lists read that the catalogue does not hold, in order, each once.
    """

    items: Int64
    ages: Int64
    dropped: int
    unknown: list[str] = field(default_factory=list)

    def unread(self, given: int) -> ListsBefore:
        """Return the same for who reads none of the `given` lists."""
        nothing = np.zeros(0, dtype=np.int64)
        return replace(self, items=nothing, ages=nothing, dropped=given, unknown=[])


def lists_before(previous: Sequence[Sequence[str]], reads: int, ids: Vocabulary) -> ListsBefore:
    """Translate the newest `reads` of the lists before, which are given oldest first.

    Raises:
        DataError: a list is empty; what did not take place has no age.
    """
    if (empty := next((n for n, one in enumerate(previous) if not one), None)) is not None:
        raise DataError(f"list {empty} of previous (from 0) has no items; leave it out")
    read = previous[max(0, len(previous) - reads) :] if reads else []
    names = [name for one in read for name in one]
    lengths = np.array([len(one) for one in read], dtype=np.int64)
    ages = np.repeat(np.arange(len(read), 0, -1), lengths)
    items = ids.encode(names).astype(np.int64)
    known = items != PAD
    missing = (name for name, there in zip(names, known, strict=True) if not there)
    dropped = len(previous) - len(read)
    return ListsBefore(items[known], ages[known], dropped, list(dict.fromkeys(missing)))


def with_lists_before(batch: SequenceBatch, lists: Sequence[ListsBefore | None]) -> SequenceBatch:
    """Return the batch with the lists before each of its sequences; None where they are not known."""
    if all(one is None for one in lists):
        return batch
    width = max(1, *(0 if one is None else len(one.items) for one in lists))
    items = np.zeros((len(lists), width), dtype=np.int64)
    ages = np.zeros_like(items)
    for row, one in enumerate(lists):
        if one is None:
            ages[row] = UNKNOWN_AGE
        else:
            items[row, : len(one.items)] = one.items
            ages[row, : len(one.items)] = one.ages
    return replace(batch, previous=torch.from_numpy(items), previous_ages=torch.from_numpy(ages))
