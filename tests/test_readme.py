"""The README's commands, run on a small data set; what it names exists.

`make demo` is looked up in the Makefile and its command is run; `make test` and installations are not.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import yaml

from recsys.config import parse_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOT_RUN = ("make test", "pip install")
SMALL = [
    "data={events: [data/my_events.csv], items: [data/my_items.csv]}",
    "models.sasrec.width=16",
    "models.sasrec.blocks=1",
    "models.sasrec.training.epochs=1",
    "evaluation.bootstrap=100",
    "evaluation.permutations=200",
    "ray.workers=1",
    "ray.object_store_mb=80",
]
"""What makes the demo small: another data set and less of everything."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Return every command line of the bash blocks, comments cut off."""
    lines = [line.strip() for block in blocks("bash") for line in block.splitlines()]
    return [shlex.join(shlex.split(line, comments=True)) for line in lines if line]


def make_runs(target: str) -> str:
    """Return what make would run for a target."""
    done = subprocess.run(
        ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, tiny_events: pl.DataFrame, tiny_items: pl.DataFrame
) -> Path:
    """A directory with the configurations and a small data set that has the films of the examples."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "configs", folder / "configs")
    (folder / "data").mkdir()
    films = {"i00": "318", "i01": "296"}
    for name, frame in (("events", tiny_events), ("items", tiny_items)):
        renamed = frame.with_columns(pl.col("item_id").replace(films))
        renamed.write_csv(folder / "data" / f"my_{name}.csv")
    return folder


def environment(place: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "RECSYS_CACHE_DIR": str(place / "cache"),
        "OMP_NUM_THREADS": "1",
    }


def recsys(place: Path, arguments: list[str]) -> str:
    """Run the command line in a process of its own; return what it prints."""
    if arguments[0] in ("run", "prepare", "features", "train", "index", "evaluate", "publish"):
        given = {argument.partition("=")[0] for argument in arguments}
        arguments = arguments + [o for o in SMALL if o.partition("=")[0] not in given]
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        cwd=place,
        env=environment(place),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"recsys {shlex.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def demo(place: Path) -> str:
    """What `make demo` prints, on the small data set."""
    [line] = [line for line in make_runs("demo").splitlines() if "recsys run" in line]
    return recsys(place, shlex.split(line)[1:])


@pytest.fixture(scope="module")
def address(place: Path, demo: str) -> Iterator[str]:
    """Where the README's serve command answers; on a free port instead of 8000."""
    [line] = [command for command in commands() if "recsys serve" in command]
    arguments = [*shlex.split(line)[1:], "--port", "0"]
    with subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        cwd=place,
        env=environment(place),
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        try:
            announced = re.search(r"http://[\d.]+:\d+", server.stdout.readline())
            assert announced, "the server did not say where it listens"
            wait_until_ready(announced[0])
            yield announced[0]
        finally:
            server.terminate()
            server.communicate(timeout=30)


def wait_until_ready(address: str) -> None:
    for _ in range(100):
        try:
            with urllib.request.urlopen(f"{address}/readyz", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail("the server is not ready after ten seconds")


def test_there_are_commands_to_run() -> None:
    assert "make demo" in commands()
    assert len(commands()) >= 10


@pytest.mark.ray
@pytest.mark.slow
def test_the_demo_ends_with_a_table_the_bundle_and_the_line_that_serves_it(
    place: Path, demo: str
) -> None:
    for heading in ("HR@10", "NDCG@10", "MRR", "coverage@10", "users"):
        assert heading in demo
    for model in ("pop", "markov", "sasrec"):
        assert re.search(rf"^{model} +0\.\d{{4}} \[0\.\d{{4}}, [01]\.\d{{4}}\]", demo, re.MULTILINE)
    [served] = re.findall(r"recsys serve (\S+)", demo)
    assert served == "out/demo/bundles"
    assert list((place / served).glob("demo-*@*/manifest.json"))
    assert (place / re.findall(r"report +(\S+)", demo)[0]).is_file()


@pytest.mark.ray
@pytest.mark.slow
def test_a_second_run_takes_seconds_and_does_nothing(place: Path, demo: str) -> None:
    began = time.monotonic()
    again = recsys(place, ["run", "configs/demo.yaml"])
    assert time.monotonic() - began < 30
    assert "0 steps run, 8 up to date" in again
    assert demo.splitlines()[-3:] == again.splitlines()[-3:]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in commands() if c.split()[0] == "recsys"])
def test_command(command: str, place: Path, demo: str) -> None:
    assert recsys(place, shlex.split(command)[1:]).strip()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in commands() if c.split()[0] == "curl"])
def test_request(command: str, address: str) -> None:
    words = shlex.split(command)
    [url] = [word for word in words if word.startswith("http://")]
    assert url.startswith("http://127.0.0.1:8000/")
    request = urllib.request.Request(
        url.replace("http://127.0.0.1:8000", address),
        data=words[words.index("-d") + 1].encode(),
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        answer = json.load(response)
    assert len(answer["items"]) == 5
    assert answer["unknown"] == []
    assert not {"318", "296"} & {item["item_id"] for item in answer["items"]}


def test_every_command_is_run_or_said_not_to_be() -> None:
    rest = [c for c in commands() if c.split()[0] not in ("recsys", "curl")]
    rest = [c for c in rest if not c.startswith(NOT_RUN)]
    assert rest == ["make demo", ".venv/bin/recsys serve out/demo/bundles"]


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`make ([\w-]+)`", README))))
def test_make_targets_exist(target: str) -> None:
    assert make_runs(target).strip()


def test_the_installation_is_the_one_make_does() -> None:
    [install] = [c for c in commands() if c.startswith("pip install")]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert install.removeprefix("pip install ").replace("'", "") in makefile.replace("'", "")


def test_configurations_shown_are_valid() -> None:
    shown = blocks("yaml")
    assert shown
    for block in shown:
        assert parse_config(yaml.safe_load(block)).name


def test_files_that_are_named_exist() -> None:
    named = re.findall(r"`((?:recsys|pipelines|features|serving|configs|tests)/[\w./]*)`", README)
    assert len(named) > 10
    missing = [name for name in named if not (ROOT / name).exists()]
    generated = {"tests/benchmarks/results/"}
    assert set(missing) <= generated
