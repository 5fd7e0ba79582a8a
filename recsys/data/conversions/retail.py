"""Online Retail (UCI 352): a gift shop's invoice lines as events of customers and items."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from recsys.data.conversions.tables import EVENTS, ITEMS, RawFiles, write_table
from recsys.errors import DataError, MissingExtraError

_COLUMNS = ("Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID")

# Lines of an invoice that are no goods, in the normalised spelling.
SERVICES = frozenset(
    (
        *("POSTAGE", "DOTCOM POSTAGE", "CARRIAGE", "NEXT DAY CARRIAGE", "PACKING CHARGE"),
        *("AMAZON", "AMAZON FEE", "CRUK COMMISSION", "BANK CHARGES", "DISCOUNT"),
        *("SAMPLES", "MANUAL", "HIGH RESOLUTION IMAGE"),
    )
)


def normalise(description: pl.Expr) -> pl.Expr:
    """Return item ids: stripped, upper-cased, runs of blanks made one."""
    return description.str.to_uppercase().str.replace_all(r"\s+", " ").str.strip_chars()


def convert_retail(raw: RawFiles, out: Path) -> dict[str, int]:
    """Write sales to known customers: `user_id`, `item_id`, `timestamp`, `weight` (quantity), `price`.

    Left out, in this order, and counted: lines without a customer; returns (quantity of 0 or less);
    lines without a description; odd descriptions, which are notes of the staff (the shop writes its
    goods in capitals, so a text without two capitals in a row is a note) and services such as
    postage. Item attributes are the title and the median price.
    """
    lines = pl.concat([_read(path) for path in raw.events], how="vertical_relaxed")
    item = normalise(pl.col("Description"))
    note = ~pl.col("Description").str.contains(r"[A-Z]{2}")
    counts = {"lines": lines.height}
    for reason, keep in (
        ("no customer", pl.col("CustomerID").is_not_null()),
        ("returned", pl.col("Quantity") > 0),
        ("no description", pl.col("Description").is_not_null() & (item != "")),
        ("odd description", ~(note | item.is_in(sorted(SERVICES)))),
    ):
        kept = lines.filter(keep)
        counts[f"left out: {reason}"] = lines.height - kept.height
        lines = kept
    events = lines.select(
        pl.col("CustomerID").cast(pl.Int64).alias("user_id"),
        item.alias("item_id"),
        pl.col("InvoiceDate").cast(pl.Datetime("us")).alias("timestamp"),
        pl.col("Quantity").cast(pl.Float64).alias("weight"),
        pl.col("UnitPrice").cast(pl.Float64).alias("price"),
    )
    items = events.group_by("item_id").agg(pl.col("price").median()).sort("item_id")
    items = items.select("item_id", pl.col("item_id").alias("title"), "price")
    counts["events"] = write_table([events], out / EVENTS)
    counts["items"] = write_table([items], out / ITEMS)
    return counts


def _read(path: Path) -> pl.DataFrame:
    if path.suffix == ".parquet":
        frame = pl.read_parquet(path)
    else:
        try:
            frame = pl.read_excel(path, engine="calamine")
        except ModuleNotFoundError as error:
            raise MissingExtraError("fastexcel", "data") from error
    missing = [name for name in _COLUMNS if name not in frame.columns]
    if missing:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}; has {frame.columns}")
    return frame.select(_COLUMNS).with_columns(
        pl.col("Description").cast(pl.String), pl.col("InvoiceDate").cast(pl.Datetime("us"))
    )
