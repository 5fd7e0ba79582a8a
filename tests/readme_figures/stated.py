"""What the README says, to be compared with what is stored."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "tests" / "benchmarks" / "results"
NUMBER = re.compile(r"[-+]?\d*\.?\d+")
SETS = {
    "30Music": "30music",
    "Online Retail": "online_retail",
    "Beauty": "beauty",
    "Toys": "toys",
    "MovieLens, last rating": "movielens",
}


def table(heading: str) -> dict[str, list[str]]:
    """Return the cells of the table with this header line, by the first cell of each row."""
    lines = README[README.index(heading) :].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]
    return {first: rest for first, *rest in rows}


def check(text: str, *values: float) -> None:
    """Compare the numbers of a text with values, each as exactly as it is written."""
    found = NUMBER.findall(text.replace("−", "-"))
    assert len(found) == len(values), (text, values)
    for number, value in zip(found, values, strict=True):
        decimals = len(number.partition(".")[2])
        assert abs(float(number) - value) <= 0.5 * 10**-decimals + 1e-9, (text, values)


def percent(row: dict[str, Any]) -> list[float]:
    return [100 * row[name] for name in ("gain", "low", "high")]


def statement(pattern: str) -> str:
    """Return what the README says where it matches, lines joined; a space of the pattern is any space."""
    found = re.search(pattern.replace(" ", r"\s+"), README, re.DOTALL)
    assert found, pattern
    return " ".join(found[1].split())


def by_set(text: str) -> dict[str, list[str]]:
    """Return the numbers that follow each name of a set, by the key of the set."""
    names = {name.split(",")[0]: key for name, key in SETS.items()}
    parts = re.split(f"({'|'.join(names)})", text)[1:]
    return {names[n]: NUMBER.findall(t) for n, t in zip(parts[::2], parts[1::2], strict=True)}
