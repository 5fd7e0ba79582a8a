"""Does order matter? The order test on four data sets: two in which it should and two in which not.

Each is `recsys order-test configs/NAME.yaml` with the settings below; what it finds is stored with
the machine, versions and seed. Trained runs are used again where they are there.

    python tests/benchmarks/order_matters.py --work out
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from environments import machine, now

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results" / "order_matters"
PACKAGES = ("recsys", "torch", "numpy")
SETS: dict[str, tuple[str, ...]] = {
    "grateful_dead": (),
    "30music": ("order_test.model=markov", "order_test.targets=3000"),
    "classic_rock": (),
    # Transitions read more of the order than what the learned model came to.
    "classic_rock/markov": ("order_test.model=markov",),
    # The learned model of this configuration reads baskets as sets: it could not lose anything.
    "online_retail": ("order_test.model=markov", "order_test.targets=3000"),
}


def main() -> None:
    """Test every data set that is asked for and print the answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", default=",".join(SETS), help="names, with commas between")
    parser.add_argument("--work", type=Path, default=Path("out"), help="where the runs are kept")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.tests.split(","):
        result = run(name, options.work.absolute())
        path = options.output / f"{name.replace('/', '-')}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(path, json.dumps(result["verdicts"]), flush=True)


def run(name: str, work: Path) -> dict[str, Any]:
    """Run one test and return what was found, with what it stands on."""
    from recsys.config import load_config

    config = name.split("/")[0]
    arguments = ["order-test", f"configs/{config}.yaml", *SETS[name]]
    command = [sys.executable, "-m", "pipelines.cli", *arguments, f"output={work}"]
    subprocess.run(command, cwd=ROOT, check=True)
    model = load_config(ROOT / "configs" / f"{config}.yaml", SETS[name]).order_test.model
    tests = (work / config / "order").glob(f"{model}-*/order.json")
    newest = max(tests, key=lambda path: path.stat().st_mtime)
    return {
        "benchmark": "order_matters",
        "date": now(),
        "command": f"recsys {' '.join(arguments)}",
        **rounded(json.loads(newest.read_text())),
        "versions": {package: version(package) for package in PACKAGES},
        "machine": machine(),
    }


def rounded(result: dict[str, Any]) -> dict[str, Any]:
    """Return the result with its figures in five digits."""
    rows = [
        {key: round(value, 5) if isinstance(value, float) else value for key, value in row.items()}
        for row in result["rows"]
    ]
    return {**result, "rows": rows}


if __name__ == "__main__":
    main()
