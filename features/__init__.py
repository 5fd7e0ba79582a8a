"""Every feature, defined once as plain functions over Polars and NumPy, used offline and online."""
