"""Progress on the terminal; that of a training in another process is fed through a file."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

EPOCHS_FILE: Final = "epochs.jsonl"
"""One line an epoch, in the unfinished run directory."""
LOOK_EVERY: Final = 0.5

Row = Mapping[str, float]


def record_epoch(directory: Path, row: Row) -> None:
    """Append an epoch's record, as seen by whoever follows (called by the training process)."""
    with (directory / EPOCHS_FILE).open("a", encoding="utf-8") as handle:
        handle.write(json.dumps(dict(row)) + "\n")


def transient_bar(console: Console | None = None) -> Progress:
    """Return a bar of finished tasks with the time left, not yet shown, gone when it is stopped."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        transient=True,
        console=console,
    )


@contextmanager
def follow_epochs(
    directory: Path, planned: int, title: str, console: Console | None = None
) -> Iterator[None]:
    """Show a bar of finished epochs while the body runs; silent where there is no terminal.

    Epochs of an earlier, interrupted attempt count as done. The file is deleted when the body ends
    well: the run's history then has the same records.
    """
    bar = transient_bar(console)
    with watched(bar, partial(_watch, directory / EPOCHS_FILE, planned, title, bar)):
        yield
    (directory / EPOCHS_FILE).unlink(missing_ok=True)


@contextmanager
def watched(bar: Progress, watch: Callable[[Callable[[float], bool]], None]) -> Iterator[None]:
    """Show a bar that `watch` keeps up to date in a thread while the body runs.

    `watch` is given a wait of so many seconds that says whether the body has ended. Where there is no
    terminal, nothing is shown and nobody watches.
    """
    stop = threading.Event()
    watcher = threading.Thread(target=watch, args=(stop.wait,), daemon=True)
    if bar.console.is_terminal:
        bar.start()
        watcher.start()
    try:
        yield
    finally:
        stop.set()
        if watcher.is_alive():
            watcher.join()
            bar.stop()  # one that was never started would print an empty line


def _watch(
    path: Path, planned: int, title: str, bar: Progress, wait: Callable[[float], bool]
) -> None:
    """Keep the bar up to date until `wait` says that the training has ended."""
    task = bar.add_task(title, total=planned)
    while True:
        rows = read_epochs(path)
        if rows:
            bar.update(task, completed=len(rows), description=f"{title}  {_newest(rows)}")
        if wait(LOOK_EVERY):
            return


def read_epochs(path: Path) -> list[dict[str, float]]:
    """Return the records in order of epochs; one that was trained twice counts once, the later."""
    if not path.is_file():
        return []
    by_epoch: dict[int, dict[str, float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # the end of a line that is being written, or that a kill cut off
            continue
        by_epoch[int(row["epoch"])] = row
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]


def _newest(rows: list[dict[str, float]]) -> str:
    measured = [row["ndcg@10"] for row in rows if "ndcg@10" in row]
    best = f", ndcg@10 {measured[-1]:.4f}, best {max(measured):.4f}" if measured else ""
    loss = rows[-1].get("loss")  # none in a model that is used as it comes
    return f"loss {loss:.3f}{best}" if loss is not None else best.removeprefix(", ")
