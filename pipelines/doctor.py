"""Look at the machine and the installation: what is there, what is missing, how to get it.

Versions are read from the installed packages' records, so nothing heavy is imported; only torch is
asked for its devices.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final, Literal

from packaging.requirements import Requirement
from packaging.version import Version
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.environment import AT_START, DEFAULTS, SETTINGS

State = Literal["ok", "note", "bad"]
MIN_MEMORY_GB: Final = 4.0
MIN_DISK_GB: Final = 5.0
SHARED_MEMORY: Final = Path("/dev/shm")
MIN_SHARED_MB: Final = 200
USER_EXTRAS: Final = ("cluster", "track", "data", "serve", "ann", "features", "gpu")
ALTERNATIVES: Final = {"faiss-cpu": "faiss-gpu", "faiss-gpu": "faiss-cpu"}  # both own `faiss`


@dataclass(frozen=True)
class Finding:
    """One line of the report: `bad` must be mended before `recsys run` can work."""

    subject: str
    value: str
    state: State = "ok"
    remedy: str = ""


def examine(directory: Path | None = None) -> list[Finding]:
    """Return everything that was looked at; `directory` is where results will be written."""
    return [
        *_python(),
        *_packages(),
        *_processor(),
        *_devices(),
        *_space(Path.cwd() if directory is None else directory),
        *_variables(),
    ]


def exit_code(findings: Iterable[Finding]) -> int:
    """Return 0 if nothing is bad, else 1."""
    return int(any(finding.state == "bad" for finding in findings))


def render(findings: Iterable[Finding], console: Console) -> None:
    """Print the findings as a table, remedies included."""
    table = Table(box=None, pad_edge=False)
    for heading in ("", "what", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    marks = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "bad": "[red]bad[/]"}
    for finding in findings:
        said = (finding.subject, finding.value, finding.remedy)
        # `recsys[features]` is what to type, not markup.
        table.add_row(marks[finding.state], *map(Text, said))
    console.print(table)


def _python() -> list[Finding]:
    found = f"{platform.python_version()} ({sys.executable})"
    return [Finding("python", found), Finding("system", platform.platform())]


def _packages() -> list[Finding]:
    """Compare the installed packages with what the project's own record asks for."""
    try:
        own = version("recsys")
    except PackageNotFoundError:
        return [Finding("recsys", "not installed", "bad", "pip install -e '.[dev]' in a checkout")]
    findings = [Finding("recsys", own)]
    for text in requires("recsys") or []:
        requirement = Requirement(text)
        extra = _extra_of(requirement)
        if extra in (*USER_EXTRAS, None) and _applies(requirement, extra):
            findings.append(_package(requirement, extra))
    return sorted(findings, key=lambda f: f.state == "note")  # stable: what is missing comes last


def _package(requirement: Requirement, extra: str | None) -> Finding:
    name = requirement.name
    remedy = f"pip install 'recsys[{extra}]'" if extra else "pip install recsys"
    try:
        found = version(name)
    except PackageNotFoundError:
        if (other := ALTERNATIVES.get(name)) and _installed(other):
            return Finding(name, f"{other} is there instead")
        if extra is None:
            return Finding(name, "missing", "bad", remedy)
        return Finding(name, "not installed", "note", f"if you want it: {remedy}")
    if not requirement.specifier.contains(Version(found), prereleases=True):
        wanted = f"{found}, but {requirement.specifier} is needed"
        return Finding(name, wanted, "bad", f"pip install '{name}{requirement.specifier}'")
    return Finding(name, found)


def _extra_of(requirement: Requirement) -> str | None:
    """Return the extra that brings a requirement, None for the core."""
    if requirement.marker is None:
        return None
    text = str(requirement.marker)
    named = [extra for extra in (*USER_EXTRAS, "dev", "all") if f'extra == "{extra}"' in text]
    return named[0] if named else None


def _applies(requirement: Requirement, extra: str | None) -> bool:
    """Tell whether a requirement's other conditions (the platform's, say) hold here."""
    marker = requirement.marker
    return marker is None or marker.evaluate({"extra": extra or ""})


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _processor() -> list[Finding]:
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    limit = os.environ.get("OMP_NUM_THREADS")
    threads = f"{limit} (OMP_NUM_THREADS)" if limit else f"{usable} (all usable cores)"
    return [Finding("cores", f"{usable} usable of {cores}"), Finding("threads", threads)]


def _devices() -> list[Finding]:
    if not _installed("torch"):
        return []
    try:
        import torch
    except (ImportError, OSError) as error:  # a broken installation, or libraries it cannot load
        return [Finding("devices", f"torch does not import: {error}", "bad", "reinstall torch")]
    found = [Finding("bf16", _half_precision(torch.backends.cpu.get_cpu_capability()))]
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        size = f"{properties.total_memory / 1e9:.0f} GB"
        found.append(Finding(f"cuda:{i}", f"{properties.name}, {size}"))
    if torch.backends.mps.is_available():
        found.append(Finding("mps", "Apple GPU"))
    if len(found) == 1:
        found.insert(0, Finding("devices", "CPU only (no GPU that torch can use)"))
    return found


def _half_precision(capability: str) -> str:
    """Say whether half precision helps on this processor; without AVX-512 it is ~145x slower."""
    fast = "AVX512" in capability.upper()
    return f"processor offers {capability}; on the CPU " + ("usable" if fast else "slow, not used")


def _space(directory: Path) -> list[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    text = f"{memory.available / 1e9:.1f} GB free of {memory.total / 1e9:.1f} GB"
    low = memory.available < MIN_MEMORY_GB * 1e9
    remedy = f"training with a local Ray wants about {MIN_MEMORY_GB:.0f} GB" if low else ""
    findings = [Finding("memory", text, "note" if low else "ok", remedy)]
    existing = next(p for p in (directory.absolute(), *directory.absolute().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    low = free < MIN_DISK_GB * 1e9
    remedy = f"keep {MIN_DISK_GB:.0f} GB free, or set output=/another/disk" if low else ""
    findings.append(
        Finding("disk", f"{free / 1e9:.1f} GB free at {existing}", "note" if low else "ok", remedy)
    )
    if SHARED_MEMORY.is_dir():
        shared = shutil.disk_usage(SHARED_MEMORY).free / 1e6
        low = shared < MIN_SHARED_MB
        remedy = f"Ray's object store wants {MIN_SHARED_MB} MB (--shm-size in a container)"
        state: State = "note" if low else "ok"
        findings.append(
            Finding("shared memory", f"{shared:.0f} MB free", state, remedy if low else "")
        )
    if not os.access(existing, os.W_OK):
        findings.append(
            Finding("disk", f"{existing} is not writable", "bad", "set output=/a/writable/place")
        )
    return findings


def _variables() -> list[Finding]:
    findings = [
        Finding(name, value, remedy=meaning)
        for name, meaning in SETTINGS.items()
        if (value := os.environ.get(name)) is not None
    ]
    data = os.environ.get("RECSYS_DATA_DIR")
    if data is not None and not Path(data).is_dir():
        remedy = "name an existing folder, or unset it"
        findings.append(Finding("RECSYS_DATA_DIR", f"{data} is no folder", "bad", remedy))
    for name, value in DEFAULTS.items():
        if (found := os.environ.get(name)) != value and found is not None:
            findings.append(Finding(name, found, "note", f"the project's own setting is {value}"))
    unset = [f"{name}={value}" for name, value in AT_START.items() if name not in os.environ]
    if unset and sys.platform == "linux":
        remedy = f"for faster training on a CPU: export {' '.join(unset)}"
        findings.append(Finding("memory allocator", "default", "note", remedy))
    return findings
