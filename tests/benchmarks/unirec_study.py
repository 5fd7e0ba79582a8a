"""The study of configs/unirec_study.yaml: UniRec against SASRec, TiSASRec and its ancestor, figures stored.

Runs the study (or goes on with it) and stores its figures in small form: a JSON file of each cell and the
summary, with machine and versions. The summary speaks of the cells whose runs lie below `--work`; paired
tests need their targets, which are not stored here.

    RECSYS_DATA_DIR=... python tests/benchmarks/unirec_study.py --sets beauty,toys --hours 2
"""

from __future__ import annotations

import argparse
import json
import shutil
from importlib.metadata import version
from pathlib import Path

from environments import machine, now
from rich.console import Console

from pipelines.study import SUMMARY, Study, run_study
from recsys.config import load_study_config

ROOT = Path(__file__).parents[2]
CONFIG = "configs/unirec_study.yaml"
RESULTS = Path(__file__).parent / "results" / "unirec"
PACKAGES = ("recsys", "torch", "numpy", "polars", "pytorch-lightning", "ray")


def main() -> None:
    """Run what is asked for and store what there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = lambda text: [part for part in text.split(",") if part]  # noqa: E731
    parser.add_argument("--sets", type=names, default=[], help="only these, commas between")
    parser.add_argument("--models", type=names, default=[], help="only these")
    parser.add_argument("--hours", type=float, default=None, help="begin no cell after this")
    parser.add_argument("--work", type=Path, default=Path("out"), help="where the runs are kept")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    config = load_study_config(ROOT / CONFIG, [f"output={options.work.absolute()}"])
    paths = {name: ROOT / path for name, path in config.sets.items()}
    config = config.model_copy(update={"sets": paths})
    directory = run_study(
        config, Console(width=120), sets=options.sets, models=options.models, hours=options.hours
    )
    study = Study(config)
    for cell in study.done():
        kept = options.output / study.file(cell).relative_to(directory)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(study.file(cell), kept)
    summary = json.loads((directory / SUMMARY).read_text()) | {
        "date": now(),
        "command": "python tests/benchmarks/unirec_study.py"
        + (f" --sets {','.join(options.sets)}" if options.sets else "")
        + (f" --models {','.join(options.models)}" if options.models else ""),
        "config": CONFIG,
        "versions": {package: version(package) for package in PACKAGES},
        "machine": machine(),
    }
    (options.output / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main()
