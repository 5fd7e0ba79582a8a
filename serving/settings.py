"""How an endpoint is run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ServingSettings:
    """What can be chosen when an endpoint is started.

    Attributes:
        batch: most requests that share one model call.
        waiting: most requests in the queue; beyond it the answer is 429.
        threads: compute threads of the model's worker.
        deadline: seconds after which a request is given up with 504.
        state: directory of the ledger and of the log of answers. Without one the endpoint takes no
            events, items or deletions, and logs no answers.
        features: directory of a feature store; None goes by the bundle's histories.
        feature_timeout: seconds that a request waits for the feature store.
        keys: file of API keys (see `serving.keys`).
        open_writes: let anybody write, without a key.
        closed_reads: ask for a key for reading, too.
        cors: origins of web pages that may call the endpoint; none by default.
        watch: seconds between two looks for a new bundle; 0 to look when asked only.
        log_answers: write what was shown to whom into the state directory.
        log_requests: write a line for every request.
        drain: seconds between the signal to end and the end, in which `/readyz` says no.
    """

    batch: int = 16
    waiting: int = 256
    threads: int = 1
    deadline: float = 2.0
    state: Path | None = None
    features: Path | None = None
    feature_timeout: float = 0.05
    keys: Path | None = None
    open_writes: bool = False
    closed_reads: bool = False
    cors: tuple[str, ...] = ()
    watch: float = 0.0
    log_answers: bool = True
    log_requests: bool = False
    drain: float = 0.0
