"""The prepare stage: raw files to events in order, vocabularies and splits, in bounded memory.

The input is read once; every step is a map on Ray, over pieces of the input or over partitions of the
users, and what comes out does not depend on how many partitions or workers there are:

1. pieces are validated and their ids coded (`recsys.data.chunks`);
2. with the vocabularies merged, they are made dense and bucketed by user (`recsys.data.partitions`);
3. partitions are sorted and filtered (k-core rounds go over all of them), cut and split
   (`pipelines.folds`), and written as files of whole users.

The driver holds what is as large as the catalogue or the users, never the events.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from pipelines import partition_tasks as tasks
from pipelines.folds import FoldMaker
from pipelines.input_files import fingerprints
from pipelines.ray_session import map_partitions, ray_session, worker_count
from recsys.config import DataConfig, ExperimentConfig, check_clock
from recsys.data import chunks, filters, partitions, splits
from recsys.data.formats import find_files
from recsys.data.heads import check_heads
from recsys.data.items import read_items
from recsys.data.pieces import plan_pieces
from recsys.data.presets import apply_preset
from recsys.data.problems import ProblemReport
from recsys.data.sequences import Int64
from recsys.data.times import FRACTION
from recsys.data.vocabulary import DENSE_ITEM
from recsys.errors import ArtifactError, ConfigError, DataError
from recsys.manifest import is_current, read_manifest, stable_hash, stage_directory
from recsys.schema import BASKET, ITEM, USER

logger = logging.getLogger(__name__)

STAGE_VERSION = 3
DIRECTORY = "prepared"
EVENTS_PER_PARTITION = 2_000_000
EVENTS_PER_FILE = 2_000_000
"""About how many events a file of the result has; a user's events are never cut."""

Bool = npt.NDArray[np.bool_]


def prepare(config: ExperimentConfig) -> Path:
    """Return the finished `prepared/` directory, made anew unless it is current.

    Raises:
        ConfigError: the data and the split do not fit together.
        DataError: input breaks a rule that is set to `fail`, or nothing is left.
    """
    asked, directory = _Asked.of(config), config.workspace / DIRECTORY
    if is_current(directory, asked.key):
        return directory
    _check(config, asked.data)
    with stage_directory(directory, asked.key) as (work, manifest):
        for left in work.iterdir():  # of a killed run: cheap to make again, so begin from nothing
            if left.name != ".key":
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        with ray_session(config.ray):
            summary = _Preparation(config, asked.data, work).run()
        shutil.rmtree(work / "scratch")
        manifest.update(inputs=asked.inputs, config=asked.settings, seed=config.drawn_by, **summary)
    return directory


def prepared_key(config: ExperimentConfig) -> str:
    """Return the hash of everything that makes `prepared/`: settings, and what the input files hold now.

    Raises:
        DataError: an input file is missing.
    """
    return _Asked.of(config).key


@dataclass(frozen=True)
class _Asked:
    """What is to be prepared: data with the preset applied, input files, settings, the hash of all."""

    data: DataConfig
    inputs: dict[str, Any]
    settings: dict[str, Any]
    key: str

    @classmethod
    def of(cls, config: ExperimentConfig) -> _Asked:
        """Look at the configuration and the files."""
        data = apply_preset(config.data)
        events = find_files(data.events, "data.events")
        items = find_files(data.items, "data.items") if data.items else []
        inputs = fingerprints(events + items, _known_inputs(config.workspace / DIRECTORY))
        settings = {
            "data": data.model_dump(mode="json"),
            "split": config.split.model_dump(mode="json"),
            "seed": config.drawn_by,
        }
        # What the files hold counts, not where they lie: the same data have the same key on another
        # machine. The separator counts where it is set: what was prepared before there was one stays.
        apart = {"events", "items"} | ({"separator"} if data.separator == "," else set())
        key = stable_hash(
            {
                **settings,
                "data": data.model_dump(mode="json", exclude=apart),
                "events": [inputs[str(path)]["sha256"] for path in events],
                "items": [inputs[str(path)]["sha256"] for path in items],
                "version": STAGE_VERSION,
            }
        )
        return cls(data, inputs, settings, key)


def check_inputs(config: ExperimentConfig) -> None:
    """Look at the settings and at the first rows of every file, which needs no Ray.

    Raises:
        ConfigError: the data and the split do not fit together.
        DataError: a file is missing or its first rows already refuse it.
    """
    _check(config, apply_preset(config.data))


def _check(config: ExperimentConfig, data: DataConfig) -> None:
    splits.check_split(config.split, data.clock)
    check_clock(config.models, data.clock)
    columns = check_heads(data)
    splits.check_split(config.split, data.clock, BASKET in columns)
    if data.target == "next_basket" and BASKET not in columns:
        raise ConfigError(
            "data.target is next_basket, but the events have no baskets; "
            "map data.columns.basket_id or set data.basket_minutes"
        )


def _known_inputs(directory: Path) -> dict[str, Any]:
    """Return what a finished stage says of its input files; nothing without one."""
    try:
        known: dict[str, Any] = read_manifest(directory)["inputs"]
    except ArtifactError:
        return {}
    return known


@dataclass
class _Preparation:
    """One run of the stage: the driver's side of every step, in order."""

    config: ExperimentConfig
    data: DataConfig
    work: Path
    report: ProblemReport = field(default_factory=ProblemReport)
    fractions: bool = False
    """Whether some times lie between seconds."""

    def __post_init__(self) -> None:
        self.scratch = tasks.Scratch(self.work / "scratch")
        self.pieces = plan_pieces(self.data)
        self.workers = worker_count(self.config.ray)

    def run(self) -> dict[str, Any]:
        """Write everything but the manifest; return what it says about the rows."""
        records, found = read_items(self.data)
        item_records = {"rows": found.rows, "kept": found.kept}
        self.report += replace(found, rows=0, kept=0)  # those two count events alone
        names, columns = self._read()
        users, catalogue = self._merge_vocabularies(names, records)
        bounds = self._partition_bounds(users["events"].to_numpy())
        self._bucket(names, bounds, records is not None)
        users_stay, items_stay = self._sort(names, bounds, len(catalogue))
        # An item that a filter emptied goes; one that never had an event stays, to be ranked cold.
        items_stay[1:] |= (catalogue["events"] == 0).to_numpy()
        parts = self._keep(bounds, users_stay, items_stay)
        users = users.filter(pl.Series(users_stay))
        catalogue = catalogue.filter(pl.Series(items_stay[1:]))
        maker = FoldMaker(
            self.data, self.config.split, self.config.drawn_by, self.scratch, self.workers
        )
        parts, offsets, tables = maker.make(parts, len(catalogue), self.work / "splits")
        self._write_events(parts, offsets)
        self._write_vocabularies(users, catalogue, records)
        n_events = int(offsets[-1])
        problems = {**self.report.to_dict(), "events": n_events, "item_records": item_records}
        _write_json(self.work / "problems.json", problems)
        for line in self.report.lines():
            logger.warning(line)
        return {
            "rows": {
                "events": n_events,
                "users": len(users),
                "items": len(catalogue),
                "items_without_events": int((catalogue["events"] == 0).sum()),
            },
            "kind": self.data.kind,
            "clock": self.data.clock,
            "target": self.data.target,
            "columns": columns,
            "folds": tables,
        }

    def _read(self) -> tuple[list[str], list[str]]:
        """Read all pieces; return the chunks' names in input order and the events' columns."""
        read = partial(tasks.read_chunks, data=self.data, scratch=self.scratch)
        infos: list[tasks.ChunkInfo] = []
        for piece_infos, report in map_partitions(read, self.pieces, self.workers, "read"):
            infos += piece_infos
            self.report += report
        self.report.raise_if_failed()
        self.fractions = any(FRACTION in info.schema for info in infos)
        first = {k: v for k, v in infos[0].schema.items() if k != FRACTION}
        for info in infos:
            may_differ = (USER, ITEM, FRACTION)
            ids_apart = {k: v for k, v in info.schema.items() if k not in may_differ}
            if ids_apart != {k: v for k, v in first.items() if k not in may_differ}:
                raise DataError(
                    f"{self.pieces[int(info.name.split('-')[0])].path} has the columns {info.schema}, "
                    f"{self.pieces[0].path} has {first}; all event files need the same columns and types"
                )
        return [info.name for info in infos], list(first)

    def _merge_vocabularies(
        self, names: list[str], records: pl.DataFrame | None
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return users and catalogue (`id` ascending, `index`, `events`; items also `known`)."""
        directories = [self.scratch.path("chunks", name) for name in names]
        users = chunks.merge_counts([d / chunks.USERS for d in directories])
        items = chunks.merge_counts([d / chunks.ITEMS for d in directories])
        keep = self.data.on_problem.unknown_items != "drop"
        catalogue = chunks.merge_catalogue(items, records, keep)
        if not len(users):
            raise DataError("no events are left; see data.filters and data.on_problem")
        users = users.with_row_index("index")
        catalogue = catalogue.with_row_index("index", offset=1)
        for name, frame in (("users", users), ("items", catalogue)):
            partitions.write_arrow(frame, self.scratch.path("vocabulary", name))
        return users, catalogue

    def _bucket(self, names: list[str], bounds: Int64, has_records: bool) -> None:
        """Write the chunks' shards; report events of items without a record."""
        choice = self.data.on_problem.unknown_items if has_records else None
        write = partial(
            tasks.write_shard,
            scratch=self.scratch,
            bounds=bounds,
            fractions=self.fractions,
            unknown=choice,
            pieces=self.pieces,
        )
        for report in map_partitions(write, names, self.workers, "partition"):
            self.report += report
        self.report.raise_if_failed()
        self.scratch.clear("chunks")

    def _partition_bounds(self, events: Int64) -> Int64:
        wanted = self.config.ray.partitions
        if wanted == "auto":
            wanted = -(-int(events.sum()) // EVENTS_PER_PARTITION)
        return partitions.user_bounds(events, wanted)

    def _sort(self, names: list[str], bounds: Int64, n_items: int) -> tuple[Bool, Bool]:
        """Sort the partitions; return which users and items [n_items + 1] the k-core keeps."""
        limits = self.data.filters
        is_core = limits.min_user_events > 1 or limits.min_item_events > 1
        sorter = tasks.Sorter(
            shards=names,
            bounds=bounds,
            n_items=n_items,
            min_items=limits.min_user_events,
            keep_pairs=is_core,
            shuffle_seed=self.config.drawn_by if self.data.ties == "shuffle" else None,
            duplicates=self.data.on_problem.duplicates,
            pieces=self.pieces,
        )
        users, item_users = _merge_rounds(self._first_round(sorter))
        self.report.raise_if_failed()
        self.scratch.clear("shards")
        alive, before = item_users >= limits.min_item_events, np.ones(n_items + 1, dtype=bool)
        while is_core and not np.array_equal(alive, before):
            np.save(self.scratch.path("core", "items.npy"), alive)
            users, item_users = _merge_rounds(self._core_round(bounds))
            alive, before = item_users >= limits.min_item_events, alive
        return users, alive

    def _first_round(self, sorter: tasks.Sorter) -> Iterator[filters.CoreRound]:
        sort = partial(tasks.sort_partition, scratch=self.scratch, how=sorter)
        count = range(len(sorter.bounds) - 1)
        for found, report in map_partitions(sort, count, self.workers, "sort"):
            self.report += report
            yield found

    def _core_round(self, bounds: Int64) -> Iterator[filters.CoreRound]:
        another = partial(
            tasks.core_round,
            scratch=self.scratch,
            bounds=bounds,
            items_alive=self.scratch.path("core", "items.npy"),
            min_items=self.data.filters.min_user_events,
        )
        return map_partitions(another, range(len(bounds) - 1), self.workers, "k-core")

    def _keep(self, bounds: Int64, users: Bool, items: Bool) -> list[tasks.Partition]:
        """Drop the events of users and items that go; return the partitions with new indices."""
        count = range(len(bounds) - 1)
        if users.all() and items[1:].all():
            spans = zip(count, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
            return [tasks.Partition(self.scratch.path("sorted", p), a, b) for p, a, b in spans]
        tables = [self.scratch.path("core", name) for name in ("new_users.npy", "new_items.npy")]
        np.save(tables[0], filters.new_indices(users))
        np.save(tables[1], filters.new_indices(items, first=1))
        keep = partial(tasks.keep_survivors, scratch=self.scratch, users=tables[0], items=tables[1])
        dropped = sum(map_partitions(keep, count, self.workers, "filter"))
        self.report += ProblemReport(filtered={"k_core": dropped})
        new = np.concatenate([[0], np.cumsum(users)])[bounds]
        spans = zip(count, new[:-1].tolist(), new[1:].tolist(), strict=True)
        kept = [tasks.Partition(self.scratch.path("kept", p), a, b) for p, a, b in spans if b > a]
        if not kept:
            raise DataError(
                "the filters leave no events; lower data.filters.min_user_events "
                f"({self.data.filters.min_user_events}) and min_item_events "
                f"({self.data.filters.min_item_events}), or keep unknown items"
            )
        return kept

    def _write_events(self, parts: list[tasks.Partition], offsets: Int64) -> None:
        """Write the events as files of whole users, cut at places that do not depend on partitions."""
        directory = self.work / "events"
        directory.mkdir()
        marks = np.arange(EVENTS_PER_FILE, offsets[-1], EVENTS_PER_FILE)
        cuts = np.unique(offsets[np.searchsorted(offsets, marks)])
        ends = [*(cut for cut in cuts.tolist() if 0 < cut < offsets[-1]), int(offsets[-1])]
        files = []
        for n, (first, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            slices = []
            for part in parts:
                low, high = int(offsets[part.first_user]), int(offsets[part.end_user])
                if low < end and first < high:
                    begin = max(first, low)
                    slices.append((part.path, begin - low, min(end, high) - begin))
            files.append(tasks.Part(directory / f"part-{n:05d}.parquet", slices))
        written = sum(map_partitions(tasks.write_part, files, self.workers, "write"))
        if written != offsets[-1]:
            raise RuntimeError(f"{written} events were written, {offsets[-1]} were split")

    def _write_vocabularies(
        self, users: pl.DataFrame, catalogue: pl.DataFrame, records: pl.DataFrame | None
    ) -> None:
        """Write `users.parquet` and `items.parquet`, the latter with the attributes."""
        users.select(pl.col("id").alias(USER)).write_parquet(self.work / "users.parquet")
        dense = np.arange(1, len(catalogue) + 1, dtype=np.int32)
        items = catalogue.select(pl.col("id").alias(ITEM)).with_columns(
            pl.Series(DENSE_ITEM, dense)
        )
        if records is not None:
            items = items.join(records, on=ITEM, how="left", maintain_order="left")
        items.write_parquet(self.work / "items.parquet")


def _merge_rounds(rounds: Iterable[filters.CoreRound]) -> tuple[Bool, Int64]:
    users, item_users = [], None
    for found in rounds:
        users.append(found.users)
        item_users = found.item_users if item_users is None else item_users + found.item_users
    if item_users is None:
        raise ValueError("no partitions")
    return np.concatenate(users), item_users


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
