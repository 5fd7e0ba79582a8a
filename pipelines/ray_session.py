"""Ray as the stages use it: one session, started where it is needed, and a map over partitions.

The map is made of plain Ray tasks and not of Ray Data. The work of a stage is a handful of large
partitions, each handled whole by Polars; measured on two cores (Ray 2.60), a map over eight
descriptors costs 0.01 s as tasks and 0.25 s as a Ray Data pipeline (3.4 s the first time, when every
worker imports it), which also holds 356 MB more. `prepare` makes ten to forty such maps.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import recsys
from pipelines.environment import set_environment
from recsys.config import RayConfig
from recsys.errors import MissingExtraError, RecsysError

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

RETRIES = 3
"""How often a task is run again when its worker dies."""
START_ATTEMPTS = 2
"""Ray gives its processes half a minute to come up, which a machine that is busy for once may miss."""
BAR_AFTER = 1.0
"""Seconds after which a map that is not done shows its progress."""


@contextmanager
def ray_session(config: RayConfig) -> Iterator[None]:
    """Keep a Ray session open; inside another session, that one is used and left open.

    Without `config.address` a local Ray is started: on loopback, with a bounded object store, no usage
    reports, and as many CPUs as the machine has (more, if `train_workers` or `workers` ask for more).
    Workers x Polars threads = cores. A cluster needs `recsys` installed on its nodes and file systems
    shared under the same paths; threads and memory are its own affair.

    What workers print stays in the files of Ray's session: a stage shows its progress itself. There is
    no dashboard, which costs 200 MB. Ray Train asks one every second whether its controller lives, and
    notes in one of those files that none answers; that is of no consequence, since this session ends
    with its controller.

    Raises:
        RecsysError: Ray did not start, tried twice, or the cluster does not answer.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield
        return
    if config.address is not None:
        _join_cluster(ray, config.address)
    else:
        _start_local(ray, config)
    try:
        yield
    finally:
        ray.shutdown()


def _join_cluster(ray: ModuleType, address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray has no type for it: RuntimeError, ConnectionError, ValueError
        raise RecsysError(
            f"no Ray cluster answers at ray.address {address!r} ({_in_short(error)}); see that it runs "
            "(`ray status`) and has this version of Ray, or leave ray.address out to work on this machine"
        ) from error


def _start_local(ray: ModuleType, config: RayConfig) -> None:
    """Start Ray on this machine; its processes inherit the environment they are started in."""
    cores = os.cpu_count() or 1
    workers = cores if config.workers == "auto" else config.workers
    inherited = {
        "POLARS_MAX_THREADS": str(max(1, cores // workers)),
        # Workers import the packages and the tests of a checkout that is not installed.
        "PYTHONPATH": os.pathsep.join([str(_root()), *_entries("PYTHONPATH")]),
    }
    # Other users of the machine can reach the loopback address too: they lack this session's key.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    before = {name: os.environ.get(name) for name in inherited}
    os.environ.update(inherited)
    try:
        _init(
            ray,
            num_cpus=max(cores, workers, config.train_workers),
            object_store_memory=config.object_store_mb << 20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    finally:
        for name, old in before.items():
            if old is None:
                del os.environ[name]
            else:
                os.environ[name] = old


def _init(ray: ModuleType, **settings: Any) -> None:
    """Start Ray, once more if that fails."""
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            ray.init(**settings)
        except Exception as error:  # Ray raises the bare class where its processes are late
            ray.shutdown()
            if attempt == START_ATTEMPTS:
                raise RecsysError(
                    f"Ray did not start in {START_ATTEMPTS} attempts ({_in_short(error)}); most likely "
                    "this machine is too busy or out of memory: wait for other jobs or end them, or set "
                    "ray.object_store_mb and ray.workers lower, then run the same command again; Ray's "
                    "own logs are in /tmp/ray/session_latest/logs unless RAY_TMPDIR says otherwise"
                ) from error
            logger.warning("Ray did not start (%s); trying once more", _in_short(error))
        else:
            return


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def worker_count(config: RayConfig) -> int:
    """Return how many tasks run at once: as configured, or one per CPU of the session."""
    if config.workers != "auto":
        return config.workers
    return max(1, int(import_ray().cluster_resources().get("CPU", 1)))


def map_partitions(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, title: str = ""
) -> Iterator[Result]:
    """Yield `function(item)` for every item, in order; at most `workers` run at once.

    Results that are ready early wait in the object store (keep them small: counts, paths), at most
    `2 * workers` of them. A task whose worker dies is run again, so `function` must be idempotent; an
    error raised by `function` is raised here, of the same type. Exhaust the iterator: what is not
    asked for is not run.
    """
    ray = import_ray()
    cpus = ray.cluster_resources().get("CPU", 1)
    # A whole number of CPUs also sets the OpenMP threads of the task.
    share = max(1, int(cpus // workers)) if workers <= cpus else cpus / workers
    task = ray.remote(num_cpus=share, max_retries=RETRIES)(_apply)
    waiting: list[Any] = []
    upcoming = iter(items)
    with _progress(title, len(items)) as advance:
        for item in upcoming:
            waiting.append(task.remote(function, item))
            if len(waiting) >= 2 * workers:
                break
        while waiting:
            yield _result(ray, waiting.pop(0), title, advance)
            waiting += [task.remote(function, item) for item in _take(upcoming, 1)]
            advance(1)


def _apply(function: Callable[[Item], Result], item: Item) -> Result:
    """Call a function that Ray cannot take by itself, such as a `functools.partial`."""
    return function(item)


def _take(items: Iterator[Item], n: int) -> Iterator[Item]:
    for _, item in zip(range(n), items, strict=False):
        yield item


def _result(ray: ModuleType, reference: Any, title: str, advance: Callable[[int], None]) -> Any:
    """Return a task's result, keeping the progress bar alive while waiting for it."""
    while not ray.wait([reference], timeout=0.5)[0]:
        advance(0)
    try:
        return ray.get(reference)
    except ray.exceptions.WorkerCrashedError as error:
        raise RecsysError(
            f"{title or 'a task'}: its worker died {RETRIES + 1} times, most likely for want of memory; "
            "set ray.workers lower or ray.partitions higher"
        ) from error
    except ray.exceptions.OutOfMemoryError as error:
        raise RecsysError(
            f"{title or 'a task'}: Ray stopped its worker because memory ran out; "
            "set ray.workers lower or ray.partitions higher"
        ) from error
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, RecsysError):
            raise error.cause from None
        raise


@contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield `advance(n)`; a bar with the time left appears when the map takes longer than a second."""
    import time

    from pipelines.progress import transient_bar

    began, done = time.monotonic(), 0
    bar = transient_bar()
    task = bar.add_task(title, total=total)

    def advance(n: int) -> None:
        nonlocal done
        done += n
        late = time.monotonic() - began > BAR_AFTER
        if title and late and not bar.live.is_started and done < total and bar.console.is_terminal:
            bar.start()
        bar.update(task, completed=done)

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()
        logger.debug("%s: %d of %d in %.2f s", title, done, total, time.monotonic() - began)


def import_ray() -> ModuleType:
    """Return the module `ray`, which reads its environment when imported; `MissingExtraError` without it."""
    set_environment()
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("ray", "cluster") from error
    module: ModuleType = ray
    return module


def _root() -> Path:
    return Path(recsys.__file__).resolve().parent.parent


def _entries(name: str) -> list[str]:
    return [entry for entry in os.environ.get(name, "").split(os.pathsep) if entry]
