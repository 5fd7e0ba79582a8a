"""The studies of UniRec against SASRec, figures stored: as configured, beside other models, and as searched.

Runs configs/unirec_study.yaml, or configs/unirec_searched.yaml, beginning with the cells that are stored
here, and stores each new one when it is finished: its figures and the metric of every target; at the end
the summary with machine and versions. Stored cells count where the same data are prepared with the same
settings; the summary speaks of the sets that are prepared below `--work`, so `--hours 0` makes it anew
from what is stored.

    RECSYS_DATA_DIR=... python tests/benchmarks/unirec_study.py --sets beauty,toys --hours 2
    RECSYS_DATA_DIR=... python tests/benchmarks/unirec_study.py --config unirec_searched
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from environments import machine, now
from rich.console import Console

from pipelines.study import run_study
from pipelines.study_summary import SUMMARY
from recsys.config import load_study_config

ROOT = Path(__file__).parents[2]
SUMMARIES = {"unirec_study": "summary.json", "unirec_searched": "searched.json"}
RESULTS = Path(__file__).parent / "results" / "unirec"
PACKAGES = ("recsys", "torch", "numpy", "polars", "pytorch-lightning", "ray")


def main() -> None:
    """Run what is asked for and store what there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = lambda text: [part for part in text.split(",") if part]  # noqa: E731
    parser.add_argument("--config", default="unirec_study", choices=SUMMARIES)
    parser.add_argument("--sets", type=names, default=[], help="only these, commas between")
    parser.add_argument("--models", type=names, default=[], help="only these")
    numbers = lambda text: [int(part) for part in names(text)]  # noqa: E731
    parser.add_argument("--seeds", type=numbers, default=[], help="only these")
    parser.add_argument("--hours", type=float, default=None, help="begin no cell after this")
    parser.add_argument("--work", type=Path, default=Path("out"), help="where the runs are kept")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    file = f"configs/{options.config}.yaml"
    config = load_study_config(ROOT / file, [f"output={options.work.absolute()}"])
    paths = {name: ROOT / path for name, path in config.sets.items()}
    config = config.model_copy(update={"sets": paths})
    asked = {name: getattr(options, name) for name in ("sets", "models", "seeds")}
    directory = run_study(
        config, Console(width=120), **asked, hours=options.hours, stored=options.output
    )
    summary = json.loads((directory / SUMMARY).read_text()) | {
        "date": now(),
        "command": f"python tests/benchmarks/unirec_study.py --config {options.config}"
        + "".join(f" --{name} {','.join(map(str, some))}" for name, some in asked.items() if some),
        "config": file,
        "versions": {package: version(package) for package in PACKAGES},
        "machine": machine(),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    stored = options.output / SUMMARIES[options.config]
    before = covered(json.loads(stored.read_text())) if stored.is_file() else set()
    if lost := sorted(set(summary["missing"]) & before):
        raise SystemExit(
            f"{stored} is left as it is: it covers {', '.join(lost)}, which this run does not; name the "
            "sets of these with --sets, or another directory with --output"
        )
    stored.write_text(json.dumps(summary, indent=1) + "\n")


def covered(summary: dict[str, Any]) -> set[str]:
    """Return the names of the cells that a summary is made of."""
    return {
        f"{row['set']}/{row['model']}/{seed}"
        for row in summary["over_seeds"]
        for seed in row["seeds"]
    }


if __name__ == "__main__":
    main()
