"""Conversions: raw public files that no reader takes as they are -> `events.parquet`, `items.parquet`."""
