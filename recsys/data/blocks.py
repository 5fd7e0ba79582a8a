"""Blocks: a text file, plain or gzipped, as bounded runs of whole, valid UTF-8 records.

A record is a line; in CSV a quoted field may hold line ends. TSV has no quoting (a quote is a
character like any other), as its media type says. Blank lines are no records. A byte order mark is
taken off.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final, Literal

import numpy as np

from recsys.data.formats import Format
from recsys.data.problems import SHOWN, BadRow
from recsys.errors import DataError

BLOCK_BYTES: Final = 16 << 20
"""Bytes read at a time."""
LONGEST_RECORD: Final = 256 << 20
"""A record longer than this is an error (most likely a quote that is never closed)."""

_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Block:
    """A run of records.

    Attributes: data: the records, each valid UTF-8, no header, no blank lines. first_row: 0-based
        number of the first record in the file (the header is not counted). n_rows: records of the
        file that the block covers, those that are not UTF-8 included. first_line: 1-based line of
        the file where the block begins. bad: records left out because they are not UTF-8: the first
        of them, and their numbers in the block.
    """

    data: bytes
    first_row: int
    n_rows: int
    first_line: int
    bad: tuple[BadRow, ...] = ()
    bad_at: tuple[int, ...] = ()


def open_text(path: Path, gzipped: bool) -> IO[bytes]:
    """Open a file for reading bytes, unpacked on the way if gzipped."""
    return gzip.open(path, "rb") if gzipped else path.open("rb")  # type: ignore[return-value]


def read_header(path: Path, form: Format) -> list[str]:
    """Return the column names of a CSV or TSV file; `DataError` if empty, not UTF-8 or repeated."""
    first = next(_chunks(path, form, 1 << 16), b"")
    line = _header_line(first, form)
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, line 1: {_bad_byte(line, error)}; the header must be UTF-8"
        ) from error
    names = next(csv.reader([text], delimiter=form.delimiter, quoting=_quoting(form)), [])
    if not names:
        raise DataError(f"{path} is empty; expected a header line with the column names")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f"{path}: the header repeats {', '.join(repeated)}; rename one of them")
    return names


def read_blocks(path: Path, form: Format, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """Yield the records of a file in order, about `block_bytes` at a time, the header left out."""
    rest = b""
    row, line, header = 0, 1, form.kind != "jsonl"
    for chunk in _chunks(path, form, block_bytes):
        data = rest + chunk
        if header:
            skip = len(_header_line(data, form))
            line, data, header = 1 + data.count(b"\n", 0, skip), data[skip:], False
        cut = _last_record_end(data, form)
        rest = data[cut:]
        if len(rest) > LONGEST_RECORD:
            at = line + data.count(b"\n", 0, cut)
            raise DataError(
                f"{path}: the record at line {at} does not end within "
                f" {LONGEST_RECORD >> 20} MiB; is a quote not closed?"
            )
        if cut:
            block = _block(data[:cut], path, form, row, line)
            row, line = row + block.n_rows, line + data.count(b"\n", 0, cut)
            yield block
    if rest.strip():
        yield _block(rest + b"\n", path, form, row, line)


def _chunks(path: Path, form: Format, size: int) -> Iterator[bytes]:
    """Yield a file's bytes without the byte order mark; the first chunk holds a whole line."""
    try:
        with open_text(path, form.gzipped) as handle:
            first = handle.read(size)
            while b"\n" not in first and (more := handle.read(size)):
                first += more
            yield first.removeprefix(_BOM)
            while chunk := handle.read(size):
                yield chunk
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} is not a whole gzip file: {error}; fetch or pack it again"
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _quoting(form: Format) -> Literal[0, 3]:
    return csv.QUOTE_MINIMAL if form.kind == "csv" else csv.QUOTE_NONE


def _header_line(data: bytes, form: Format) -> bytes:
    """Return the header with its line end (a quoted name may hold one)."""
    end = data.find(b"\n")
    while end >= 0 and form.kind == "csv" and data.count(b'"', 0, end) % 2:
        end = data.find(b"\n", end + 1)
    return data if end < 0 else data[: end + 1]


def _last_record_end(data: bytes, form: Format) -> int:
    """Return the place after the last line end with an even number of quotes before it."""
    end = data.rfind(b"\n")
    if form.kind != "csv":
        return end + 1
    quotes = data.count(b'"', 0, end + 1)
    while end >= 0 and quotes % 2:
        before = data.rfind(b"\n", 0, end)
        quotes -= data.count(b'"', before + 1, end)
        end = before
    return end + 1


def _block(data: bytes, path: Path, form: Format, row: int, line: int) -> Block:
    """Return the block of some whole records; the slow road is taken only where it is needed."""
    blank = data.startswith((b"\n", b"\r\n")) or b"\n\n" in data or b"\n\r\n" in data
    try:
        data.decode("utf-8")
        valid = True
    except UnicodeDecodeError:
        valid = False
    if valid and not blank:
        return Block(data, row, _count_records(data, form), line)
    return _sort_out(Block(b"", row, 0, line), data, path, form)


def _sort_out(empty: Block, data: bytes, path: Path, form: Format) -> Block:
    """Fill a block record by record, without the blank lines and the records that are not UTF-8."""
    good: list[bytes] = []
    bad: list[BadRow] = []
    bad_at: list[int] = []
    n_rows = 0
    for line, record in _records(data, form, empty.first_line):
        try:
            record.decode("utf-8")
            good.append(record)
        except UnicodeDecodeError as error:
            bad_at.append(n_rows)
            if len(bad) < SHOWN:
                at = line + record.count(b"\n", 0, error.start)
                note = f"line {at}, {_bad_byte(record, error)}"
                bad.append(BadRow(str(path), empty.first_row + n_rows + 1, {}, note))
        n_rows += 1
    return replace(empty, data=b"".join(good), n_rows=n_rows, bad=tuple(bad), bad_at=tuple(bad_at))


def _count_records(data: bytes, form: Format) -> int:
    """Count the line ends with an even number of quotes before them."""
    if form.kind != "csv" or b'"' not in data:
        return data.count(b"\n")
    characters = np.frombuffer(data, dtype=np.uint8)
    inside = np.cumsum(characters == ord('"'), dtype=np.uint8) & 1  # wraps at 256, which is even
    return int(np.count_nonzero((characters == ord("\n")) & (inside == 0)))


def _records(data: bytes, form: Format, line: int) -> Iterator[tuple[int, bytes]]:
    """Yield (line, record with its line end) of every record that is not blank."""
    pending, began = b"", line
    for text in _lines(data):
        began = began if pending else line
        pending += text
        line += 1
        if form.kind == "csv" and pending.count(b'"') % 2:
            continue
        if pending.strip(b"\r\n"):
            yield began, pending
        pending = b""
    if pending:
        yield began, pending


def _lines(data: bytes) -> Iterator[bytes]:
    """Yield lines ended by LF only: a CR alone, which `splitlines` would cut at, is a character."""
    start = 0
    while (end := data.find(b"\n", start)) >= 0:
        yield data[start : end + 1]
        start = end + 1
    if start < len(data):
        yield data[start:]


def _bad_byte(data: bytes, error: UnicodeDecodeError) -> str:
    column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
    around = data[max(error.start - 12, 0) : error.start + 12]
    return f"byte {column} is 0x{data[error.start]:02x}, not UTF-8, in {around!r}"
