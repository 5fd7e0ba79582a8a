"""Evaluation: full ranking, one row per target, and everything that is derived from those rows."""
