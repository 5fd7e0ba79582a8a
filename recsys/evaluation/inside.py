"""One user looked at: the history, what was held out, and what every model put where.

Everything comes from the packed sequences, the split and the rows that the evaluation keeps; no model is
loaded. A row of a million is found by its row group, not by reading the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from recsys.data.sequences import Int32, Int64, SequenceStore, Targets
from recsys.errors import ArtifactError
from recsys.evaluation.by_user import UserValues
from recsys.evaluation.metrics import Float64

NEWEST: Final = 200
"""Events of a history that are shown at most."""


@dataclass(frozen=True)
class Answer:
    """What one model said to a target.

    Attributes:
        top: int32, the model's list, best first, without the PAD at its end.
        ranks: relevant item -> its rank among all permitted items; infinite where the exclusion
            forbids it.
    """

    top: Int32
    ranks: dict[int, float]


@dataclass(frozen=True)
class Case:
    """One target of one user.

    Attributes:
        user: dense index.
        target: its row in the split.
        history: int32, the newest items before the target, oldest first.
        times: int64 seconds of those events, or None.
        history_length: all events before the target.
        asked_at: seconds of the target's first event, or None.
        relevant: int32, the held-out items.
        answers: model -> what it said.
    """

    user: int
    target: int
    history: Int32
    times: Int64 | None
    history_length: int
    asked_at: int | None
    relevant: Int32
    answers: dict[str, Answer]


def targets_of(path: Path, user: int) -> Int64:
    """Return the rows of the split that a user's ranked targets have, int64, ascending."""
    found = _scan(path).filter(pl.col("user") == user).select("target").collect()
    return found["target"].to_numpy().astype(np.int64)


def first_hit(path: Path, user: int) -> int | None:
    """Return the user's target whose best item a model ranks highest; the earliest of equal ones."""
    best = pl.col("ranks").list.min()
    mine = _scan(path).filter(pl.col("user") == user).select("target", best=best).collect()
    return None if not len(mine) else int(mine.sort("best", "target")["target"][0])


def read_case(
    files: Mapping[str, Path], store: SequenceStore, targets: Targets, target: int
) -> Case:
    """Return one target as all models saw it.

    Args:
        files: model -> its rows per target.
        store: all events.
        targets: of the split that was ranked.
        target: the row in `targets`.

    Raises:
        ArtifactError: a file is missing or damaged, or does not have the target.
    """
    answers = {model: _answer(path, target) for model, path in files.items()}
    user, start, end = (int(x[target]) for x in (targets.user, targets.start, targets.end))
    begin = int(store.offsets[user])
    first = max(begin, start - NEWEST)
    times = store.timestamps
    relevant = np.unique(np.asarray(store.items[start:end]))
    return Case(
        user=user,
        target=target,
        history=np.asarray(store.items[first:start]),
        times=None if times is None else np.asarray(times[first:start]),
        history_length=start - begin,
        asked_at=None if times is None else int(times[start]),
        relevant=relevant,
        answers=answers,
    )


def _answer(path: Path, target: int) -> Answer:
    rows = _scan(path).filter(pl.col("target") == target).select("items", "ranks", "top").collect()
    if not len(rows):
        raise ArtifactError(f"{path} has no row of target {target}; the exclusion left it out")
    row = rows.row(0, named=True)
    top = np.asarray(row["top"], dtype=np.int32)
    ranks = dict(zip(row["items"], row["ranks"], strict=True))
    return Answer(top[top > 0], {int(item): float(rank) for item, rank in ranks.items()})


def _scan(path: Path) -> pl.LazyFrame:
    if not path.is_file():
        raise ArtifactError(f"{path} is missing; run the evaluate stage")
    try:
        frame = pl.scan_parquet(path)
        frame.collect_schema()
    except pl.exceptions.PolarsError as error:
        raise ArtifactError(f"{path} is no Parquet file ({error}); evaluate again") from error
    return frame


def by_gain(one: UserValues, other: UserValues) -> tuple[Int32, Float64]:
    """Return `(users, gain)` from the greatest gain of `one` over `other` to the greatest loss.

    Ties by the smaller user.
    """
    gain = one.value - other.value
    order = np.lexsort((one.user, -gain))
    return one.user[order], gain[order]


def telling_attributes(items: pl.DataFrame) -> dict[str, pl.Expr]:
    """Return the attributes that can colour or group items, name -> an expression of one text each.

    Of a list its first value counts; a column with one value, or a text of nearly every item's own,
    tells nothing. Those with the fewest values come first.
    """
    found: list[tuple[int, str, pl.Expr]] = []
    for name, kind in items.schema.items():
        if name in ("item_id", "item", "title", "name", "text"):
            continue
        column = pl.col(name)
        first = (column.list.first() if kind == pl.List else column).cast(pl.String, strict=False)
        known = items.select(first.alias("value"))["value"].drop_nulls()
        values = known.n_unique()
        if 1 < values <= max(2, len(known) // 4):
            found.append((values, name, first))
    return {name: expression for _, name, expression in sorted(found, key=lambda one: one[:2])}
