"""What an endpoint saw as files that the next training can read: events, and what was shown.

Both have the columns that `data.events` may list: `user_id, item_id, timestamp` (seconds), `event_type` and
`request_id`. An event that names the answer in which its item was shown is a `click`, any other an `event`;
what an answer showed is an `impression`, with its `rank` and whether it was `clicked`. So
`data.filters.event_types: [event, click]` trains on what happened, whichever files are listed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.errors import ArtifactError
from recsys.schema import EVENT_TYPE, ITEM, TIMESTAMP, USER
from serving.ledger import FILE, Ledger

EVENTS: Final = pa.schema(
    [
        (USER, pa.string()),
        (ITEM, pa.string()),
        (TIMESTAMP, pa.int64()),
        (EVENT_TYPE, pa.string()),
        ("request_id", pa.string()),
    ]
)
IMPRESSIONS: Final = pa.schema(
    [
        *EVENTS,
        ("rank", pa.int32()),
        ("clicked", pa.bool_()),
        ("strategy", pa.string()),
        ("model", pa.string()),
    ]
)
ROWS: Final = 50_000
"""Rows that are gathered before they are written."""
Row = Sequence[Any]


def write_events(state: Path, output: Path) -> int:
    """Write all live events of a state directory into a Parquet file, in order; return their number."""
    ledger = _open(state)
    rows = (
        (user, item, time, "event" if request is None else "click", request)
        for block in ledger.export()
        for user, item, time, request in block
    )
    count = _write(rows, EVENTS, output)
    ledger.close()
    return count


def write_impressions(state: Path, output: Path) -> int:
    """Write all items that named users were shown into a Parquet file, in order; return their number.

    Of several lists in one answer (continuations) each has ranks of its own. Answers to a history alone
    are nobody's, and left out.
    """
    ledger = _open(state)
    clicks = {
        (request, item)
        for block in ledger.export()
        for _, item, _, request in block
        if request is not None
    }
    count = _write(_shown(state / "answers", clicks), IMPRESSIONS, output)
    ledger.close()
    return count


def _shown(answers: Path, clicks: set[tuple[str, str]]) -> Iterator[Row]:
    """Yield a row for each item of each logged answer to a user."""
    for path in sorted(answers.glob("*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                if not line.endswith("\n"):
                    continue  # it is being written
                answer = json.loads(line)
                user, request, time = (answer[name] for name in ("user", "request", "time"))
                about = (answer["strategy"], answer["model"])
                for items in [] if user is None else answer.get("lists", [answer.get("items")]):
                    for rank, item in enumerate(items, start=1):
                        clicked = (request, item) in clicks
                        yield (user, item, time, "impression", request, rank, clicked, *about)


def _open(state: Path) -> Ledger:
    if not (state / FILE).is_file():
        raise ArtifactError(
            f"{state} is no state directory ({FILE} is missing); see `recsys serve`"
        )
    return Ledger(state)


def _write(rows: Iterator[Row], schema: pa.Schema, output: Path) -> int:
    """Write rows block by block, whole or not at all; return their number."""
    output.parent.mkdir(parents=True, exist_ok=True)
    aside = output.with_name(f".{output.name}.partial")
    count, block = 0, list[Row]()
    with pq.ParquetWriter(aside, schema, compression="zstd") as writer:

        def flush() -> None:
            columns = zip(*block, strict=True) if block else [()] * len(schema)
            arrays = [pa.array(c, kind.type) for c, kind in zip(columns, schema, strict=True)]
            writer.write_table(pa.table(arrays, schema=schema))
            block.clear()

        for row in rows:
            block.append(row)
            count += 1
            if len(block) == ROWS:
                flush()
        flush()
    aside.replace(output)
    return count
