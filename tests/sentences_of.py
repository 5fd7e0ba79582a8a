"""Catalogues of made-up sentences, for tests of what reads tokens."""

from __future__ import annotations

import numpy as np

from recsys.data.token_store import TokenStore

KEY, FIRST_WORD = 4, 5


def token_store(words: list[list[int]], vocabulary: int, tokenizer: str = "ab" * 32) -> TokenStore:
    """Items 1, 2, ... with the text `key word word ...`; words are numbered from 0; none: no text."""
    texts = [[]] + [[KEY, *(FIRST_WORD + w for w in some)] for some in words if some]
    rows, at = [0], 0
    for some in words:
        at += bool(some)
        rows.append(at if some else 0)
    lengths = [len(text) for text in texts]
    flat = [token for text in texts for token in text]
    hashes = [[0, 0]] + [[hash(tuple(t)) & 0xFFFF_FFFF, len(t)] for t in texts[1:]]
    return TokenStore(
        tokens=np.array(flat, dtype=np.int32),
        types=np.array([1 if t == KEY else 2 for t in flat], dtype=np.uint8),
        word_starts=np.ones(len(flat), dtype=bool),
        offsets=np.cumsum([0, *lengths]).astype(np.int64),
        hashes=np.array(hashes, dtype=np.uint64),
        rows=np.array(rows, dtype=np.int32),
        pad_id=0,
        cls_id=1,
        mask_id=2,
        unknown_id=3,
        vocabulary_size=FIRST_WORD + vocabulary,
        tokenizer_hash=tokenizer,
    )


def ring_store(n_items: int, tokenizer: str = "ab" * 32) -> TokenStore:
    """Item i is written as its own word and the next item's, so that text tells what follows what."""
    return token_store([[i, (i + 1) % n_items] for i in range(n_items)], n_items, tokenizer)
