"""Sentences of histories against the oracles of the specification (word-level ids)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recsys.data.item_sentences import SentenceBatch, history_sentences, item_sentences
from recsys.data.token_store import TokenStore
from recsys.errors import ArtifactError

# Item 1 is {title: red lamp, brand: acme, category: home}, item 2 {title: blue chair, brand: "",
# category: home, color: red}; an empty value keeps its name. Items 3 and 4 have no text and item 1's.
RED_LAMP = [10, 13, 14, 11, 15, 12, 16]
BLUE_CHAIR = [10, 17, 18, 11, 12, 16]
TYPES = [[1, 2, 2, 1, 2, 1, 2], [1, 2, 2, 1, 1, 2]]


@pytest.fixture
def store() -> TokenStore:
    tokens = RED_LAMP + BLUE_CHAIR
    return TokenStore(
        tokens=np.array(tokens, dtype=np.int32),
        types=np.array(TYPES[0] + TYPES[1], dtype=np.uint8),
        word_starts=np.array([t != 14 for t in tokens]),
        offsets=np.array([0, 0, 7, 13]),
        hashes=np.array([[0, 0], [1, 2], [3, 4]], dtype=np.uint64),
        rows=np.array([0, 1, 2, 0, 1], dtype=np.int32),
        pad_id=99,
        cls_id=0,
        mask_id=1,
        unknown_id=2,
        vocabulary_size=100,
        tokenizer_hash="ab" * 32,
    )


def sentences(
    store: TokenStore, *histories: list[int], max_items: int = 50, max_tokens: int = 1024
) -> SentenceBatch:
    ends = np.cumsum([len(h) for h in histories], dtype=np.int64)
    items = np.array([i for h in histories for i in h], dtype=np.int32)
    begin = np.append(0, ends)[: len(ends)].astype(np.int64)
    return history_sentences(store, items, begin, ends, max_items=max_items, max_tokens=max_tokens)


def test_newest_item_comes_first_behind_cls(store: TokenStore) -> None:
    batch = sentences(store, [1, 2])
    assert batch.ids.tolist() == [[0, 10, 17, 18, 11, 12, 16, 10, 13, 14, 11, 15, 12, 16]]
    assert batch.types.tolist() == [[0, *TYPES[1], *TYPES[0]]]
    assert batch.item_positions.tolist() == [[0] + [1] * 6 + [2] * 7]
    assert batch.lengths.tolist() == [14]
    assert batch.word_starts[0].tolist() == [i != 9 for i in range(14)]


def test_limits_cut_the_sentence_and_the_history(store: TokenStore) -> None:
    assert sentences(store, [1, 2], max_tokens=6).ids.tolist() == [[0, 10, 17, 18, 11, 12]]
    assert sentences(store, [1, 2], max_tokens=9).ids[0, 6:].tolist() == [16, 10, 13]
    assert sentences(store, [1, 2], max_items=1).ids.tolist() == [[0, *BLUE_CHAIR]]
    assert sentences(store, [1, 2], max_tokens=1).ids.tolist() == [[0]]


def test_histories_of_a_batch_do_not_touch(store: TokenStore) -> None:
    batch = sentences(store, [], [2], [1, 3, 2], [3], max_items=2)
    assert batch.lengths.tolist() == [1, 7, 7, 1]
    assert batch.ids[0].tolist() == [0] + [99] * 6
    assert batch.ids[1].tolist() == batch.ids[2].tolist() == [0, *BLUE_CHAIR]
    assert batch.types[3].tolist() == [0] + [3] * 6
    assert batch.item_positions[3].tolist() == [0] + [2] * 6
    assert not batch.word_starts[3, 1:].any()


def test_an_item_without_text_keeps_its_position(store: TokenStore) -> None:
    batch = sentences(store, [1, 3])
    assert batch.ids.tolist() == [[0, *RED_LAMP]]
    assert batch.item_positions.tolist() == [[0] + [2] * 7]


def test_an_empty_history_is_cls_alone_and_no_histories_are_an_empty_batch(
    store: TokenStore,
) -> None:
    assert sentences(store, []).ids.tolist() == [[0]]
    none = sentences(store)
    assert len(none) == 0 and none.ids.shape == (0, 1)


def test_an_item_is_a_history_of_itself(store: TokenStore) -> None:
    items = np.array([2, 1, 0, 4])
    batch = item_sentences(store, items, max_items=50, max_tokens=5)
    alone = sentences(store, [2], [1], [], [4], max_tokens=5)
    assert batch.ids.tolist() == alone.ids.tolist()
    assert batch.item_positions.tolist() == alone.item_positions.tolist()
    assert batch.ids[1].tolist() == batch.ids[3].tolist() == [0, *RED_LAMP[:4]]


def test_of_every_item_the_first_tokens_are_read(store: TokenStore) -> None:
    limits = {"max_items": 50, "max_tokens": 9, "item_tokens": 3}
    batch = history_sentences(store, np.array([1, 2]), np.array([0]), np.array([2]), **limits)
    assert batch.ids[0].tolist() == [0, *BLUE_CHAIR[:3], *RED_LAMP[:3]]
    assert item_sentences(store, np.array([1]), **limits).ids[0].tolist() == [0, *RED_LAMP[:3]]


def test_random_histories_equal_a_plain_loop(store: TokenStore) -> None:
    rng = np.random.default_rng(3)
    texts = [[], RED_LAMP, BLUE_CHAIR, [], RED_LAMP]
    for _ in range(50):
        histories = [rng.integers(0, 5, rng.integers(0, 6)).tolist() for _ in range(4)]
        max_items, max_tokens = int(rng.integers(1, 6)), int(rng.integers(1, 30))
        batch = sentences(store, *histories, max_items=max_items, max_tokens=max_tokens)
        for row, history in enumerate(histories):
            read = history[::-1][:max_items]
            ids = [0] + [token for item in read for token in texts[item]]
            where = [0] + [k + 1 for k, item in enumerate(read) for _ in texts[item]]
            n = min(len(ids), max_tokens)
            assert batch.lengths[row] == n
            assert batch.ids[row, :n].tolist() == ids[:n]
            assert batch.item_positions[row, :n].tolist() == where[:n]
            assert (batch.ids[row, n:] == 99).all()


def test_a_store_is_opened_memory_mapped_as_it_was_saved(store: TokenStore, tmp_path: Path) -> None:
    store.save(tmp_path / "tokens")
    again = TokenStore.load(tmp_path / "tokens")
    assert isinstance(again.tokens, np.memmap)
    assert sentences(again, [1, 2, 4]).ids.tolist() == sentences(store, [1, 2, 4]).ids.tolist()
    assert again.item_hashes().tolist() == store.item_hashes().tolist()
    assert (again.mask_id, again.vocabulary_size) == (1, 100)
    assert again.lengths().tolist() == [0, 7, 6, 0, 7]


def test_a_missing_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nowhere holds no item sentences .*recsys features"):
        TokenStore.load(tmp_path / "nowhere")


def test_known_items_and_new_ones_make_one_history(store: TokenStore) -> None:
    some = store.take(np.array([2, 3, 2]))
    assert (some.n_items, some.n_texts) == (3, 2)
    assert sentences(some, [1, 2, 3]).ids.tolist() == sentences(store, [2, 3, 2]).ids.tolist()
    new = store.take(np.array([3, 1]))
    both = some.extended(new)
    assert both.rows.tolist() == [0, 1, 0, 1, 0, 2]
    assert sentences(both, [1, 5, 4]).ids.tolist() == sentences(store, [2, 1, 3]).ids.tolist()


def test_only_what_occurs_is_kept_and_padding_stays(store: TokenStore) -> None:
    items = np.array([[0, 4, 2], [4, 0, 4]])
    some, places = store.only(items)
    assert (some.n_items, places.tolist()) == (2, [[0, 2, 1], [2, 0, 2]])
    for item, place in zip(items.ravel(), places.ravel(), strict=True):
        assert sentences(some, [place]).ids.tolist() == sentences(store, [item]).ids.tolist()
    nothing, places = store.only(np.zeros((2, 3), dtype=np.int64))
    assert (nothing.n_items, nothing.n_texts, places.tolist()) == (0, 1, [[0] * 3] * 2)


def test_tokens_of_another_tokenizer_do_not_join(store: TokenStore) -> None:
    with pytest.raises(ArtifactError, match=r"tokenizer cdcdcdcd cannot join .*abababab"):
        store.extended(replace(store, tokenizer_hash="cd" * 32))
