"""Environment variables that other libraries read: no usage reports, a local Ray on loopback.

They only count when they are set before the library in question is imported, so the command line
calls `set_environment` first; importing `recsys` sets nothing. What the user has set stays.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from typing import Final

DEFAULTS: Final[Mapping[str, str]] = {
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # every port of a local Ray binds to 127.0.0.1
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "FEAST_USAGE": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false",
    "TOKENIZERS_PARALLELISM": "false",
    # An unreachable tracking server must cost seconds, not the minutes of MLflow's own defaults.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}

AT_START: Final[Mapping[str, str]] = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
}
"""Read by the C library when a process starts, so only the caller (the Makefile, say) can set them.

They keep freed blocks in the process: a training step on the CPU is about a quarter faster.
"""

IN_TRAINING: Final[Mapping[str, str]] = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64"}
"""Kernels that torch's CPU library keeps, each for one shape. Batches of sentences have ever
new shapes, so its 1,024 would fill: pre-training grew from 2.0 to 3.6 GB within nine epochs, to save no time.
An endpoint, whose shapes come again, keeps them all."""

SETTINGS: Final[Mapping[str, str]] = {
    "RECSYS_DATA_DIR": "a folder with the public data sets; without it they are downloaded",
    "OMP_NUM_THREADS": "threads of torch and FAISS; all cores by default",
    "POLARS_MAX_THREADS": "threads of Polars; all cores by default",
    "MLFLOW_TRACKING_URI": "read where the configuration names no tracking.uri",
    "CUDA_VISIBLE_DEVICES": "GPUs that may be used",
}
"""Variables that change what the program does, and how."""


def set_environment(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set every default that the user has not set."""
    for name, value in DEFAULTS.items():
        environ.setdefault(name, value)


def set_training_environment(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set what a process should have before it trains and that the user has not set."""
    for name, value in IN_TRAINING.items():
        environ.setdefault(name, value)
