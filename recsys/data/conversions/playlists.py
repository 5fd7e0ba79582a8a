"""Playlists: Spotify's slices, the Grateful Dead's shows and a week of radio as lists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from recsys.data.conversions.tables import EVENTS, ITEMS, LISTS, RawFiles, write_table
from recsys.errors import DataError

_SHOW_COLUMNS = ("show_date", "set", "position", "song", "segue", "venue", "city")


def convert_spotify(raw: RawFiles, out: Path) -> dict[str, int]:
    """Write events (list, track, position), items (track, artist, album) and lists (title, ...).

    A list is a playlist's `pid`, an item a `track_uri`. `lists.parquet` holds `user_id`, `title`,
    `description` and `modified_at` (seconds, of the whole playlist: no event has a time of its
    own). One slice is in memory at a time, and the ids of the tracks seen.
    """
    known: set[str] = set()
    counts = {
        "events": write_table(map(_slice_events, raw.events), out / EVENTS),
        "lists": write_table(map(_slice_lists, raw.events), out / LISTS),
    }
    counts["items"] = write_table((_slice_tracks(path, known) for path in raw.events), out / ITEMS)
    return counts


def _playlists(path: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        playlists: list[dict[str, Any]] = content["playlists"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not a slice of the million-playlist set (a JSON object with `playlists`): "
            f"{error}"
        ) from error
    return playlists


def _slice_events(path: Path) -> pl.DataFrame:
    rows = [
        (str(playlist["pid"]), track["track_uri"], track["pos"])
        for playlist in _playlists(path)
        for track in playlist["tracks"]
    ]
    schema = {"user_id": pl.String, "item_id": pl.String, "position": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _slice_lists(path: Path) -> pl.DataFrame:
    rows = [
        (str(one["pid"]), one.get("name"), one.get("description"), one.get("modified_at"))
        for one in _playlists(path)
    ]
    texts = dict.fromkeys(("user_id", "title", "description"), pl.String)
    return pl.DataFrame(rows, schema={**texts, "modified_at": pl.Int64}, orient="row")


def _slice_tracks(path: Path, known: set[str]) -> pl.DataFrame:
    """Return the tracks of a slice that no earlier slice had."""
    names = ("track_uri", "track_name", "artist_name", "album_name")
    rows = []
    for playlist in _playlists(path):
        for track in playlist["tracks"]:
            if track["track_uri"] not in known:
                known.add(track["track_uri"])
                rows.append(tuple(track.get(name) for name in names))
    schema = dict.fromkeys(("item_id", "title", "artist", "album"), pl.String)
    return pl.DataFrame(rows, schema=schema, orient="row")


def convert_shows(raw: RawFiles, out: Path) -> dict[str, int]:
    """Write the shows of setlists.csv or of gdshowsdb's yearly YAML files as lists of songs.

    A list is `date venue` (`date-0` and `date-1` where there were two shows a day), so that lists
    sort by time; the timestamp is the show's date, `position` counts through all sets of the show.
    `lists.parquet` has each show's year, venue, city, number of sets, and share of songs that run on
    into the next.
    """
    songs = pl.concat([_read_shows(path) for path in raw.events])
    ordered = songs.sort("show_date", "venue", "set", "position", maintain_order=True)
    show = pl.concat_str("show_date", "venue", separator=" ")
    events = ordered.select(
        show.alias("user_id"),
        pl.col("song").alias("item_id"),
        pl.col("show_date").str.head(10).str.to_date().alias("timestamp"),
        pl.int_range(pl.len()).over(show).alias("position"),
        "set",
        "segue",
    )
    lists = (
        ordered.group_by(show.alias("user_id"), maintain_order=True)
        .agg(
            pl.col("show_date").first().str.head(4).cast(pl.Int32).alias("year"),
            pl.col("venue", "city").first(),
            pl.col("set").n_unique().cast(pl.String).alias("sets"),
            pl.col("segue").mean().alias("segues"),
        )
        .sort("user_id")
    )
    items = events.select("item_id", title="item_id").unique().sort("item_id")
    return {
        "events": write_table([events], out / EVENTS),
        "items": write_table([items], out / ITEMS),
        "lists": write_table([lists], out / LISTS),
    }


def _read_shows(path: Path) -> pl.DataFrame:
    if path.suffix == ".csv":
        frame = pl.read_csv(path, infer_schema=False)
        missing = [name for name in _SHOW_COLUMNS if name not in frame.columns]
        if missing:
            raise DataError(f"{path} lacks the columns {', '.join(missing)}")
        segue = pl.col("segue").str.to_lowercase() == "true"
        return frame.select(_SHOW_COLUMNS).with_columns(
            pl.col("set", "position").cast(pl.Int64), segue.alias("segue")
        )
    schema = dict.fromkeys(_SHOW_COLUMNS, pl.String)
    types = {"set": pl.Int64, "position": pl.Int64, "segue": pl.Boolean}
    return pl.DataFrame(list(_yaml_songs(path)), schema={**schema, **types}, orient="row")


def _yaml_songs(path: Path) -> Iterator[tuple[object, ...]]:
    """Yield one row a song; keys are `1966/01/07`, or `1966/03/03/1` for one of two shows a day."""
    import yaml

    for key, show in (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).items():
        date, venue = str(key).replace("/", "-"), show[":venue"]
        for number, part in enumerate(show.get(":sets") or []):
            for position, song in enumerate(part.get(":songs") or []):
                name, segued = song[":name"], bool(song.get(":segued"))
                yield date, number, position, name, segued, venue, show.get(":city")


def convert_radio(raw: RawFiles, out: Path) -> dict[str, int]:
    """Write a week of radio plays as lists: one list is a station and a day (UTC).

    Days, not hours, because the site was asked once or twice an hour: many plays share a time, and
    their order is only known from the number in `unique_id`, which counts down to the last play.
    That order rules; where the clock goes back a second against it, the earlier time is raised.
    Plays whose title was not read from the site (26) are left out and counted. `lists.parquet` has each
    list's station and day.
    """
    plays = pl.concat([_read_plays(path) for path in raw.events])
    named = plays.filter(pl.col("song").is_not_null())
    down = pl.col("unique_id").str.extract(r"(\d+)$").cast(pl.Int64)
    ordered = named.sort("callsign", down, descending=[False, True], maintain_order=True)
    time = pl.col("time").cast(pl.Int64).cum_max().over("callsign")
    timed = ordered.with_columns(time)
    day = pl.from_epoch("time").dt.strftime("%Y-%m-%d")
    events = timed.select(
        pl.concat_str("callsign", day, separator=" ").alias("user_id"),
        pl.col("combined").alias("item_id"),
        pl.col("time").alias("timestamp"),
    )
    lists = (
        timed.select(
            pl.concat_str("callsign", day, separator=" ").alias("user_id"),
            pl.col("callsign").alias("station"),
            day.alias("day"),
        )
        .unique("user_id")
        .sort("user_id")
    )
    years = pl.concat([pl.read_csv(path, infer_schema=False) for path in raw.items] or [_NO_SONGS])
    items = (
        named.select(item_id="combined", title="song", artist="artist")
        .unique("item_id", keep="first", maintain_order=True)
        .join(_release_years(years), on="item_id", how="left")
        .sort("item_id")
    )
    return {
        "events": write_table([events], out / EVENTS),
        "items": write_table([items], out / ITEMS),
        "lists": write_table([lists], out / LISTS),
        "left out: no title": plays.height - named.height,
    }


_NO_SONGS = pl.DataFrame(schema={"COMBINED": pl.String, "Release Year": pl.String})


def _release_years(songs: pl.DataFrame) -> pl.DataFrame:
    year = pl.col("Release Year").cast(pl.Int32, strict=False).alias("year")
    return songs.select(pl.col("COMBINED").alias("item_id"), year).unique("item_id", keep="first")


def _read_plays(path: Path) -> pl.DataFrame:
    """Return the plays under one set of names: the site's file has `Song Clean`, others `song`."""
    frame = pl.read_csv(path, infer_schema=False, encoding="utf8-lossy")
    frame = frame.rename({name: name.lower() for name in frame.columns})
    frame = frame.rename({"song clean": "song", "artist clean": "artist"}, strict=False)
    wanted = ["song", "artist", "callsign", "time", "unique_id", "combined"]
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}; has {frame.columns}")
    return frame.select(wanted)
