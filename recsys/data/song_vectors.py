"""Item vectors that come from elsewhere: a table of texts' or another model's, by external ids."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from recsys.data.vocabulary import Vocabulary
from recsys.errors import DataError
from recsys.schema import ITEM, PAD

logger = logging.getLogger(__name__)

VECTOR = "vector"


def read_song_vectors(path: Path, items: Vocabulary, width: int) -> npt.NDArray[np.float32]:
    """Return the vectors of a catalogue, float32 [n_items + 1, width]; NaN where the file has none.

    Vectors of items that the catalogue does not hold are left out. Both are counted in the log.

    Raises:
        DataError: the file is missing or no such table, has an item twice, holds vectors of another
            width or numbers that are not finite, or knows no item of the catalogue.
    """
    if not path.is_file():
        raise DataError(f"song_vectors: {path} is missing; it is a Parquet of item_id and vector")
    frame = pl.read_parquet(path)
    missing = [name for name in (ITEM, VECTOR) if name not in frame.columns]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}; it has {', '.join(frame.columns)}")
    frame = frame.select(pl.col(ITEM).cast(pl.String), VECTOR)
    lengths = frame[VECTOR].list.len().unique().to_list()
    if lengths and lengths != [width]:
        raise DataError(
            f"{path} has vectors of {', '.join(map(str, sorted(lengths)))} numbers, but the model's "
            f"width is {width}; set the model's width to that of the file"
        )
    repeated = frame.filter(frame[ITEM].is_duplicated())[ITEM].unique().sort().head(3).to_list()
    if repeated:
        raise DataError(f"{path} has items more than once, such as {', '.join(repeated)}")
    values = np.array(frame[VECTOR].to_list(), dtype=np.float32).reshape(-1, width)
    if not np.isfinite(values).all():
        bad = frame[ITEM][int(np.flatnonzero(~np.isfinite(values).all(1))[0])]
        raise DataError(f"{path} holds numbers that are not finite, first at item {bad}")
    rows = items.encode(frame[ITEM].to_list())
    known = rows != PAD
    if not known.any():
        raise DataError(
            f"{path} knows no item of the catalogue; are the ids those of the raw data?"
        )
    table = np.full((len(items) + 1, width), np.nan, dtype=np.float32)
    table[rows[known]] = values[known]
    logger.info(
        "%s: %d of %d items have vectors; %d vectors are of no item here",
        path, int(known.sum()), len(items), int((~known).sum()),
    )  # fmt: skip
    return table
