from __future__ import annotations

import time

from recsys.training.resources import Resources


def test_memory_and_processor_are_those_of_this_process() -> None:
    resources = Resources()
    kept = bytearray(64 << 20)
    began = time.process_time()
    while time.process_time() < began + 0.1:
        sum(range(10_000))
    found = resources.read()
    assert found["memory_mb"] > 64
    assert 0 < found["cpu_share"] < 64
    time.sleep(0.3)
    assert resources.read()["cpu_share"] < 0.5  # nothing was done meanwhile
    assert len(kept) == 64 << 20
