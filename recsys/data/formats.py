"""Which format a file is in, told from its suffix alone, and the files a list of patterns names."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from recsys.errors import DataError

Kind = Literal["parquet", "csv", "tsv", "jsonl"]

_KINDS: dict[str, Kind] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
ALLOWED = (
    ".parquet, .pq, .csv, .tsv, .jsonl, .ndjson, .json (one object a line), text also with .gz"
)


@dataclass(frozen=True)
class Format:
    """A file format; `str()` gives `csv`, `csv.gz`, `csv separated by ';'`, ...

    Attributes: separator: the character between the fields of CSV.
    """

    kind: Kind
    gzipped: bool = False
    separator: str = ","

    def __str__(self) -> str:
        name = f"{self.kind}.gz" if self.gzipped else self.kind
        return name if self.separator == "," else f"{name} separated by {self.separator!r}"

    @property
    def is_text(self) -> bool:
        """Tell whether records are lines of text."""
        return self.kind != "parquet"

    @property
    def delimiter(self) -> str:
        """Return the character between fields of CSV and TSV."""
        return "\t" if self.kind == "tsv" else self.separator


def format_of(path: Path, separator: str = ",") -> Format:
    """Return the format a file's suffix says; `DataError` lists the allowed suffixes otherwise.

    `separator` is that of CSV. The content is not sniffed: a wrong guess would show as odd columns
    much later.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    gzipped = bool(suffixes) and suffixes[-1] == ".gz"
    last = suffixes[-2 if gzipped else -1 :][:1] if len(suffixes) > gzipped else []
    kind = _KINDS.get(last[0]) if last else None
    if kind is None or (gzipped and kind == "parquet"):
        raise DataError(
            f"{path}: the suffix does not tell a format that can be read. Allowed: {ALLOWED}. "
            "Rename or convert the file, or use a preset (`recsys data list`) that knows it."
        )
    return Format(kind, gzipped, separator if kind == "csv" else ",")


def find_files(patterns: Sequence[str], key: str) -> list[Path]:
    """Return the files that paths or globs name, sorted inside each pattern, each file once.

    `DataError` if a pattern names nothing; `key` is the setting it came from (`data.events`).
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        exact = Path(pattern).expanduser()
        names = [str(exact)] if exact.is_file() else glob.glob(str(exact), recursive=True)  # noqa: PTH207
        files = sorted(path for path in map(Path, names) if path.is_file())
        if not files:
            raise DataError(f"{key}: {_why_nothing(exact, pattern)}")
        found.update(dict.fromkeys(files))
    return list(found)


def _why_nothing(path: Path, pattern: str) -> str:
    if path.is_dir():
        return f"{pattern} is a directory; name its files, for example {path / '*.parquet'}"
    if any(sign in pattern for sign in "*?["):
        return f"no file matches {pattern} (looked from {Path.cwd()})"
    parent = path.parent
    there = sorted(p.name for p in parent.iterdir())[:10] if parent.is_dir() else []
    inside = f"{parent} holds: {', '.join(there)}" if there else f"{parent} has no files"
    return f"{pattern} does not exist (looked from {Path.cwd()}); {inside}"
