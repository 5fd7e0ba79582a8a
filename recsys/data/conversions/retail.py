"""Online Retail (UCI 352): a gift shop's invoice lines as events of customers and items."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from recsys.data.conversions.tables import EVENTS, ITEMS, LISTS, RawFiles, write_table
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


_ITEM = normalise(pl.col("Description"))


def convert_retail(raw: RawFiles, out: Path) -> dict[str, int]:
    """Write sales to known customers: `user_id`, `item_id`, `timestamp`, `weight` (quantity), `price`.

    Left out, in this order, and counted: lines without a customer; returns (quantity of 0 or less);
    lines without a description; odd descriptions, which are notes of the staff (the shop writes its
    goods in capitals, so a text without two capitals in a row is a note) and services such as
    postage. Item attributes are the title and the median price.
    """
    lines, counts = _sales(raw, _COLUMNS)
    events = lines.select(
        pl.col("CustomerID").cast(pl.Int64).alias("user_id"),
        _ITEM.alias("item_id"),
        pl.col("InvoiceDate").cast(pl.Datetime("us")).alias("timestamp"),
        pl.col("Quantity").cast(pl.Float64).alias("weight"),
        pl.col("UnitPrice").cast(pl.Float64).alias("price"),
    )
    counts["items"] = _write_items(events, out)
    counts["events"] = write_table([events], out / EVENTS)
    return counts


def convert_retail_baskets(raw: RawFiles, out: Path) -> dict[str, int]:
    """Write the same sales as lists: one is what a customer bought within a minute.

    A list is `customer YYYY-MM-DD HH:MM`; lines that repeat an item of theirs are one. Its order is that
    of the file, which is invented. `lists.parquet` has each basket's customer, country and value.
    """
    lines, counts = _sales(raw, (*_COLUMNS, "Country"))
    minute = pl.col("InvoiceDate").dt.truncate("1m")
    basket = pl.concat_str(
        pl.col("CustomerID").cast(pl.Int64), minute.dt.strftime("%Y-%m-%d %H:%M"), separator=" "
    )
    sold = lines.select(
        basket.alias("user_id"),
        _ITEM.alias("item_id"),
        minute.alias("timestamp"),
        pl.col("Quantity").cast(pl.Float64).alias("weight"),
        pl.col("UnitPrice").cast(pl.Float64).alias("price"),
        pl.col("Country").cast(pl.String).alias("country"),
        pl.col("CustomerID").cast(pl.Int64).cast(pl.String).alias("customer"),
    )
    lists = (
        sold.group_by("user_id", maintain_order=True)
        .agg(
            pl.col("customer", "country").first(),
            (pl.col("weight") * pl.col("price")).sum().round(2).alias("value"),
        )
        .sort("user_id")
    )
    events = sold.unique(["user_id", "item_id"], keep="first", maintain_order=True)
    counts["left out: repeated in its basket"] = sold.height - events.height
    counts["items"] = _write_items(sold, out)
    counts["events"] = write_table([events.drop("country", "customer")], out / EVENTS)
    counts["lists"] = write_table([lists], out / LISTS)
    return counts


def _write_items(events: pl.DataFrame, out: Path) -> int:
    """Write the items of some sales with their titles and median prices; return how many."""
    items = events.group_by("item_id").agg(pl.col("price").median()).sort("item_id")
    items = items.select("item_id", pl.col("item_id").alias("title"), "price")
    return write_table([items], out / ITEMS)


def _sales(raw: RawFiles, columns: tuple[str, ...]) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return the lines that are sales to known customers, and how many others were left out."""
    lines = pl.concat([_read(path, columns) for path in raw.events], how="vertical_relaxed")
    note = ~pl.col("Description").str.contains(r"[A-Z]{2}")
    counts = {"lines": lines.height}
    for reason, keep in (
        ("no customer", pl.col("CustomerID").is_not_null()),
        ("returned", pl.col("Quantity") > 0),
        ("no description", pl.col("Description").is_not_null() & (_ITEM != "")),
        ("odd description", ~(note | _ITEM.is_in(sorted(SERVICES)))),
    ):
        kept = lines.filter(keep)
        counts[f"left out: {reason}"] = lines.height - kept.height
        lines = kept
    return lines, counts


def _read(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    if path.suffix == ".parquet":
        frame = pl.read_parquet(path)
    else:
        try:
            frame = pl.read_excel(path, engine="calamine")
        except ModuleNotFoundError as error:
            raise MissingExtraError("fastexcel", "data") from error
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}; has {frame.columns}")
    return frame.select(columns).with_columns(
        pl.col("Description").cast(pl.String), pl.col("InvoiceDate").cast(pl.Datetime("us"))
    )
