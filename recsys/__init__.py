"""Sequential and playlist recommendation, from raw event logs to a live endpoint."""

__version__ = "0.1.0"
