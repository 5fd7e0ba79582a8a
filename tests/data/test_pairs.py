"""Pairs of histories and next items, and several domains as one."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.data.domains import Domain, join_domains
from recsys.data.pairs import PairBatches
from recsys.data.sequences import SequenceStore, TrainingData
from recsys.data.token_store import TokenStore

LENGTHS = [5, 1, 0, 5, 2, 7]


def data(held_back: int = 0) -> TrainingData:
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)]).astype(np.int64)
    items = np.arange(1, offsets[-1] + 1, dtype=np.int32)
    return TrainingData(
        SequenceStore(items, offsets, int(offsets[-1])),
        np.maximum(offsets[:-1], offsets[1:] - held_back),
    )


def pairs(batches: PairBatches, epochs: int = 1) -> list[tuple[list[int], int]]:
    """Every `(history, next item)` of some epochs."""
    found = []
    for epoch in range(epochs):
        for batch in batches.epoch(epoch):
            assert batch.targets is not None and batch.target_places is not None
            assert sorted(batch.last.tolist()) == batch.target_places.tolist()
            items, places = batch.items.flatten(), batch.positions.flatten()
            for last in batch.last.tolist():
                history = items[last - int(places[last]) : last + 1].tolist()
                found.append((history, int(batch.targets.flatten()[last])))
    return found


def lengths_drawn(batches: PairBatches) -> set[int]:
    """How long the histories of the first user are (items 1..5)."""
    return {len(history) for history, target in pairs(batches, 80) if target <= 5}


def test_every_user_has_one_pair_whose_target_follows_the_history() -> None:
    found = pairs(PairBatches(data(), 50, 2))
    assert len(found) == 4  # users of two events and more
    for history, target in found:
        assert history == list(range(history[0], target))


def test_next_items_are_drawn_from_all_or_the_later_half() -> None:
    assert lengths_drawn(PairBatches(data(), 50, 4)) == {1, 2, 3, 4}
    assert lengths_drawn(PairBatches(data(), 50, 4, later_half=True)) == {2, 3, 4}
    assert lengths_drawn(PairBatches(data(held_back=1), 50, 4)) == {1, 2, 3}
    assert lengths_drawn(PairBatches(data(), 2, 4)) == {1, 2}


def test_an_epoch_is_a_function_of_the_seed() -> None:
    one, again, other = (PairBatches(data(), 50, 2, seed=s) for s in (3, 3, 4))
    assert pairs(one, 3) == pairs(again, 3) != pairs(other, 3)


def test_processes_have_equal_shares_of_each_batch() -> None:
    shares = [PairBatches(data(), 50, 1, rank=rank, world_size=3) for rank in range(3)]
    sizes = [[len(batch) for batch in share.epoch(0)] for share in shares]
    assert sizes[0] == sizes[1] == sizes[2]
    assert len(sizes[0]) == len(shares[0]) == 2
    together = [pair for share in shares for pair in pairs(share)]
    assert {target for _, target in together} == {t for _, t in pairs(PairBatches(data(), 50, 3))}


def test_a_batch_is_of_one_domain_and_of_those_who_train() -> None:
    domains = np.array([0, 0, 0, 1, 1, 1], dtype=np.int32)
    trains = np.array([True] * 5 + [False])
    batches = PairBatches(data(), 50, 4, domains=domains, trains=trains)
    assert sorted(len(batch) for batch in batches.epoch(0)) == [1, 2]
    assert len(batches) == 2
    assert not any(target > 13 for _, target in pairs(batches, 20))


def tokens(n_items: int, tokenizer: str = "aa") -> TokenStore:
    return TokenStore(
        tokens=np.arange(10, 10 + n_items, dtype=np.int32),
        types=np.ones(n_items, dtype=np.uint8),
        word_starts=np.ones(n_items, dtype=bool),
        offsets=np.append(0, np.arange(n_items + 1)).astype(np.int64),
        hashes=np.arange(2 * n_items + 2, dtype=np.uint64).reshape(-1, 2),
        rows=np.arange(n_items + 1, dtype=np.int32),
        pad_id=0, cls_id=1, mask_id=2, unknown_id=3, vocabulary_size=100, tokenizer_hash=tokenizer,
    )  # fmt: skip


def test_domains_lie_behind_one_another() -> None:
    n = sum(LENGTHS)
    whole = join_domains([Domain(name, data(1), tokens(n)) for name in ("a", "b")])
    assert whole.first_items.tolist() == [0, n]
    assert whole.domains.tolist() == [0] * 6 + [1] * 6
    assert whole.sentences.n_items == whole.data.store.n_items == 2 * n
    assert whole.data.lengths.tolist() == 2 * data(1).lengths.tolist()
    assert whole.data.events()[1].tolist() == [
        *data(1).events()[1].tolist(),
        *(data(1).events()[1] + n).tolist(),
    ]
    first, length = whole.sentences.spans(np.array([n, n + 1]))
    assert whole.sentences.tokens[first].tolist() == [9 + n, 10]
    assert length.tolist() == [1, 1]


def test_domains_of_two_tokenizers_are_refused() -> None:
    two = [Domain(name, data(), tokens(sum(LENGTHS), name)) for name in ("aa", "bb")]
    with pytest.raises(Exception, match="tokenizer"):
        join_domains(two)
