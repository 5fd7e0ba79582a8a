"""Live events as a file that the next training can read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.errors import ArtifactError
from recsys.schema import ITEM, TIMESTAMP, USER
from serving.ledger import FILE, Ledger

SCHEMA = pa.schema(
    [
        (USER, pa.string()),
        (ITEM, pa.string()),
        (TIMESTAMP, pa.int64()),
        ("request_id", pa.string()),
    ]
)


def write_events(state: Path, output: Path) -> int:
    """Write all live events of a state directory into a Parquet file, in order; return their number.

    The columns are `user_id, item_id, timestamp` (seconds) and `request_id`, which names the line of the
    log of answers in which the item was shown.
    """
    if not (state / FILE).is_file():
        raise ArtifactError(
            f"{state} is no state directory ({FILE} is missing); see `recsys serve`"
        )
    ledger, count = Ledger(state), 0
    output.parent.mkdir(parents=True, exist_ok=True)
    aside = output.with_name(f".{output.name}.partial")
    with pq.ParquetWriter(aside, SCHEMA, compression="zstd") as writer:
        for rows in ledger.export():
            columns = [
                pa.array(column, kind.type)
                for column, kind in zip(zip(*rows, strict=True), SCHEMA, strict=True)
            ]
            writer.write_table(pa.table(columns, schema=SCHEMA))
            count += len(rows)
    ledger.close()
    aside.replace(output)
    return count
