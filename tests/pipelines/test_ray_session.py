from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines import ray_session as session
from pipelines.ray_session import map_partitions, ray_session, worker_count
from recsys.config import RayConfig
from recsys.errors import DataError, RecsysError

pytestmark = pytest.mark.ray

TWO = RayConfig(workers=2, object_store_mb=80)


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[Any]:
    """A session of two workers."""
    with ray_session(TWO):
        import ray

        # Workers do not see the folders of the tests: the functions below travel whole.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield ray
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def square(n: int) -> int:
    return n * n


def slower_first(n: int) -> int:
    time.sleep(0.3 if n == 0 else 0)
    return n


def fail(n: int) -> int:
    if n == 2:
        raise DataError("events.csv, row 3: no item")
    return n


def die_once(n: int, folder: Path) -> int:
    """Kill the worker that comes first to 1, without a trace but a file."""
    marker = folder / "killed"
    if n == 1 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 10 * n


def die(_: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def surroundings(_: int) -> dict[str, str | None]:
    names = ("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "RAY_USAGE_STATS_ENABLED")
    return {name: os.environ.get(name) for name in names}


def test_results_come_in_the_order_of_the_items() -> None:
    assert list(map_partitions(square, range(20), 2)) == [n * n for n in range(20)]
    assert list(map_partitions(slower_first, range(4), 2)) == [0, 1, 2, 3]
    assert list(map_partitions(square, [], 2)) == []


def test_a_session_inside_a_session_is_the_same_one(ray: Any) -> None:
    node = ray.get_runtime_context().get_node_id()
    with ray_session(RayConfig(workers=1)):
        assert ray.get_runtime_context().get_node_id() == node
    assert ray.is_initialized()


def test_an_error_for_people_comes_back_as_itself() -> None:
    with pytest.raises(DataError, match=r"^events.csv, row 3: no item$"):
        list(map_partitions(fail, range(4), 2))


def test_a_killed_workers_task_is_run_again(tmp_path: Path) -> None:
    assert list(map_partitions(partial(die_once, folder=tmp_path), range(4), 2)) == [0, 10, 20, 30]
    assert (tmp_path / "killed").exists()


def test_a_task_that_always_kills_its_worker_says_what_to_do() -> None:
    with pytest.raises(RecsysError, match=r"sort: its worker died 4 times.*ray\.workers lower"):
        list(map_partitions(die, [0], 2, "sort"))


def test_workers_share_the_cores_and_send_no_reports() -> None:
    found = next(map_partitions(surroundings, [0], 2))
    assert found["POLARS_MAX_THREADS"] == str(max(1, (os.cpu_count() or 1) // 2))
    assert found["OMP_NUM_THREADS"] == "1"
    assert found["RAY_USAGE_STATS_ENABLED"] == "0"


def test_the_number_of_workers_is_the_configured_one_or_that_of_the_cpus() -> None:
    assert worker_count(RayConfig(workers=3)) == 3
    assert worker_count(RayConfig()) == max(2, os.cpu_count() or 1)


def test_every_port_listens_on_loopback_only() -> None:
    ours = {p.pid for p in psutil.Process().children(recursive=True)}
    listening = [
        connection.laddr.ip
        for connection in psutil.net_connections("inet")
        if connection.pid in ours and connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert set(listening) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_the_callers_environment_is_left_as_it_was() -> None:
    assert str(session._root()) not in os.environ.get("PYTHONPATH", "").split(os.pathsep)


def test_it_works_from_any_directory(tmp_path: Path) -> None:
    """The workers of a script outside the checkout find the packages, installed or not."""
    script = tmp_path / "script.py"
    script.write_text(
        "from pipelines.ray_session import map_partitions, ray_session\n"
        "from recsys.config import RayConfig\n"
        "def work(n):\n"
        "    import recsys.data.ordering, features.frequency, pipelines.prepare\n"
        "    return n + 1\n"
        "with ray_session(RayConfig(workers=1, object_store_mb=80)):\n"
        "    print(list(map_partitions(work, [1, 2], 1)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(session._root())}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == "[2, 3]", done.stderr
    assert done.stderr == ""
