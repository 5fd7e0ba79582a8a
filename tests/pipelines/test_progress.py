from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from pipelines import progress
from pipelines.progress import EPOCHS_FILE, follow_epochs, read_epochs, record_epoch


def row(epoch: int, ndcg: float | None = None) -> dict[str, float]:
    measured = {} if ndcg is None else {"ndcg@10": ndcg}
    return {"epoch": epoch, "loss": 9.0 - epoch, **measured}


def test_epochs_are_read_in_order_and_a_repeated_one_counts_once(tmp_path: Path) -> None:
    for one in (row(0, 0.1), row(1, 0.2), row(1, 0.3), row(2)):
        record_epoch(tmp_path, one)
    assert read_epochs(tmp_path / EPOCHS_FILE) == [row(0, 0.1), row(1, 0.3), row(2)]


def test_a_line_that_is_cut_off_is_left_out(tmp_path: Path) -> None:
    record_epoch(tmp_path, row(0))
    with (tmp_path / EPOCHS_FILE).open("a") as handle:
        handle.write('{"epoch": 1, "lo')
    assert read_epochs(tmp_path / EPOCHS_FILE) == [row(0)]


def test_nothing_is_there_before_the_first_epoch(tmp_path: Path) -> None:
    assert read_epochs(tmp_path / EPOCHS_FILE) == []


def test_a_terminal_sees_epochs_and_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LOOK_EVERY", 0.02)
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=120)
    with follow_epochs(tmp_path, 3, "train sasrec", console):
        record_epoch(tmp_path, row(0, 0.5))
        record_epoch(tmp_path, row(1, 0.4))
        deadline = time.monotonic() + 10
        while "2/3" not in out.getvalue() and time.monotonic() < deadline:
            time.sleep(0.02)
    assert "2/3" in out.getvalue()
    assert "ndcg@10 0.4000, best 0.5000" in out.getvalue()
    assert not (tmp_path / EPOCHS_FILE).exists()


def test_a_log_file_sees_nothing(tmp_path: Path) -> None:
    out = io.StringIO()
    with follow_epochs(tmp_path, 3, "train sasrec", Console(file=out)):
        record_epoch(tmp_path, row(0))
    assert out.getvalue() == ""


def test_a_training_that_fails_leaves_its_records_for_the_next_attempt(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    with pytest.raises(KeyboardInterrupt), follow_epochs(tmp_path, 3, "train", console):
        record_epoch(tmp_path, row(0))
        raise KeyboardInterrupt
    assert read_epochs(tmp_path / EPOCHS_FILE) == [row(0)]
