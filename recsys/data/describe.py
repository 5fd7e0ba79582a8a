"""Describe: what is in a file, and the lines of YAML that use it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from recsys.data.blocks import read_blocks, read_header
from recsys.data.columns import guess, mapping_lines, other_separator, told_separator
from recsys.data.formats import Format, find_files, format_of
from recsys.data.pieces import row_group_sizes
from recsys.data.problems import BadRow
from recsys.data.records import ROW, parse_block, text_columns
from recsys.data.tally import ColumnSummary, ColumnTally
from recsys.data.times import FUTURE_SLACK, show
from recsys.errors import DataError
from recsys.schema import ITEM, TIMESTAMP, USER

if TYPE_CHECKING:
    from rich.console import RenderableType

_PIECE = 500_000
"""Rows of a Parquet file looked at together."""


@dataclass(frozen=True)
class FileSummary:
    """What one file holds; `problems` is what stands out.

    `yaml` is a `data:` section that reads it, empty where nothing can be suggested.
    """

    path: str
    format: str
    size: int
    rows: int
    columns: tuple[ColumnSummary, ...]
    problems: tuple[str, ...]
    yaml: str

    def role(self, ours: str) -> ColumnSummary | None:
        """Return the column that is likely to be ours, by its name."""
        return next((column for column in self.columns if column.role == ours), None)


@dataclass(frozen=True)
class Description:
    """What the files hold, as plain data."""

    files: tuple[FileSummary, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON (moments and odd types as text are left to the writer)."""
        return {"files": [asdict(file) for file in self.files]}

    def render(self) -> RenderableType:
        """Return tables for the terminal."""
        from rich.console import Group

        return Group(*(part for file in self.files for part in _render_file(file)))


def describe(paths: Sequence[str | Path]) -> Description:
    """Return rows, columns, ranges, likely roles, problems and YAML of every file that paths name.

    Files are read once, in pieces; memory does not grow with them. `DataError` for a path that
    names no file or a format that cannot be read, and if nothing could be read of any file; a file that
    breaks off in the middle is described up to there, with the break among its problems.
    """
    files = find_files([str(path) for path in paths], "describe")
    found = [_describe_file(path) for path in files]
    if not any(file.columns for file in found):
        raise DataError("\n".join(problem for file in found for problem in file.problems))
    return Description(tuple(found))


def _describe_file(path: Path) -> FileSummary:
    form = format_of(path)
    tallies: dict[str, ColumnTally] = {}
    rows = undecoded = 0
    broken: list[str] = []
    first: BadRow | None = None
    try:
        form = _separated(path, form)
        if form.is_text:  # a header without rows is worth telling
            tallies = {name: ColumnTally(name) for name in text_columns(path, form)}
        for frame, bad, count in _frames(path, form):
            for name in frame.columns:
                tally = tallies.setdefault(name, ColumnTally(name))
                tally.add(frame[name])
            rows, undecoded, first = rows + frame.height, undecoded + count, first or bad
    except DataError as error:
        broken.append(f"reading stopped after {rows:,} rows: {error}" if rows else str(error))
        tallies = tallies if rows else {}
    if undecoded:
        broken.append(f"{undecoded:,} lines are not UTF-8 and were passed over, first {first}")
    for tally in tallies.values():
        tally.nulls += rows - tally.rows  # keys that a JSON line does not have
    columns = _with_roles([tally.summary() for tally in tallies.values()])
    size = path.stat().st_size
    summary = FileSummary(str(path), str(form), size, rows, columns, (), "")
    nothing = [f"{path}: the file has no rows"] if not rows and not broken else []
    problems = (*broken, *nothing, *_problems(summary, form))
    usable = rows and not other_separator([c.name for c in columns], form.delimiter)
    return replace(summary, problems=problems, yaml=_yaml(summary, form) if usable else "")


def _separated(path: Path, form: Format) -> Format:
    """Return the format of a CSV file with the separator that cuts its header into names."""
    if form.kind != "csv":
        return form
    if (sign := other_separator(read_header(path, form))) is None or len(sign) > 1:
        return form
    other = replace(form, separator=sign)
    return other if len(read_header(path, other)) > 1 else form


def _frames(path: Path, form: Format) -> Iterator[tuple[pl.DataFrame, BadRow | None, int]]:
    """Yield (frame, first undecodable record, how many) in pieces."""
    if form.is_text:
        for block in read_blocks(path, form):
            frame = parse_block(block, path, form, None, text=form.kind != "jsonl")
            yield frame.drop(ROW), block.bad[0] if block.bad else None, len(block.bad_at)
        return
    rows = sum(row_group_sizes(path))
    for first in range(0, max(rows, 1), _PIECE):
        yield pl.scan_parquet(path, glob=False).slice(first, _PIECE).collect(), None, 0


def _with_roles(columns: list[ColumnSummary]) -> tuple[ColumnSummary, ...]:
    """Give the columns whose names suggest it the roles of user, item and time, each once."""
    roles: dict[str, str] = {}
    for ours in (USER, ITEM, TIMESTAMP):
        fitting = [c for c in columns if c.name not in roles and _may_be(c, ours)]
        names = [c.name for c in fitting]
        if ours == TIMESTAMP:
            # Values that lie between 1980 and 2100 say more than a name such as `playtime`.
            moments = [c.name for c in fitting if c.seconds is not None]
            dates = [c.name for c in fitting if c.looks == "dates" or c.unit == "text"]
            name = guess(ours, moments) or next(iter(dates), None) or guess(ours, names)
            # A name may say nothing, as `at` does; one column alone whose numbers are moments does.
            name = name or (moments[0] if len(moments) == 1 else None)
        else:
            name = guess(ours, names)
        if name is not None:
            roles[name] = ours
    return tuple(replace(column, role=roles.get(column.name)) for column in columns)


def _may_be(column: ColumnSummary, ours: str) -> bool:
    if ours == TIMESTAMP:
        numbers_or_dates = column.looks in ("whole numbers", "numbers", "dates")
        return numbers_or_dates or column.unparsed > 0
    return column.looks in ("whole numbers", "numbers", "text", "nothing")


def _problems(file: FileSummary, form: Format) -> list[str]:
    out = []
    names = [column.name for column in file.columns]
    if form.is_text and (sign := other_separator(names, form.delimiter)):
        out.append(told_separator(sign))
    for ours in (USER, ITEM, TIMESTAMP):
        column = file.role(ours)
        if column is None:
            continue
        rule = "bad_times" if ours == TIMESTAMP else "null_ids"
        if column.nulls:
            out.append(
                f"{column.name} is missing in {column.nulls:,} rows (data.on_problem.{rule}: drop or fail)"
            )
        if column.padded:
            out.append(
                f"{column.name}: blanks at the beginning or end of {column.padded:,} values; ids are kept "
                "as they are, so 'a' and 'a ' are two"
            )
        if ours == TIMESTAMP and column.unparsed:
            out.append(
                f"{column.name}: {column.unparsed:,} values do not parse as times "
                "(data.on_problem.bad_times: drop or fail)"
            )
        last = column.seconds[1] if ours == TIMESTAMP and column.seconds is not None else 0
        if last > time.time() + FUTURE_SLACK:
            out.append(f"{column.name} reaches into the future: {show(last)}")
    if file.rows and file.role(ITEM) is None:
        out.append("no column's name suggests an item id; map it yourself")
        lists = [c.name for c in file.columns if c.looks == "nested" and c.dtype.startswith("List")]
        if lists:
            out.append(
                f"{', '.join(lists)}: lists within a row; if they hold items, give each a row of its own "
                f"first (with Polars: frame.explode({lists[0]!r})), because a row is one event"
            )
    if file.rows and file.role(USER) is None and file.role(TIMESTAMP) is not None:
        out.append("no column's name suggests a user id; map it yourself")
    return out


def _yaml(file: FileSummary, form: Format) -> str:
    """Return the `data:` section: files, separator, columns, clock and unit."""
    user, item, moment = (file.role(ours) for ours in (USER, ITEM, TIMESTAMP))
    roles = {c.role: c.name for c in (user, item, moment) if c is not None and c.role is not None}
    path = mapping_lines({"events": file.path})[1:-1].removeprefix("events: ")
    separator = "" if form.separator == "," else f"  separator: {json.dumps(form.separator)}\n"
    if user is None and moment is None and item is not None:
        return f"data:\n  items: [{path}]\n{separator}  item_columns: {mapping_lines({ITEM: item.name})}"
    clock = "none" if moment is None else "absolute" if moment.seconds is not None else "relative"
    unit = "s" if moment is None or moment.unit is None else moment.unit
    return (
        f"data:\n  events: [{path}]\n{separator}  columns: {mapping_lines(roles)}\n  clock: {clock}\n"
        f"  time_unit: {unit}"
    )


def _render_file(file: FileSummary) -> list[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    # Text, not str: a name such as `price [EUR]` is data, not markup.
    title = Text(f"{file.path}: {file.format}, {file.rows:,} rows, {file.size:,} bytes")
    table = Table(title=title)
    for head in (
        "column",
        "type",
        "looks like",
        "nulls",
        "distinct",
        "smallest",
        "largest",
        "role",
    ):
        table.add_column(head, justify="right" if head in ("nulls", "distinct") else "left")
    for c in file.columns:
        about = "" if c.exact or c.distinct is None else "~"
        distinct = "" if c.distinct is None else f"{about}{c.distinct:,}"
        low, high = (_shown(c, value) for value in (c.minimum, c.maximum))
        cells = (c.name, c.dtype, c.looks, f"{c.nulls:,}", distinct, low, high, c.role or "")
        table.add_row(*map(Text, cells))
    parts: list[RenderableType] = [table]
    moment = file.role(TIMESTAMP)
    if moment is not None and moment.seconds is not None:
        first, last = moment.seconds
        days = (last - first) / 86_400
        parts.append(Text(f"Span: {show(first)} to {show(last)}, {days:,.1f} days"))
    parts += [Text(f"Problem: {problem}") for problem in file.problems]
    return [*parts, Text(f"To use it:\n{file.yaml}\n")] if file.yaml else parts


def _shown(column: ColumnSummary, value: Any) -> str:
    if value is None:
        return ""
    text = show(int(value)) if column.looks == "dates" else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
