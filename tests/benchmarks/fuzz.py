"""Thousands of requests made from the endpoint's own OpenAPI description, valid and not, all answered.

No answer may be a 5xx, and the server's memory must be flat: the second half of the requests may not add
more than a tenth to it. The server is the real one, with a state directory and open writes; the client
is schemathesis.

    python tests/benchmarks/fuzz.py --requests 10000
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import Unsatisfiable
from served import circumstances, make_bundle, running_server

RESULT = Path(__file__).parent / "results" / "fuzz.json"
ROUNDS = 8
"""Times that all operations are gone through, each with examples of its own."""
GROWTH = 1.1


def main() -> None:
    """Run and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = make_bundle(folder, options.items, 32, options.seed, 100)
        with running_server(bundle, state=folder / "state") as (port, server):
            result = fuzz(f"http://127.0.0.1:{port}", options.requests, options.seed, server)
    chosen = {"requests": options.requests, "items": options.items}
    result = {**circumstances("fuzz", options.seed, chosen), **result}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def fuzz(address: str, requests: int, seed: int, server: psutil.Process) -> dict[str, Any]:
    """Send the requests; return statuses by operation, what broke, and the memory on the way."""
    import schemathesis
    from requests import Session
    from schemathesis import GenerationMode

    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    each = -(-requests // (len(operations) * ROUNDS * len(GenerationMode)))
    statuses: dict[str, Counter[int]] = {}
    broken: list[dict[str, Any]] = []
    memory = []
    session = Session()

    def send(case: Any) -> None:
        name = f"{case.operation.method.upper()} {case.operation.path}"
        response = case.call(base_url=address, session=session, timeout=30)
        statuses.setdefault(name, Counter())[response.status_code] += 1
        if response.status_code >= 500:
            broken.append({"operation": name, "status": response.status_code})

    turn = 0
    while turn < ROUNDS or sum(sum(c.values()) for c in statuses.values()) < requests:
        for mode in GenerationMode:
            for operation in operations:
                strategy = operation.as_strategy(generation_mode=mode)
                run(strategy, send, each, seed + turn)
        turn += 1
        memory.append(round(server.memory_info().rss / 2**20, 1))
    total = sum(sum(counted.values()) for counted in statuses.values())
    return {
        "sent": total,
        "statuses": {name: dict(counted) for name, counted in sorted(statuses.items())},
        "broken": broken[:20],
        "memory_mb": memory,
        "bars": {
            "no 5xx": not broken,
            "enough were sent": total >= requests,
            "memory flat": memory[-1] <= GROWTH * memory[len(memory) // 2 - 1],
        },
    }


def run(strategy: Any, send: Any, examples: int, seed: int) -> None:
    """Send so many cases of a strategy."""
    checks = list(HealthCheck)

    @seeded(seed)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=checks,
    )
    @given(strategy)
    def one(case: Any) -> None:
        send(case)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with suppress(Unsatisfiable):  # there is no wrong way to ask for what takes nothing
            one()


if __name__ == "__main__":
    main()
