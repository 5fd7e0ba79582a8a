"""Problems: rows that break a rule, counted, the first ones shown, with the choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl

from recsys.config import OnProblem
from recsys.data.pieces import ROW_BITS, Piece
from recsys.errors import DataError

SHOWN = 5
"""How many bad rows of a rule are kept and shown."""

RULES: Final[dict[str, tuple[str, tuple[OnProblem, ...]]]] = {
    "null_ids": ("rows without an id", ("drop", "fail")),
    "bad_times": ("times that are missing, do not parse or lie in the future", ("drop", "fail")),
    "duplicates": (
        "events equal to an earlier one in user, item, time and position",
        ("drop", "fail", "keep"),
    ),
    "unknown_items": ("events whose item has no record in the item file", ("drop", "fail", "keep")),
    "bad_encoding": ("text lines that are not UTF-8", ("drop", "fail")),
    "duplicate_items": ("item records with the id of an earlier one", ("drop", "fail")),
}
"""Rule -> (what breaks it, what may be chosen); the keys are those of `data.on_problem`."""

_EFFECT = {"drop": "leave them out", "fail": "stop", "keep": "take them as they are"}


@dataclass(frozen=True)
class BadRow:
    """One row that broke a rule; `row` counts records from 1, header and blank lines left out."""

    file: str
    row: int
    values: Mapping[str, Any]
    note: str = ""

    def __str__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.values.items())
        parts = [f"{self.file}, row {self.row}", shown, self.note]
        return ": ".join(part for part in parts if part)


@dataclass(frozen=True)
class Finding:
    """How often a rule was broken, what was chosen for it, and the first rows."""

    count: int
    choice: OnProblem
    first: tuple[BadRow, ...] = ()
    hint: str = ""

    def __add__(self, other: Finding) -> Finding:
        first = (self.first + other.first)[:SHOWN]
        return Finding(self.count + other.count, self.choice, first, self.hint or other.hint)


@dataclass(frozen=True)
class ProblemReport:
    """What was read, what was kept, which rules were broken; reports of pieces add up.

    Attributes:
        rows: records read, of events or of items as the reader says.
        kept: records that passed.
        findings: broken rule -> count, choice and first rows, in the order of the pieces.
        filtered: row-wise filter -> events it dropped (time_window, min_weight, event_types).
    """

    rows: int = 0
    kept: int = 0
    findings: Mapping[str, Finding] = field(default_factory=dict)
    filtered: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: ProblemReport) -> ProblemReport:
        findings = dict(self.findings)
        for rule, found in other.findings.items():
            findings[rule] = findings[rule] + found if rule in findings else found
        filtered = dict(self.filtered)
        for name, count in other.filtered.items():
            filtered[name] = filtered.get(name, 0) + count
        return ProblemReport(self.rows + other.rows, self.kept + other.kept, findings, filtered)

    def raise_if_failed(self) -> None:
        """Raise one `DataError` with every rule that was broken and is set to `fail`."""
        failed = {r: f for r, f in self.findings.items() if f.count and f.choice == "fail"}
        if failed:
            raise DataError("\n".join(explain(rule, found) for rule, found in failed.items()))

    def lines(self) -> list[str]:
        """Return a sentence for every broken rule and every filter that dropped rows."""
        verb = {"drop": "dropped", "keep": "kept", "fail": "refused"}
        out = [
            f"{verb[found.choice]} {found.count:,} {RULES[rule][0]} (data.on_problem.{rule})"
            for rule, found in self.findings.items()
            if found.count
        ]
        out += [f"filter {name} left out {n:,} events" for name, n in self.filtered.items() if n]
        return out

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        rules = {
            rule: {
                "count": found.count,
                "choice": found.choice,
                "first": [
                    {
                        "file": bad.file,
                        "row": bad.row,
                        "values": _plain(bad.values),
                        "note": bad.note,
                    }
                    for bad in found.first
                ],
            }
            for rule, found in self.findings.items()
        }
        filtered = dict(self.filtered)
        return {"rows": self.rows, "kept": self.kept, "rules": rules, "filtered": filtered}


def explain(rule: str, found: Finding) -> str:
    """Return the message for people: the rule, the first rows, the choices and the key to set."""
    meaning, choices = RULES[rule]
    key = f"data.on_problem.{rule}"
    files = sorted({bad.file for bad in found.first})
    lines = [f"{', '.join(files) or 'input'}: {found.count:,} {meaning} (rule {rule})"]
    lines += [f"  {bad}" for bad in found.first]
    if found.count > len(found.first):
        lines.append(f"  and {found.count - len(found.first):,} more")
    if found.hint:
        lines.append(f"  {found.hint}")
    offered = "; ".join(f"{key}={choice} to {_EFFECT[choice]}" for choice in choices)
    lines.append(f"  Mend the file, or choose: {offered} (now: {found.choice}).")
    return "\n".join(lines)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    plain = (str, int, float, bool, type(None))
    return {k: v if isinstance(v, plain) else str(v) for k, v in values.items()}


def bad_rows(frame: pl.DataFrame, mask: pl.Series, file: str) -> tuple[BadRow, ...]:
    """Return the first rows where `mask` holds; column `row` counts the file's from 0."""
    shown = frame.filter(mask).head(SHOWN).to_dicts()
    return tuple(BadRow(file, int(values.pop("row")) + 1, values) for values in shown)


def locate_rows(
    frame: pl.DataFrame, mask: pl.Series, pieces: Sequence[Piece]
) -> tuple[BadRow, ...]:
    """Return the first rows where `mask` holds; file and row are told from the global `row`."""
    shown = frame.filter(mask).head(SHOWN).to_dicts()
    by_index = {piece.index: piece for piece in pieces}
    out = []
    for values in shown:
        key = int(values.pop("row"))
        piece = by_index[key >> ROW_BITS]
        row = piece.first_row + (key & ((1 << ROW_BITS) - 1)) + 1
        out.append(BadRow(piece.path, row, values))
    return tuple(out)
