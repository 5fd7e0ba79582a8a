"""What this machine can do: device, precision, compilation, threads, seeds, resolved from `auto`."""

from __future__ import annotations

import os
from typing import Literal

import torch

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


def resolve_device(device: str) -> Literal["cpu", "cuda", "mps"]:
    """Return the accelerator that `auto` means here: CUDA, else Apple's MPS, else the CPU."""
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        from recsys.errors import ConfigError

        raise ConfigError("device is cuda, but torch sees no CUDA device; use auto or cpu")
    return device  # type: ignore[return-value]


def resolve_precision(precision: str, device: str) -> Precision:
    """Return Lightning's name of a precision.

    `auto` is bf16 on a GPU that has it and fp32 everywhere else: on a processor without AVX512-BF16 or
    AMX a bf16 product is about 145 times slower than fp32.
    """
    if precision == "auto":
        fast = device == "cuda" and torch.cuda.is_bf16_supported()
        return "bf16-mixed" if fast else "32-true"
    names: dict[str, Precision] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
    return names[precision]


def resolve_compile(compile_setting: str, device: str) -> bool:
    """Tell whether to call `torch.compile`; `auto` does on CUDA only, the CPU gained nothing."""
    return compile_setting == "on" or (compile_setting == "auto" and device == "cuda")


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def derive_seed(*parts: int) -> int:
    """Return a 63-bit seed that depends on every part, for independent random streams."""
    import numpy as np

    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
