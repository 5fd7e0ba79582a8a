"""Names and texts of users and items, and the events of one user, from an experiment's prepared data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl

from recsys.data.sequences import SequenceStore, Split, Targets
from recsys.errors import ArtifactError
from recsys.evaluation.inside import Case, read_case, telling_attributes
from recsys.evaluation.measured import RunChoice
from recsys.evaluation.reports import read_json
from recsys.schema import USER

NO_GROUP = "events"


@dataclass(frozen=True)
class Lookup:
    """What the ids of one experiment mean.

    Attributes:
        store: all events, memory-mapped.
        targets: what the split asks for.
        items: the catalogue, with a column `text`, and `group` by the most telling attribute.
        users: external ids, row = dense index; None where the file is gone.
        what: user or list.
        clock: what times are worth.
        key: of the prepared data, by which equal ones are told.
    """

    store: SequenceStore
    targets: Targets
    items: pl.DataFrame
    users: pl.Series | None
    what: str
    clock: str
    key: str
    _rows: dict[str, list[Any]] = field(default_factory=dict, repr=False)

    def text(self, item: int) -> str:
        """Return what a reader calls an item."""
        texts = self._column("text")
        return str(texts[item - 1]) if 0 < item <= len(texts) else str(item)

    def group(self, item: int) -> str:
        """Return the item's value of the attribute that tells items apart best."""
        groups = self._column("group")
        value = groups[item - 1] if 0 < item <= len(groups) else None
        return "none" if value is None else str(value)

    def _column(self, name: str) -> list[Any]:
        if name not in self._rows:
            self._rows[name] = self.items[name].to_list()
        return self._rows[name]

    def name(self, user: int) -> str:
        """Return a user's external id."""
        return str(user) if self.users is None else str(self.users[user])

    def user(self, name: str) -> int | None:
        """Return the dense index of an external id, None if there is none such."""
        if self.users is None:
            return int(name) if name.isdigit() else None
        found = self.users.index_of(name)
        return None if found is None else int(found)


def open_lookup(run: RunChoice) -> Lookup:
    """Open the data that a run was measured on.

    Raises:
        ArtifactError: the prepared data or the sequences are gone, or were prepared anew.
    """
    workspace = run.report.workspace
    manifest = read_json(workspace / "prepared" / "manifest.json")
    if not isinstance(manifest, dict):
        raise ArtifactError(
            f"{workspace / 'prepared'} is gone, so users and items have no names; `recsys prepare` "
            "makes it again"
        )
    made_from = run.report.about.get("data hash", "")
    if made_from and not str(manifest["key"]).startswith(made_from):
        raise ArtifactError(
            f"the data of {workspace.name} were prepared anew since report {run.report.id} was made; "
            "`recsys run` measures with them"
        )
    fold = run.dataset.removeprefix(f"{run.report.experiment}/")
    fold = "main" if fold == run.dataset else fold
    return _open(workspace, str(manifest["key"]), fold, run.split)


@lru_cache(maxsize=8)
def _open(workspace: Path, key: str, fold: str, split: Any) -> Lookup:
    prepared = workspace / "prepared"
    manifest: Any = read_json(prepared / "manifest.json")
    data = manifest["config"]["data"]
    users = prepared / "users.parquet"
    return Lookup(
        store=SequenceStore.load(workspace / "features" / "sequences"),
        targets=Split.load(prepared / "splits" / fold).targets(split),
        items=read_items(prepared / "items.parquet"),
        users=pl.read_parquet(users)[USER].cast(pl.String) if users.is_file() else None,
        what="list" if data.get("kind") == "lists" else "user",
        clock=str(data.get("clock", "absolute")),
        key=key,
    )


def read_items(path: Path) -> pl.DataFrame:
    """Return the catalogue by dense index, with `text` (title, name or id) and `group`.

    Raises:
        ArtifactError: the file is missing.
    """
    if not path.is_file():
        raise ArtifactError(f"{path} is missing; run the prepare stage")
    items = pl.read_parquet(path).sort("item")
    known = [pl.col(name).cast(pl.String) for name in ("title", "name") if name in items.columns]
    items = items.with_columns(text=pl.coalesce([*known, pl.col("item_id").cast(pl.String)]))
    attributes = telling_attributes(items)
    group = next(iter(attributes.values())) if attributes else pl.lit(NO_GROUP)
    return items.with_columns(group=group)


def case_of(runs: Mapping[str, RunChoice], lookup: Lookup, target: int) -> Case:
    """Return one target as all models of a report saw it."""
    files = {model: run.targets for model, run in runs.items()}
    return read_case(files, lookup.store, lookup.targets, target)
