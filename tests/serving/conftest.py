"""An output directory with real reports of the tiny experiment, made once: what a dashboard looks at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
from made_experiment import finish_training, run_stages_here, write_history

from recsys.config import ExperimentConfig, parse_config
from recsys.data.sequences import SequenceStore, Split


@dataclass(frozen=True)
class Measured:
    """A measured experiment, the report it has, and where all of it lies."""

    config: ExperimentConfig
    report: Path

    @property
    def output(self) -> Path:
        return self.config.output


def tiny_config(output: Path, events: Path, items: Path, name: str = "tiny") -> ExperimentConfig:
    training = {"epochs": 2, "batch_size": 16, "warmup_steps": 0}
    sasrec = {"kind": "sasrec", "width": 16, "heads": 1, "blocks": 1, "max_length": 10}
    return parse_config(
        {
            "name": name,
            "seed": 1,
            "output": str(output),
            "data": {"events": [str(events)], "items": [str(items)]},
            "split": {"kind": "leave_one_out"},
            "models": {
                "pop": {"kind": "pop"},
                "markov": {"kind": "markov"},
                "sasrec": {**sasrec, "training": training},
            },
            "evaluation": {"bootstrap": 100, "permutations": 200, "baseline": "pop"},
            "ray": {"workers": 1, "partitions": 1, "object_store_mb": 80},
            "tracking": {"enabled": False},
        }
    )


@pytest.fixture(scope="session")
def measured(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_files: object,
    tiny_store: SequenceStore,
    tiny_split: Split,
    tiny_items: pl.DataFrame,
) -> Iterator[Measured]:
    """The tiny experiment, indexed and evaluated by the stages themselves; nobody may change it."""
    from pipelines.evaluate import evaluate
    from pipelines.index import index
    from pipelines.run_keys import run_directory

    output = tmp_path_factory.mktemp("dashboard") / "out"
    config = tiny_config(output, tiny_files.events, tiny_files.items)  # type: ignore[attr-defined]
    finish_training(config, tiny_store, tiny_split, tiny_items)
    write_history(run_directory(config, "sasrec"), "")
    with pytest.MonkeyPatch.context() as patch:
        run_stages_here(patch)
        index(config, "sasrec")
        report = evaluate(config)
    yield Measured(config, report)
