"""Batch recommendation: the lists of all users of a bundle, streamed into Parquet, on Ray if asked."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from recsys.errors import DataError

USERS_A_TASK: Final = 20_000
ROWS_A_GROUP: Final = 250_000
"""Rows that are gathered before they are written: small groups cost readers time."""


@dataclass(frozen=True)
class Part:
    """Users `first:last` and the file of their lists."""

    first: int
    last: int
    file: Path


def recommend_everybody(bundle: Path, output: Path, k: int, workers: int = 1) -> int:
    """Write the lists of all users of a bundle; return how many users there were.

    With one worker `output` is a file, written in this process. With more it is a directory of files,
    each written by a task on Ray. Either is there whole or not at all.
    """
    from recsys.bundle import load_bundle

    loaded = load_bundle(bundle)
    if loaded.user_ids is None:
        raise DataError(f"bundle {bundle} holds no users")
    total = len(loaded.user_ids)
    aside = output.with_name(f".{output.name}.partial")
    output.parent.mkdir(parents=True, exist_ok=True)
    if workers == 1:
        write_part(Part(0, total, aside), bundle, k)
        aside.replace(output)
        return total
    if output.exists():
        raise DataError(f"{output} exists already; name another output")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    parts = [
        Part(at, min(at + USERS_A_TASK, total), aside / f"part-{n:05d}.parquet")
        for n, at in enumerate(range(0, total, USERS_A_TASK))
    ]
    _on_ray(parts, bundle, k, workers)
    aside.replace(output)
    return total


def write_part(part: Part, bundle: Path, k: int) -> int:
    """Write the lists of some users into one file, block by block; return how many rows it has."""
    import polars as pl
    import pyarrow as pa
    import pyarrow.parquet as pq

    from recsys.bundle import load_bundle
    from recsys.recommender.everybody import lists_of_everybody

    writer, waiting, rows = None, list[pl.DataFrame](), 0

    def flush() -> None:
        nonlocal writer
        table = pl.concat(waiting).to_arrow(compat_level=pl.CompatLevel.oldest())
        waiting.clear()
        if writer is None:
            texts = [
                column.name for column in table.schema if pa.types.is_large_string(column.type)
            ]
            # Scores hardly ever repeat: to look for that is half of the work of writing.
            writer = pq.ParquetWriter(
                part.file, table.schema, compression="zstd", use_dictionary=texts
            )
        writer.write_table(table)

    try:
        for block in lists_of_everybody(load_bundle(bundle), k, part.first, part.last):
            waiting.append(block)
            rows += block.height
            if sum(one.height for one in waiting) >= ROWS_A_GROUP:
                flush()
        if waiting:
            flush()
    finally:
        if writer is not None:
            writer.close()
    if writer is None:  # a bundle whose list of users is empty
        pq.write_table(pa.table({"user_id": pa.array([], pa.string())}), part.file)
    return rows


def _on_ray(parts: list[Part], bundle: Path, k: int, workers: int) -> None:
    from pipelines.ray_session import map_partitions, ray_session
    from recsys.config import RayConfig

    task = partial(write_part, bundle=bundle.absolute(), k=k)
    absolute = [Part(p.first, p.last, p.file.absolute()) for p in parts]
    with ray_session(RayConfig(workers=workers)):
        for _ in map_partitions(task, absolute, workers, "recommend"):
            pass
