"""A trie of item codes: which code may come next, so that every list of codes is some item's."""

from __future__ import annotations

import numpy as np

from recsys.data.sequences import Int64
from recsys.errors import DataError
from recsys.retrieval.exclusion import Bools


class Trie:
    """Codes of equal length as sorted keys, one array a level; nothing is walked in Python.

    A node of level l is the number of its prefix of l codes; its child by code c has the key
    `node * span + c` at the next level.

    Args:
        codes: int64 [V, L]; row i is the code of item i + 1, tokens are numbered from 1.

    Raises:
        DataError: two items share a code, or a token is below 1.
    """

    def __init__(self, codes: Int64) -> None:
        self.codes = np.asarray(codes, dtype=np.int64)
        if self.codes.size and self.codes.min() < 1:
            raise DataError(f"a code holds token {self.codes.min()}; tokens are numbered from 1")
        self.span = int(self.codes.max(initial=0)) + 1
        self.levels: list[Int64] = []
        nodes = np.zeros(len(self.codes), dtype=np.int64)
        for column in self.codes.T:
            keys, nodes = np.unique(nodes * self.span + column, return_inverse=True)
            self.levels.append(keys)
        if self.levels and len(self.levels[-1]) < len(self.codes):
            first = int(np.flatnonzero(np.bincount(nodes) > 1)[0])
            shared = (np.flatnonzero(nodes == first)[:2] + 1).tolist()
            raise DataError(
                f"items {shared[0]} and {shared[1]} have the same code; make codes unique"
            )
        self._item_of_leaf = np.argsort(nodes, kind="stable") + 1

    @property
    def depth(self) -> int:
        """Codes of an item."""
        return len(self.levels)

    def without(self, items: Int64) -> Trie:
        """Return the trie of the other items, whose numbers `items_of` would then count anew."""
        return Trie(np.delete(self.codes, np.asarray(items, dtype=np.int64) - 1, axis=0))

    def permits(self, chosen: Int64, tokens: Int64) -> Bools:
        """Tell which tokens [R, C] may follow the codes chosen so far [R, S], bool [R, C]."""
        node = self._walk(chosen)
        keys = node[:, None] * self.span + tokens
        known = (node[:, None] >= 0) & (tokens > 0) & (tokens < self.span)
        return known & (self._place(chosen.shape[1], keys) >= 0)

    def items_of(self, chosen: Int64) -> Int64:
        """Return the items of whole codes [R, L], int64 [R]; 0 where there is none."""
        leaf = self._walk(chosen)
        return np.where(leaf < 0, 0, self._item_of_leaf[leaf])

    def _walk(self, chosen: Int64) -> Int64:
        """Return the node of each prefix, -1 where there is none."""
        node = np.zeros(len(chosen), dtype=np.int64)
        for level, tokens in enumerate(chosen.T):
            known = (node >= 0) & (tokens > 0) & (tokens < self.span)
            node = np.where(known, self._place(level, node * self.span + tokens), -1)
        return node

    def _place(self, level: int, keys: Int64) -> Int64:
        """Return the places of keys at a level, -1 for what is not there."""
        there = self.levels[level]
        if not len(there):
            return np.full(keys.shape, -1, dtype=np.int64)
        place = np.searchsorted(there, keys).clip(max=len(there) - 1)
        return np.where(there[place] == keys, place, -1)
