"""Throw-away environments of other libraries, and the facts of the machine they are measured on."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

TORCH = "torch==2.13.0"
"""The same torch in every environment, so that a comparison is not one of its versions."""

PEERS = {
    "rectools": "rectools[torch]==0.19.0",
    "replay": "replay-rec[torch]==0.22.0",
}


def peer_python(cache: Path, peer: str) -> Path:
    """Return the Python of an environment that holds `peer`, made below `cache` on the first call."""
    home = cache.absolute() / peer
    python, finished = home / "bin" / "python", home / ".finished"
    if not finished.is_file():
        print(f"making an environment for {PEERS[peer]} in {home}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        constraint = home / "constraint.txt"
        constraint.write_text(TORCH + "\n")
        install = [str(python), "-m", "pip", "install", "--quiet", "-c", str(constraint)]
        subprocess.run([*install, PEERS[peer]], check=True)
        finished.touch()
    return python


def measured_environment(threads: int, wait: str) -> dict[str, str]:
    """Return the environment of a measured process: so many threads, and freed memory kept.

    Args:
        wait: OMP_WAIT_POLICY, what an OpenMP thread does until the others have finished their part.
            `active` spins: on a machine that does something else besides, a step of many small
            operations may then take 30 times as long. `passive` sleeps.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")
    memory = {"MALLOC_MMAP_THRESHOLD_": str(1 << 32), "MALLOC_TRIM_THRESHOLD_": str(1 << 33)}
    threading = {**dict.fromkeys(names, str(threads)), "OMP_WAIT_POLICY": wait}
    return {**os.environ, **threading, **memory}


def machine() -> dict[str, Any]:
    """Return processor, cores, memory and system."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
