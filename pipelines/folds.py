"""The folds of a split: exact cuts over all partitions, their targets, and the leakage tables."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import partition_tasks as tasks
from pipelines.ray_session import map_partitions
from recsys.config import DataConfig, SplitConfig
from recsys.data import leakage, quantile, splits
from recsys.data.sequences import Int64
from recsys.data.splits import Fold
from recsys.errors import DataError

logger = logging.getLogger(__name__)

LEAKAGE = "leakage.json"


@dataclass(frozen=True)
class FoldMaker:
    """What all steps of making folds share."""

    data: DataConfig
    split: SplitConfig
    seed: int
    scratch: tasks.Scratch
    workers: int

    def make(
        self, parts: Sequence[tasks.Partition], n_items: int, directory: Path
    ) -> tuple[list[tasks.Partition], Int64, dict[str, Any]]:
        """Write `directory/<fold>/` for every fold.

        Returns the partitions with their events in the last order (a random continuation moves the
        hidden ones to the end), the store's offsets (int64 [U + 1]) and fold -> leakage table.
        """
        by, folds = self._cut(parts)
        parts, lengths, totals = self._split(parts, by, folds, n_items)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        older = self._count_older(parts, folds, totals)
        tables = {}
        for fold, counts, old in zip(folds, totals, older, strict=True):
            self._check_fold(fold, counts)
            loaded = (
                (tasks.load_split(part, fold, self.scratch), int(offsets[part.first_user]))
                for part in parts
            )
            splits.join_splits(loaded).save(directory / fold.name)
            cuts_are_times = by in ("moments", "starts")
            table = leakage.leakage_table(counts, fold, old, cuts_are_times, self.data.filters)
            text = json.dumps(table, indent=2) + "\n"
            (directory / fold.name / LEAKAGE).write_text(text, encoding="utf-8")
            tables[fold.name] = table
        return parts, offsets, tables

    def _cut(self, parts: Sequence[tasks.Partition]) -> tuple[str | None, list[Fold]]:
        """Return what the folds are cut by, and the folds."""
        by = splits.cuts_by(self.split, self.data.kind, self.data.clock)
        if by is None:
            return None, splits.plan_folds(self.split, None, self.data.time_unit)
        cut_keys = partial(splits.cut_keys, by=by, target=self.data.target, seed=self.seed)

        def count(first: int, width: int) -> Int64:
            task = partial(tasks.key_histogram, keys=cut_keys, first=first, width=width)
            total = np.zeros(quantile.BINS, dtype=np.int64)
            for part in map_partitions(task, parts, self.workers, "cut"):
                total += part
            return total

        bounds = list(
            map_partitions(partial(tasks.key_bounds, keys=cut_keys), parts, self.workers, "cut")
        )
        low, high, total = (list(values) for values in zip(*bounds, strict=True))
        keys = quantile.Distribution(count, min(low), max(high), sum(total))
        return by, splits.plan_folds(self.split, keys, self.data.time_unit)

    def _split(
        self, parts: Sequence[tasks.Partition], by: str | None, folds: list[Fold], n_items: int
    ) -> tuple[list[tasks.Partition], Int64, list[leakage.LeakageCounts]]:
        """Split every partition; return the partitions, run lengths [U], and each fold's counts."""
        how = tasks.Splitter(self.data, self.split, by, folds, n_items, self.seed)
        task = partial(tasks.split_partition, scratch=self.scratch, how=how)
        split_parts, lengths = [], []
        totals: list[leakage.LeakageCounts] = []
        for result in map_partitions(task, parts, self.workers, "split"):
            split_parts.append(result.partition)
            lengths.append(result.lengths)
            found = result.leakage
            totals = [a + b for a, b in zip(totals, found, strict=True)] if totals else found
        return split_parts, np.concatenate(lengths), totals

    def _count_older(
        self,
        parts: Sequence[tasks.Partition],
        folds: list[Fold],
        totals: list[leakage.LeakageCounts],
    ) -> list[dict[str, int] | None]:
        """Return per fold the held-out events older than training's newest; None: not comparable."""
        if self.data.clock != "absolute":
            return [None] * len(folds)
        newest = [counts.newest_training for counts in totals]
        task = partial(tasks.count_older, scratch=self.scratch, folds=folds, newest=newest)
        total = [{"validation": 0, "test": 0} for _ in folds]
        for part in map_partitions(task, parts, self.workers, "leakage"):
            total = [{k: a[k] + b[k] for k in a} for a, b in zip(total, part, strict=True)]
        for fold, counts, old in zip(folds, totals, total, strict=True):
            if old["test"]:
                better = self.split.kind in ("leave_one_out", "last_n")
                logger.warning(
                    "split %s (fold %s): %d of %d test events are older than the newest training "
                    "event, so training looks into their future%s",
                    *(self.split.kind, fold.name, old["test"], counts.test.events),
                    "; split.kind global_time does not" if better else "",
                )
        return list(total)

    def _check_fold(self, fold: Fold, counts: leakage.LeakageCounts) -> None:
        split = self.split.kind
        if not counts.training_events or not counts.test.targets:
            what = "nothing to train on" if counts.test.targets else "no test targets"
            raise DataError(
                f"split {split} (fold {fold.name}) leaves {what}: {counts.training_events} training "
                f"events, {counts.test.targets} test targets; change the split or loosen data.filters"
            )
        if not counts.validation.targets:
            logger.warning("split %s (fold %s) has no validation targets", split, fold.name)
