"""Columns: which column of a file is which of ours, and ids in one of two types."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from recsys.config import DataConfig
from recsys.data.formats import format_of
from recsys.errors import ConfigError, DataError
from recsys.schema import EVENT_COLUMNS, ITEM, TIMESTAMP, USER

_SOUGHT = {
    USER: (
        "user",
        "userid",
        "customer",
        "session",
        "reviewer",
        "list",
        "playlist",
        "pid",
        "account",
    ),
    ITEM: (
        "item",
        "itemid",
        "product",
        "asin",
        "movie",
        "track",
        "song",
        "article",
        "sku",
        "description",
    ),
    TIMESTAMP: ("timestamp", "time", "date", "datetime", "ts", "unixreviewtime", "created"),
}


def other_separator(header: Sequence[str], own: str = ",") -> str | None:
    """Return what seems to separate the names of a header, None if it is `own`.

    That is the one of `;`, `|`, tab and comma that there is more often than `own`, else, if the header
    was read as one name, a colon or blank that is there twice; the sign twice where it is doubled.
    """
    line = own.join(header)
    signs = [s for s in ";|\t," if s != own and line.count(s) > line.count(own)]
    if not signs and len(header) == 1:
        signs = [s for s in ": " if s != own and line.count(s) > 1][:1]
    sign = max(signs, key=line.count, default=None)
    return 2 * sign if sign and any(2 * sign in name for name in header) else sign


def told_separator(sign: str) -> str:
    """Return what to say of a header whose names `other_separator` found to be separated by `sign`."""
    if len(sign) > 1:
        return (
            f"The fields seem to be separated by {sign!r}; they must be by one character, so "
            "convert the file, or use a preset (`recsys data list`) that knows it."
        )
    return (
        f"The fields seem to be separated by {sign!r}. Of all .csv files, events' and items', the setting "
        f"data.separator says by what (here: separator: {json.dumps(sign)}); .tsv files have tabs, name "
        "others .csv."
    )


def event_columns(data: DataConfig, available: Sequence[str], file: str) -> dict[str, str]:
    """Return our name -> the file's name of the columns to read, in the order of `EVENT_COLUMNS`.

    A name that `data.columns` does not map stands for itself. `user_id`, `item_id` and (unless the
    clock is `none`) `timestamp` must be there, as must every mapped column; the others are taken if
    the file has them. Mapping one of those to an empty string leaves it out.
    """
    for ours in data.columns:
        if ours not in EVENT_COLUMNS:
            raise ConfigError(
                f"data.columns: {ours!r} is not a column of ours; did you mean "
                f"{nearest(ours, EVENT_COLUMNS)!r}? Allowed: {', '.join(EVENT_COLUMNS)} "
                "(our name: the file's name)."
            )
    needed = [USER, ITEM] + ([] if data.clock == "none" else [TIMESTAMP])
    found: dict[str, str] = {}
    for ours in EVENT_COLUMNS:
        theirs = data.columns.get(ours, ours)
        if ours == TIMESTAMP and data.clock == "none":
            continue
        if ours not in needed and (theirs == "" or (theirs not in available and theirs == ours)):
            continue
        if theirs not in available:
            raise DataError(
                _missing(data, file, ours, available, "data.columns", tuple(found.values()))
            )
        found[ours] = theirs
    return found


def item_columns(data: DataConfig, available: Sequence[str], file: str) -> dict[str, str]:
    """Return our name -> the file's name of `item_id` and the attributes, `item_id` first.

    Attributes keep the file's order, or that of `data.attributes`, which then must all be there. A
    mapped name is taken from the column it is mapped to and from no other: a column of the file that
    happens to bear that name is left out.
    """
    mapped = data.item_columns
    renamed = {theirs: ours for ours, theirs in mapped.items()}
    ours_to_theirs = {
        renamed.get(name, name): name for name in available if name in renamed or name not in mapped
    }
    wanted = [ITEM, *(mapped if data.attributes is None else data.attributes)]
    for ours in wanted:
        if ours not in ours_to_theirs:
            raise DataError(_missing(data, file, ours, available, "data.item_columns"))
    names = [n for n in ours_to_theirs if n != ITEM] if data.attributes is None else data.attributes
    return {name: ours_to_theirs[name] for name in [ITEM, *(n for n in names if n != ITEM)]}


def nearest(name: str, names: Sequence[str], cutoff: float = 0.0) -> str | None:
    """Return the most alike of `names`, case aside; the first of equals; None if none is alike enough."""
    lowered = {other.lower(): other for other in reversed(names)}
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=cutoff)
    return lowered[close[0]] if close else None


def guess(ours: str, available: Sequence[str]) -> str | None:
    """Return the column that by its name is most likely to be `ours`, or None."""
    bare = {name: "".join(c for c in name.lower() if c.isalnum()) for name in available}
    for word in (ours.replace("_", ""), *_SOUGHT.get(ours, ())):
        for test in (str.__eq__, str.startswith, str.__contains__):
            if len(word) < 4 and test is not str.__eq__:
                continue  # "ts" is in "artists"
            for name, plain in bare.items():
                if test(plain, word):
                    return name
    return None


def _missing(
    data: DataConfig,
    file: str,
    ours: str,
    available: Sequence[str],
    key: str,
    taken: Sequence[str] = (),
) -> str:
    mapping = data.columns if key == "data.columns" else data.item_columns
    theirs, separator = mapping.get(ours, ours), format_of(Path(file), data.separator).delimiter
    free = [name for name in available if name not in taken]
    likely = guess(ours, free) or nearest(theirs, free, cutoff=0.3)
    lines = [
        f"{file} has no column {theirs!r}" + (f" (our {ours})" if ours != theirs else ""),
        f"  It has: {', '.join(available) or 'no columns'}.",
    ]
    if sign := other_separator(available, separator):
        lines.append(f"  {told_separator(sign)}")
    elif likely is not None:
        lines.append(f"  The nearest is {likely!r}; if that is it, set {key}.{ours}={likely}")
    if ours == TIMESTAMP:
        lines.append(
            "  Data without times: set data.clock=none (the order of rows, or `position`, counts)."
        )
    return "\n".join(lines)


def normalise_id(values: pl.Series, ours: str, file: str) -> pl.Series:
    """Return ids as String or Int64, null where there is none.

    Text is kept byte for byte: blanks around an id, leading zeros and case all matter, and `NA` is
    an id like any other; only an empty text is no id. Whole floats (`17850.0`) become integers,
    categories text; other types are a `DataError`.
    """
    dtype = values.dtype
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        text = values.cast(pl.String)
        return text.set(text == "", None) if bool((text == "").any()) else text
    if dtype == pl.UInt64 or dtype == pl.UInt128 or dtype == pl.Int128:
        return values.cast(pl.String)
    if dtype.is_integer():
        return values.cast(pl.Int64)
    if dtype.is_float():
        return _whole(values, ours, file)
    if dtype == pl.Null:
        return values.cast(pl.String)
    raise DataError(
        f"{file}: {ours} ({values.name!r}) has type {dtype}; ids must be text or whole numbers"
    )


def _whole(values: pl.Series, ours: str, file: str) -> pl.Series:
    clean = values.fill_nan(None).cast(pl.Float64)
    # Above 2**53 neighbouring integers share a float, so ids may already be merged.
    broken = ((clean != clean.floor()) | (clean.abs() > 2**53)).fill_null(False)
    if bool(broken.any()):
        raise DataError(
            f"{file}: {ours} ({values.name!r}) holds decimals such as {clean.filter(broken)[0]!r}; "
            "ids must be text or whole numbers"
        )
    return clean.cast(pl.Int64)


def mapping_lines(mapping: Mapping[str, str]) -> str:
    """Return a column mapping as one YAML flow mapping."""
    import yaml

    text: str = yaml.safe_dump(
        dict(mapping), default_flow_style=True, sort_keys=False, width=10_000
    )
    return text.strip()
