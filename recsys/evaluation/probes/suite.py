"""The suite: every question asked of every model's vectors of the same lists, changes and folds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.config.probes import ProbeConfig
from recsys.data.sequences import Int32
from recsys.evaluation.intervals import bootstrap, mean_over_users
from recsys.evaluation.probes.changes import changed
from recsys.evaluation.probes.classify import accuracy_row, predict_across_folds
from recsys.evaluation.probes.lists import Label, ProbeLists, label_of
from recsys.evaluation.probes.retrieval import RECALLS, chance, interpolated_precision

Floats = npt.NDArray[np.float32]
Embed = Callable[[list[Int32]], Floats]
"""Makes vectors float32 [N, E] of lists of item indices."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Suite:
    """The questions, the same for every model.

    Attributes:
        lists: what is asked about.
        labels: of lists, made by nothing that a model has seen.
        config: of the probes.
        seed: of changes, folds and samples.
    """

    lists: ProbeLists
    labels: tuple[Label, ...]
    config: ProbeConfig
    seed: int

    def ask(self, embed: Embed) -> Iterator[Row]:
        """Yield a row for every question: `task`, `detail`, and the figures."""
        vectors = embed(self.lists.songs)
        for label in self.labels:
            yield self._label(vectors, label)
        for label in self.labels:
            yield from self._retrieval(vectors, label)
        for change in self.config.changes:
            for share in self.config.shares:
                if (row := self._permutation(vectors, embed, change, share)) is not None:
                    yield row

    def _label(self, vectors: Floats, label: Label) -> Row:
        found = predict_across_folds(
            vectors[label.rows], label.classes, label.rows, self.config, self.seed
        )
        row = accuracy_row(label.classes, found, label.rows, self.config, self.seed)
        return {"task": "label", "detail": label.name, **row, "left_out": label.left_out}

    def _permutation(self, vectors: Floats, embed: Embed, change: Any, share: float) -> Row | None:
        """Ask which of a list and its changed form is which; both are judged of every list.

        So whoever cannot tell them apart is right about exactly one of the two.
        """
        rng = np.random.default_rng((self.seed, 4, round(share * 1000), len(change)))
        others = [changed(one, change, share, rng) for one in self.lists.songs]
        rows = np.array([row for row, other in enumerate(others) if other is not None])
        if len(rows) < 2 * self.config.folds:
            return None
        made = embed([other for other in others if other is not None])
        both = np.concatenate([vectors[rows], made])
        classes = np.repeat(np.array([0, 1]), len(rows))
        lists = np.tile(rows, 2)
        found = predict_across_folds(both, classes, lists, self.config, self.seed)
        row = accuracy_row(classes, found, lists, self.config, self.seed)
        left = len(self.lists) - len(rows)
        detail = f"{change} {share:.0%}"
        return {"task": "permutation", "detail": detail, **row, "left_out": left}

    def _retrieval(self, vectors: Floats, label: Label) -> Iterator[Row]:
        """Yield the interpolated precision at each recall, with its interval over queries."""
        rng = np.random.default_rng((self.seed, 5))
        count = min(self.config.queries, len(label.rows))
        queries = np.sort(rng.choice(len(label.rows), count, replace=False))
        curve = interpolated_precision(vectors[label.rows], label.classes, queries)
        draws = np.random.default_rng((self.seed, 6))
        low, high = bootstrap(curve, self.config.bootstrap, self.config.level, draws)
        base, mean = chance(label.classes, queries), mean_over_users(curve)
        for place, recall in enumerate(RECALLS):
            yield {
                "task": "retrieval",
                "detail": f"{label.name} at recall {recall:g}",
                "value": float(mean[place]),
                "low": float(low[place]),
                "high": float(high[place]),
                "base": base,
                "lists": len(label.rows),
                "examples": count,
                "classes": len(label.names),
                "left_out": label.left_out,
            }


def labels_of_lists(
    lists: ProbeLists, table: pl.DataFrame, item_values: pl.Series | None, config: ProbeConfig
) -> tuple[tuple[Label, ...], list[str]]:
    """Return the labels that there are, and the names of those that have fewer than two classes.

    Beside the columns of `table` [N rows]: the length in songs, which of `songs` songs the list holds,
    and, by an attribute of items, its most frequent value and how many it has.

    Args:
        lists: N lists.
        table: what is known of them from elsewhere.
        item_values: an attribute of item 0..V as texts, null where unknown (0 is PAD).
        config: of the probes.
    """
    columns: dict[str, pl.Series] = {name: table[name] for name in table.columns}
    columns["length"] = pl.Series("length", lists.lengths)
    columns["song content"] = song_content(lists, config.songs)
    if item_values is not None and config.item_label is not None:
        texts = item_values.cast(pl.String).to_list()
        values = [[texts[item] for item in one if texts[item] is not None] for one in lists.songs]
        columns[config.item_label] = pl.Series(config.item_label, [_most(one) for one in values])
        distinct = [len(set(one)) if one else None for one in values]
        columns["diversity"] = pl.Series("diversity", distinct, dtype=pl.Int64)
    made = {name: label_of(name, series.alias(name), config) for name, series in columns.items()}
    labels = tuple(label for label in made.values() if label is not None)
    return labels, [name for name, label in made.items() if label is None]


def song_content(lists: ProbeLists, songs: int) -> pl.Series:
    """Return which one of `songs` songs each list holds, as text; null for none or several.

    They are the songs whose number of lists is nearest to N / songs (ties: the smaller index), so that a
    list holds one of them on average.
    """
    pairs = [np.unique(one) for one in lists.songs]
    flat = np.concatenate([np.zeros(0, dtype=np.int32), *pairs])
    counts = np.bincount(flat)
    known = np.flatnonzero(counts)
    order = np.argsort(np.abs(counts[known] - len(lists) / songs), kind="stable")
    chosen = known[order[:songs]]
    held = [one[np.isin(one, chosen)] for one in pairs]
    return pl.Series("song content", [str(h[0]) if len(h) == 1 else None for h in held])


def _most(values: list[str]) -> str | None:
    """Return the most frequent text, ties by the alphabet; None for no texts."""
    return min(set(values), key=lambda one: (-values.count(one), one)) if values else None


def facts(lists: ProbeLists, labels: tuple[Label, ...]) -> Mapping[str, Any]:
    """Return what a report should say of the lists and labels."""
    lengths = lists.lengths
    return {
        "lists": len(lists),
        "songs_per_list": {
            "least": int(lengths.min()),
            "median": float(np.median(lengths)),
            "most": int(lengths.max()),
        },
        "left_out": dict(lists.left_out),
        "labels": {
            label.name: {
                "classes": dict(zip(label.names, np.bincount(label.classes).tolist(), strict=True))
                if len(label.names) <= 30
                else len(label.names),
                "left_out": label.left_out,
            }
            for label in labels
        },
    }
