"""Several data sets as one: users and items of each behind those of the others.

An item of domain d is item `first_items[d] + i` of the whole, where i is its index at home.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from recsys.data.sequences import Int32, Int64, SequenceStore, TrainingData
from recsys.data.token_store import TokenStore


@dataclass(frozen=True)
class Domain:
    """A data set with item sentences: its name, what may be learned from, its tokens."""

    name: str
    data: TrainingData
    sentences: TokenStore


@dataclass(frozen=True)
class JoinedDomains:
    """The whole.

    Attributes:
        data: all events and where each user's training events end.
        sentences: the tokens of all items.
        domains: int32 [U], of which domain each user is.
        first_items: int64 [domains], what is added to an item's index at home.
    """

    data: TrainingData
    sentences: TokenStore
    domains: Int32
    first_items: Int64


def join_domains(domains: Sequence[Domain]) -> JoinedDomains:
    """Return the domains as one, in memory; times, baskets and weights are left behind.

    Raises:
        ArtifactError: their sentences were not made with the same tokenizer.
    """
    stores = [domain.data.store for domain in domains]
    first_items = np.cumsum([0, *(store.n_items for store in stores[:-1])]).astype(np.int64)
    first_events = np.cumsum([0, *(store.n_events for store in stores[:-1])])
    items = [
        np.asarray(store.items) + np.int32(first)
        for store, first in zip(stores, first_items, strict=True)
    ]
    offsets = [store.offsets[:-1] + at for store, at in zip(stores, first_events, strict=True)]
    n_events = sum(store.n_events for store in stores)
    store = SequenceStore(
        items=np.concatenate(items).astype(np.int32),
        offsets=np.append(np.concatenate(offsets), n_events).astype(np.int64),
        n_items=sum(store.n_items for store in stores),
    )
    ends = [d.data.train_end + at for d, at in zip(domains, first_events, strict=True)]
    users = [store.n_users for store in stores]
    return JoinedDomains(
        data=TrainingData(store, np.concatenate(ends).astype(np.int64)),
        sentences=reduce(TokenStore.extended, [domain.sentences for domain in domains]),
        domains=np.repeat(np.arange(len(domains), dtype=np.int32), users),
        first_items=first_items,
    )
