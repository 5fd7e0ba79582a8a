from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recsys.errors import RecsysError
from recsys.lock import locked

HOLD = """
import sys
from pathlib import Path
from recsys.lock import locked
file = Path(sys.argv[1])
with locked(file, file.parent, "or go away"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def other_process(file: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock until its input ends."""
    command = [sys.executable, "-c", HOLD, str(file)]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


def test_the_second_learns_who_is_there(tmp_path: Path) -> None:
    file = tmp_path / "place" / ".lock"
    with other_process(file) as process:
        said = (
            rf"at work in {file.parent} \(pid {process.pid} on .* since .*: -c .*\); wait .*, or go"
        )
        with pytest.raises(RecsysError, match=said), locked(file, file.parent, "or go away"):
            pytest.fail("two are in")
    assert process.returncode == 0
    with locked(file, file.parent, ""):
        pass
    assert list(file.parent.iterdir()) == []


def test_a_killed_process_blocks_nobody(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    with other_process(file) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert file.exists(), "it had no time to tidy up"
        with locked(file, tmp_path, ""):
            assert f'"pid": {os.getpid()}' in file.read_text()
    assert not file.exists()


def test_an_error_inside_gives_the_lock_back(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    with pytest.raises(KeyError), locked(file, tmp_path, ""):
        raise KeyError
    with locked(file, tmp_path, ""):
        pass


def test_a_holder_that_has_not_said_who_it_is(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    with locked(file, tmp_path, ""):
        file.write_text("")
        said = r"at work in .*lock does not say which"
        with pytest.raises(RecsysError, match=said), locked(file, tmp_path, ""):
            pytest.fail("two are in")


def test_a_place_that_cannot_be_locked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(RecsysError, match="cannot be locked"),
        locked(tmp_path / "file" / ".lock", tmp_path, ""),
    ):
        pytest.fail("there is no such place")
