"""The group beam search of `transformers`: reads a case from stdin, prints seconds and what was found."""

from __future__ import annotations

import json
import sys
import time

import torch
import transformers
from hf_decoder import Decoder, generate

from recsys.config import SASRecConfig
from recsys.models.sasrec import SASRec


def main() -> None:
    """Search several times, after a first that is not counted."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    asked = json.loads(sys.stdin.read())
    weights = torch.load(asked["weights"], weights_only=True)
    config = SASRecConfig(width=64, heads=2, blocks=2, max_length=50)
    model = SASRec(config, len(weights["item_table.weight"]) - 1).eval()
    model.load_state_dict(weights)
    decoder, histories = Decoder(model), torch.tensor(asked["histories"])
    case = {name: asked[name] for name in ("steps", "groups", "beams", "diversity")}
    seconds, processor = [], []
    for _ in range(asked["rounds"] + 1):
        began, used = time.perf_counter(), time.process_time()
        items, scores = generate(decoder, histories, **case)
        seconds.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
    found = {"items": items.tolist(), "scores": scores.tolist(), "seconds": seconds[1:]}
    found["processor"] = processor[1:]
    version = f"transformers {transformers.__version__}, torch {torch.__version__}"
    print(json.dumps({**found, "version": version}))


if __name__ == "__main__":
    main()
