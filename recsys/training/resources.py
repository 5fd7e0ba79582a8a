"""What a training process uses, read once an epoch: memory, processor, GPU."""

from __future__ import annotations

import time

import psutil
import torch


class Resources:
    """Reads what this process uses; the processor's share is that since the reading before."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._cpu, self._wall = self._seconds(), time.perf_counter()

    def read(self) -> dict[str, float]:
        """Return `memory_mb` (resident), `cpu_share` in cores, and `gpu_memory_mb` (peak) on a GPU."""
        cpu, wall = self._seconds(), time.perf_counter()
        used = (cpu - self._cpu) / max(wall - self._wall, 1e-9)
        self._cpu, self._wall = cpu, wall
        found = {"memory_mb": self._process.memory_info().rss / 1e6, "cpu_share": used}
        if torch.cuda.is_available():
            found["gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
        return found

    def _seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)
