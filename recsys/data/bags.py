"""Bags of tokens: how often each token stands in an item's sentence, weighted by how rare it is.

    idf_t = ln((1 + n) / (1 + n_t)) + 1,      w_it = (1 + ln count_it) idf_t,      ||w_i|| = 1

n are the items that idf is counted on (those with training events), n_t those of them whose sentence has
token t. Tokens of attributes' names are in every sentence and say nothing; they are left out.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

from recsys.data.token_store import VALUE_TYPE, TokenStore

Float32 = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Bag = tuple[tuple[int, float], ...]
"""The bag of one item: its tokens and their weights."""


def token_counts(store: TokenStore) -> sparse.csr_matrix:
    """Return how often each token of a value stands in each item's sentence, [N + 1, vocabulary]."""
    text = np.repeat(np.arange(store.n_texts), np.diff(store.offsets))
    value = np.asarray(store.types) == VALUE_TYPE
    entries = (np.ones(int(value.sum()), dtype=np.float32), (text[value], store.tokens[value]))
    shape = (store.n_texts, store.vocabulary_size)
    return sparse.csr_matrix(entries, shape=shape)[store.rows]


def inverse_frequency(counts: sparse.csr_matrix, learned: Bools) -> Float32:
    """Return idf of every token, float32 [vocabulary], counted on the items `learned`, bool [N + 1]."""
    n_t = np.asarray((counts[learned] > 0).sum(axis=0)).ravel()
    idf: Float32 = (np.log((1 + learned.sum()) / (1 + n_t)) + 1).astype(np.float32)
    return idf


def weighted_bags(counts: sparse.csr_matrix, idf: Float32) -> sparse.csr_matrix:
    """Return unit-length bags of tokens, float32 [N + 1, vocabulary]; 0 for an item without tokens."""
    bags = counts.copy()
    bags.data = 1 + np.log(bags.data)
    bags = bags.multiply(idf).tocsr()
    norms = np.sqrt(np.asarray(bags.multiply(bags).sum(axis=1))).ravel()
    scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    scaled: sparse.csr_matrix = sparse.diags(scale).dot(bags).tocsr().astype(np.float32)
    scaled.sort_indices()
    return scaled
