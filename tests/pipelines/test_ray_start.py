"""What happens when Ray does not start; a stand-in takes its place, so nothing is started here."""

from __future__ import annotations

import logging
import os
from typing import Any

import pytest

from pipelines import ray_session as session
from pipelines.ray_session import ray_session
from recsys.config import RayConfig
from recsys.errors import RecsysError

LATE = "The current node timed out during startup. This could happen because ..."


class Late:
    """Stands for the module `ray`, whose first starts fail."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.failures = failures
        self.error = error
        self.calls: list[str] = []
        self.settings: list[dict[str, Any]] = []

    def is_initialized(self) -> bool:
        return False

    def init(self, **settings: Any) -> None:
        self.calls.append("init")
        self.settings.append({**settings, "threads": os.environ.get("POLARS_MAX_THREADS")})
        if self.calls.count("init") <= self.failures:
            raise self.error

    def shutdown(self) -> None:
        self.calls.append("shutdown")


def late(monkeypatch: pytest.MonkeyPatch, failures: int, error: Exception) -> Late:
    ray = Late(failures, error)
    monkeypatch.setattr(session, "import_ray", lambda: ray)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of the test")
    monkeypatch.delenv("POLARS_MAX_THREADS", raising=False)
    return ray


def test_a_late_start_is_tried_once_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ray = late(monkeypatch, 1, Exception(LATE))
    with caplog.at_level(logging.WARNING), ray_session(RayConfig(workers=1)):
        assert ray.calls == ["init", "shutdown", "init"]
    assert ray.calls[-1] == "shutdown"
    assert ray.settings[0] == ray.settings[1]
    assert [record.message for record in caplog.records] == [
        f"Ray did not start (Exception: {LATE}); trying once more"
    ]


def test_a_second_late_start_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = late(monkeypatch, 9, Exception(LATE))
    said = r"in 2 attempts \(Exception: The current node timed out.*object_store_mb.*same command"
    with pytest.raises(RecsysError, match=said), ray_session(RayConfig(workers=1)):
        pytest.fail("there is no session to work in")
    assert ray.calls == ["init", "shutdown", "init", "shutdown"]
    assert "POLARS_MAX_THREADS" not in os.environ, "the caller's environment is left as it was"


def test_a_cluster_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    late(monkeypatch, 9, ConnectionError("refused"))
    said = r"no Ray cluster answers at ray\.address 'head:6379' \(ConnectionError: refused\)"
    with pytest.raises(RecsysError, match=said), ray_session(RayConfig(address="head:6379")):
        pytest.fail("there is no session to work in")
