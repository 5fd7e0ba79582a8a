"""The per-target rows of one model in Parquet; every figure of a report can be had from them again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recsys.data.sequences import Int32
from recsys.errors import ArtifactError
from recsys.evaluation.ranked import RankedTargets
from recsys.schema import SplitName

FACTS = b"recsys"
ORDER = "order"
"""The column that only targets have whose items come one after another."""
ROWS_TOGETHER = 1 << 16
"""Rows of a row group: one target of a million is then found by reading a few megabytes."""


def targets_path(directory: Path, model: str, split_name: SplitName) -> Path:
    """Return where a report keeps a model's rows: `targets/<model>.parquet` for the test split."""
    suffix = "" if split_name == "test" else f".{split_name}"
    return directory / "targets" / f"{model}{suffix}.parquet"


def write_targets(path: Path, ranked: RankedTargets) -> None:
    """Write one row per target.

    Columns: `target` int64 (row in the split), `user` int32, `history_length` int64, `n_relevant` int64,
    `items` list of int32 and `ranks` list of float64 (best first, infinite = excluded), `top` int32
    lists of fixed size (0 = no more items), and `order` lists of int32 where the items of a target
    have one. Counts of left-out targets are in the file's metadata.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    offsets = pa.array(ranked.offsets.astype(np.int32))
    facts = {
        "n_targets": ranked.n_targets,
        "dropped": ranked.dropped,
        "forbidden": ranked.forbidden,
    }
    table = pa.table(
        {
            "target": ranked.index,
            "user": ranked.user,
            "history_length": ranked.history_length,
            "n_relevant": ranked.n_relevant,
            "items": pa.ListArray.from_arrays(offsets, ranked.items),
            "ranks": pa.ListArray.from_arrays(offsets, ranked.ranks),
            "top": pa.FixedSizeListArray.from_arrays(ranked.top.ravel(), ranked.top.shape[1]),
        }
    )
    if ranked.order is not None:
        table = table.append_column(ORDER, pa.ListArray.from_arrays(offsets, ranked.order))
    path.parent.mkdir(parents=True, exist_ok=True)
    described = table.replace_schema_metadata({FACTS: json.dumps(facts)})
    pq.write_table(described, path, row_group_size=ROWS_TOGETHER)


def read_targets(path: Path) -> RankedTargets:
    """Read what `write_targets` wrote; `ArtifactError` if it is missing or something else."""
    table = read_columns(path)
    facts: dict[str, int] = json.loads(table.schema.metadata[FACTS])
    length = table.schema.field("top").type.list_size
    n_relevant = flat(table, "n_relevant")
    return RankedTargets(
        index=flat(table, "target"),
        user=flat(table, "user"),
        history_length=flat(table, "history_length"),
        offsets=np.concatenate([[0], np.cumsum(n_relevant)]).astype(np.int64),
        items=flat(table, "items"),
        ranks=flat(table, "ranks"),
        top=flat(table, "top").reshape(-1, length),
        order=order_column(table),
        **facts,
    )


def read_columns(path: Path, columns: Sequence[str] | None = None) -> Any:
    """Return some columns, or all, as a PyArrow table of one chunk; the lists are most of the file.

    `order` may be missing.

    Raises:
        ArtifactError: the file is missing, damaged, or something else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise ArtifactError(f"{path} is missing; run the evaluate stage")
    try:
        schema = pq.read_schema(path)
        if FACTS not in (schema.metadata or {}):
            raise ArtifactError(f"{path} holds no rows of an evaluation; evaluate again")
        if columns is not None:
            columns = [name for name in columns if name != ORDER or name in schema.names]
        table = pq.read_table(path, columns=columns)
        return table.combine_chunks()
    except (pa.ArrowInvalid, OSError) as error:
        raise ArtifactError(f"{path} is no Parquet file ({error}); evaluate again") from error


def order_column(table: Any) -> Int32 | None:
    """Return the column `order`, int32 [P], or None where there is none."""
    order: Int32 | None = flat(table, ORDER) if ORDER in table.column_names else None
    return order


def flat(table: Any, column: str) -> Any:
    """Return a column's values as NumPy; of a list column all values, one list after another."""
    array = table.column(column).combine_chunks()
    return (array.flatten() if hasattr(array, "flatten") else array).to_numpy(zero_copy_only=False)
