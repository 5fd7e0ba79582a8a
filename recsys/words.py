"""Items by the words of their titles and other texts: for a search field, and to place a new item.

    weight(word) = ln(1 + N / n)                    N items, of which n have the word
    likeness(a, b) = sum of weight^2 of common words / (norm(a) norm(b)),    norm = root of the sum of all

Words are runs of letters and digits in lower case, each counted once an item.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.schema import ITEM

WORD: Final = re.compile(r"\w+")
MAX_WORDS: Final = 200
"""Words read of one text."""


def words_of(texts: Iterable[object]) -> list[str]:
    """Return the distinct words of some texts, in order."""
    found = (word for text in texts for word in WORD.findall(str(text or "").lower()))
    return list(dict.fromkeys(found))[:MAX_WORDS]


class Words:
    """An index of the words of a catalogue's texts.

    Args:
        items: the catalogue's table; its text columns but the id are read.
    """

    def __init__(self, items: pl.DataFrame) -> None:
        columns = [n for n, dtype in items.schema.items() if dtype == pl.String and n != ITEM]
        self.ids: list[str] = items[ITEM].to_list()
        texts = items.select(columns).rows() if columns else [()] * len(items)
        owners: dict[str, list[int]] = {}
        for row, own in enumerate(texts):
            for word in words_of(own):
                owners.setdefault(word, []).append(row)
        self._owners = {word: np.array(rows, dtype=np.int64) for word, rows in owners.items()}
        squares = np.zeros(len(items))
        for rows in self._owners.values():
            squares[rows] += self._weight(rows) ** 2
        self._norms = np.sqrt(np.maximum(squares, 1e-12))

    def search(self, text: str, k: int) -> list[str]:
        """Return ids of items that have all words of a text, the last as a beginning; shortest first."""
        asked = words_of([text])
        if not asked:
            return []
        *whole, start = asked
        rows = np.unique(
            np.concatenate(
                [np.zeros(0, dtype=np.int64)]
                + [rows for word, rows in self._owners.items() if word.startswith(start)]
            )
        )
        for word in whole:
            rows = np.intersect1d(rows, self._owners.get(word, rows[:0]), assume_unique=True)
        order = np.argsort(self._norms[rows], kind="stable")[:k]
        return [self.ids[row] for row in rows[order].tolist()]

    def alike(self, texts: Mapping[str, str], k: int) -> list[tuple[str, float]]:
        """Return up to k `(item id, likeness)` of items that share words, most alike first."""
        known = [
            rows for word in words_of(texts.values()) if (rows := self._rows(word)) is not None
        ]
        if not known:
            return []
        found: Counter[int] = Counter()
        own = 0.0
        for rows in known:
            square = self._weight(rows) ** 2
            own += square
            found.update(dict.fromkeys(rows.tolist(), square))
        scores = {row: s / (np.sqrt(own) * self._norms[row]) for row, s in found.items()}
        best = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:k]
        return [(self.ids[row], float(score)) for row, score in best]

    def _rows(self, word: str) -> npt.NDArray[np.int64] | None:
        """Return the items that have a word; None if none, or if nearly all do."""
        rows = self._owners.get(word)
        return None if rows is None or len(rows) > max(10, len(self.ids) // 4) else rows

    def _weight(self, rows: npt.NDArray[np.int64]) -> float:
        return float(np.log1p(len(self.ids) / len(rows)))
