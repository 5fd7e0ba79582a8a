"""Write what the group beam search of `transformers` 4.56.2 finds with a tiny model: `golden.json`.

It was taken out of the library's core by 4.57.0, so the script makes an environment of its own for the
last version that has it, and runs itself there.

    python tests/decoding/golden/make_golden.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).with_name("golden.json")
PACKAGES = ("transformers==4.56.2", "torch==2.13.0", "numpy", "pydantic", "polars", "pyyaml")
N_ITEMS = 12
CONFIG: dict[str, Any] = {"width": 8, "heads": 2, "blocks": 2, "max_length": 12}
HISTORIES = [[1, 2, 5, 7], [9, 9, 4, 1], [12, 6, 8, 10]]
CASES = [
    {"groups": 1, "beams": 5, "diversity": 0.0, "steps": 5},
    {"groups": 2, "beams": 2, "diversity": 0.8, "steps": 5},
    {"groups": 3, "beams": 2, "diversity": 1.5, "steps": 4},
    {"groups": 4, "beams": 1, "diversity": 0.4, "steps": 6},
    {"groups": 2, "beams": 4, "diversity": 3.0, "steps": 3},
    {"groups": 2, "beams": 3, "diversity": 0.6, "steps": 6, "end": 3},
    {"groups": 2, "beams": 2, "diversity": 0.6, "steps": 8, "end": 3, "length_penalty": 1.0},
    {"groups": 1, "beams": 4, "diversity": 0.0, "steps": 6, "end": 3, "length_penalty": 0.5},
]


def main() -> None:
    """Make the environment if it is not there, and run inside."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", type=Path, default=environment())
    parser.add_argument("--inside", action="store_true", help="used by the script itself")
    options = parser.parse_args()
    if options.inside:
        GOLDEN.write_text(json.dumps(golden()) + "\n", encoding="utf-8")
        return
    python = prepared(options.environment)
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    subprocess.run([python, __file__, "--inside"], check=True, env=settings)
    print(f"{GOLDEN}: {GOLDEN.stat().st_size:,} bytes")


def environment() -> Path:
    """Return where the environment is made by default."""
    return Path(tempfile.gettempdir()) / "recsys-transformers-4.56.2"


def prepared(home: Path) -> Path:
    """Return the Python of the environment, made on the first call."""
    python, finished = home / "bin" / "python", home / ".finished"
    if not finished.is_file():
        print(f"making an environment for {PACKAGES[0]} in {home}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        finished.touch()
    return python


def golden() -> dict[str, Any]:
    """Return the model's weights and what is found with them in every case."""
    import torch
    import transformers
    from hf_decoder import Decoder, generate

    from recsys.config import SASRecConfig
    from recsys.models.sasrec import SASRec

    model = SASRec(SASRecConfig(**CONFIG), N_ITEMS).eval()
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(tensor.shape, generator=generator).mul(64).round().div(128)
        for name, tensor in model.state_dict().items()
    }
    model.load_state_dict(weights)
    histories = torch.tensor(HISTORIES)
    found = []
    for case in CASES:
        items, scores = generate(Decoder(model), histories, **case)  # type: ignore[arg-type]
        found.append({**case, "items": items.tolist(), "scores": scores.tolist()})
    return {
        "made_by": f"transformers {transformers.__version__}, torch {torch.__version__}",
        "n_items": N_ITEMS,
        "config": CONFIG,
        "histories": HISTORIES,
        "weights": {name: tensor.tolist() for name, tensor in weights.items()},
        "cases": found,
    }


if __name__ == "__main__":
    main()
