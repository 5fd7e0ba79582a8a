"""Does each part of UniRec find what it is for? On logs with a planted truth (`planted.py`).

For every scenario UniRec is trained with and without a part, otherwise alike, by the same seeds on the
same logs; compared is NDCG@10 on the test users of all seeds, with the paired bootstrap interval of the
difference. That is over users; how much trainings differ, the means by seed (with, without) show. The
bar: a part is worth 10 % of the model without it where its effect is planted, and its interval holds 0
where nothing is (`null`). Asked are the published mechanism (mixture blocks, a table of hours, all
parts at once) and the compact one (SASRec's blocks, logarithmic gaps, one encoder, nothing else); where
the published form of a part does not find its effect, the form that does stands beside it. The weight
of 10 of the global term and the weights of the item enhancement by neighbours were chosen on seed 0.

    python tests/benchmarks/planted_study.py

What differs much between trainings is asked of more of them (results/planted_items.json):

    python tests/benchmarks/planted_study.py --only "rare: item enhancement, neighbours, compact" \\
        --seeds 0,1,2,3,4,5,6,7,8,9,10 --output tests/benchmarks/results/planted_items.json
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environments import machine, now
from planted import FILLERS, ITEMS, Float64, Planted, plant

from recsys.config import EvaluationConfig, TrainingConfig, UniRecConfig
from recsys.evaluation.intervals import bootstrap
from recsys.evaluation.metrics import Places, ndcg
from recsys.evaluation.ranking import rank_targets
from recsys.manifest import stable_hash
from recsys.models.unirec import UniRec
from recsys.runtime import derive_seed
from recsys.training.fit import FitPlan, fit

RESULT = Path(__file__).parent / "results" / "planted.json"
BAR = 0.10
CUTOFF = 10
VERSION = 2
"""Of the cells; another one trains all anew."""
EVALUATION = EvaluationConfig(exclude="none")
SHARED: dict[str, Any] = {"width": 32, "blocks": 2, "max_length": 40, "dropout": 0.1}
TRAINING: dict[str, Any] = {"batch_size": 16, "lr": 3e-3, "patience": 100}
COMPACT: dict[str, Any] = {
    "block": "ligr",
    "fusion": "sum",
    "gaps": "log",
    "ffn": 2.0,
    "global_term": False,
    "sequence_enhancement": False,
    "item_enhancement": False,
}

NO_INTERVAL = {"interval": False}
NO_CALENDAR = {"calendar": False}
WITH_SEQUENCES = {"sequence_enhancement": True}
TARGET = WITH_SEQUENCES | {"sequence_teacher": "target", "sequence_weight": 1.0}
INJECTED = {"inject_tail": "inputs"}
WITH_ITEMS = {"item_enhancement": True}
BY_NEIGHBOURS = WITH_ITEMS | {
    "item_teacher": "neighbours",
    "frequent_weight": 3.0,
    "rare_weight": 1.0,
}
WITH_GLOBAL, NO_GLOBAL = {"global_term": True}, {"global_term": False}
AS_MUCH = WITH_GLOBAL | {"global_weight": 1.0}
"""As a branch; published is a tenth."""
MORE = WITH_GLOBAL | {"global_weight": 10.0}
"""About as a branch for every event: the term divides by their number."""
NO_SEQUENCES = {"sequence_enhancement": False}
NO_ITEMS = {"item_enhancement": False}
FEW_FREQUENT = {"frequent_share": 0.033}
"""In `rare` 40 of 1,240 items are frequent."""
FILLERS_FREQUENT = {"frequent_share": FILLERS / (ITEMS + FILLERS) + 1e-9}
"""In `thinned` the fillers are, and none else: the parts of a history keep all items of its walks."""
TIMES_USERS = {"thinned": 4}
"""There a fourth of the users is asked about, in `drift`, too, which needs no more of them; elsewhere all
are."""
TIMELESS = COMPACT | NO_CALENDAR | NO_INTERVAL
ALONE = "compact, no other times"
GAPS = ("interval", "uniformity", "time_bias")
"""What reads gaps, each put to the test alone: regularity shows in any two times, also in calendars."""
VOTES = {"history": 1, "reach": 1, "recency_half_life": 10.0}
Settings = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """A part of a form of the model, on a scenario: the settings with and without it."""

    scenario: str
    part: str
    form: str
    having: Settings
    lacking: Settings


def questions() -> list[Question]:
    """Return all that is asked, the quick ones first."""
    asked = list(_alone())
    for form, base in (("compact", COMPACT), ("published", {})):
        asked += [*_planted(form, base), *_nothing(form, base)]
    return asked


def _alone() -> Iterator[Question]:
    """Yield what is asked where nothing else reads times: a calendar tells an era, too, and gaps a
    user's kind.
    """
    yield Question("drift", "votes", ALONE, TIMELESS | {"votes": VOTES}, TIMELESS)
    yield Question("returns", "global term", ALONE, TIMELESS | WITH_GLOBAL, TIMELESS)
    yield Question("returns", "global term, weight 1", ALONE, TIMELESS | AS_MUCH, TIMELESS)
    yield Question("returns", "global term, weight 10", ALONE, TIMELESS | MORE, TIMELESS)
    for scenario in ("regularity", "null"):
        for part in GAPS:
            yield Question(scenario, part, ALONE, TIMELESS | {part: True}, TIMELESS)


def _planted(form: str, base: Settings) -> Iterator[Question]:
    rare, plain = base | FEW_FREQUENT | NO_ITEMS, base | FILLERS_FREQUENT | NO_SEQUENCES
    yield Question("gap", "interval", form, base, base | NO_INTERVAL)
    yield Question("calendar", "calendar", form, base, base | NO_CALENDAR)
    yield Question("returns", "global term", form, base | WITH_GLOBAL, base | NO_GLOBAL)
    yield Question("returns", "global term, weight 10", form, base | MORE, base | NO_GLOBAL)
    yield Question("rare", "inject_tail inputs", form, rare | INJECTED, rare)
    yield Question("rare", "item enhancement", form, rare | WITH_ITEMS, rare)
    yield Question("rare", "item enhancement, neighbours", form, rare | BY_NEIGHBOURS, rare)
    yield Question("thinned", "sequence enhancement, target", form, plain | TARGET, plain)
    yield Question("thinned", "sequence enhancement", form, plain | WITH_SEQUENCES, plain)


def _nothing(form: str, base: Settings) -> Iterator[Question]:
    """Yield the questions that should be answered by 0."""
    yield Question("null", "interval", form, base, base | NO_INTERVAL)
    yield Question("null", "calendar", form, base, base | NO_CALENDAR)
    yield Question("null", "global term", form, base | WITH_GLOBAL, base | NO_GLOBAL)
    yield Question("null", "global term, weight 10", form, base | MORE, base | NO_GLOBAL)
    items, sequences = base | NO_ITEMS, base | NO_SEQUENCES
    yield Question("null", "inject_tail inputs", form, base | INJECTED, base)
    yield Question("null", "item enhancement", form, items | WITH_ITEMS, items)
    yield Question("null", "item enhancement, neighbours", form, items | BY_NEIGHBOURS, items)
    yield Question("null", "sequence enhancement, target", form, base | TARGET, sequences)
    yield Question("null", "sequence enhancement", form, base | WITH_SEQUENCES, sequences)
    yield Question("null", "votes", form, base | {"votes": VOTES}, base)


def values(scenario: str, settings: Settings, seed: int, options: argparse.Namespace) -> Float64:
    """Return the test users' NDCG@10 of a model that was trained on a scenario, float64 [U]."""
    training = TrainingConfig(**TRAINING | {"epochs": options.epochs})
    config = UniRecConfig(**SHARED | settings, training=training)
    log = plant(scenario, TIMES_USERS.get(scenario, 1) * options.users, seed)
    made = [log.fingerprint(), VERSION, seed, config.model_dump(mode="json")]
    path = Path(options.work) / f"{stable_hash(made)}.npy"
    if path.is_file():
        return np.load(path)
    found = trained(log, config, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, found)
    return found


def trained(log: Planted, config: UniRecConfig, seed: int) -> Float64:
    """Train a model and return NDCG@10 of the test users."""
    training = config.training
    torch.manual_seed(derive_seed(seed, 1))
    model = UniRec(config, log.store.n_items)
    with tempfile.TemporaryDirectory() as folder:
        plan = FitPlan(
            training,
            EVALUATION,
            log.data,
            log.split.validation,
            Path(folder),
            seed=seed,
            statistics=log.statistics,
        )
        fit(model, plan)
    ranked = rank_targets(model, log.store, log.split.test, EVALUATION, list_length=CUTOFF)
    return ndcg(Places.of(ranked.ranks, ranked.offsets), CUTOFF)


def answer(question: Question, options: argparse.Namespace) -> dict[str, Any]:
    """Return NDCG@10 with and without the part, the gain with its interval, and whether it is enough."""
    of_seeds = [
        [values(question.scenario, s, seed, options) for seed in options.seeds]
        for s in (question.having, question.lacking)
    ]
    both = [np.concatenate(some) for some in of_seeds]
    difference = both[0] - both[1]
    low, high = bootstrap(difference[:, None], 2000, 0.95, np.random.default_rng(0))
    base = float(both[1].mean())
    gain = [float(x) / base for x in (difference.mean(), low[0], high[0])]
    found = gain[0] >= BAR and gain[1] > 0
    return {
        "scenario": question.scenario,
        "form": question.form,
        "part": question.part,
        "with": round(float(both[0].mean()), 4),
        "without": round(base, 4),
        "relative_gain": [round(x, 4) for x in gain],
        "by_seed": [[round(float(v.mean()), 4) for v in some] for some in of_seeds],
        "users": len(difference),
        "met": gain[1] <= 0 <= gain[2] if question.scenario == "null" else found,
    }


def main() -> None:
    """Ask everything and store the answers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=800)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", default="0,1,2", type=lambda t: [int(x) for x in t.split(",")])
    parser.add_argument(
        "--only", default="", help="ask of these alone (scenario, part or form); keep other answers"
    )
    parser.add_argument("--hours", type=float, default=None, help="ask nothing more after this")
    parser.add_argument("--work", type=Path, default=Path("out/planted"), help="kept figures")
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    logging.disable(logging.INFO)
    warnings.filterwarnings("ignore")
    asked = [q for q in questions() if options.only in name_of(q)]
    answers: list[dict[str, Any]] = []
    if options.only:
        store(answers, asked, options)  # refuses before hours have gone
    began = time.monotonic()
    for number, question in enumerate(asked):
        if options.hours is not None and time.monotonic() - began > 3600 * options.hours:
            break
        answers.append(answer(question, options) | {"date": now(), "key": key_of(question)})
        print(json.dumps(answers[-1]), flush=True)
        store(answers, asked[number + 1 :], options)


def name_of(question: Question) -> str:
    """Return what is asked in a line."""
    return f"{question.scenario}: {question.part}, {question.form}"


def key_of(question: Question) -> str:
    """Return a hash of what is asked: an answer to something else is none."""
    both = [
        UniRecConfig(**settings).model_dump(mode="json")
        for settings in (question.having, question.lacking)
    ]
    return stable_hash([VERSION, question.scenario, *both])[:16]


def store(answers: list[dict[str, Any]], left: list[Question], options: argparse.Namespace) -> None:
    """Write what has been answered, now or before by the same settings, and what has not."""
    seeds = ",".join(map(str, options.seeds))
    asked_alike: dict[str, Any] = {
        "benchmark": "planted",
        "command": f"python tests/benchmarks/planted_study.py --users {options.users} "
        f"--epochs {options.epochs} --seeds {seeds}",
        "bar": {"relative_gain": BAR, "null": "the interval holds 0"},
        "settings": {
            "shared": SHARED,
            "training": TRAINING | {"epochs": options.epochs},
            "compact": COMPACT,
            "times_users": TIMES_USERS,
        },
    }
    known = before(options.output, asked_alike) if options.only else {}
    known |= {"{scenario}: {part}, {form}".format(**one): one for one in answers}
    again = {name_of(question) for question in left}
    found = {name: known.get(name) for name in map(name_of, questions())}
    result = asked_alike | {
        "answers": [row for row in found.values() if row is not None],
        "not_asked": [name for name, row in found.items() if row is None or name in again],
        "machine": machine() | {"load": round(os.getloadavg()[0], 2)},
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n")


def before(path: Path, asked_alike: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the stored answers by name; what was asked otherwise is refused, not lost."""
    if not path.is_file():
        return {}
    stored = json.loads(path.read_text("utf-8"))
    keys = {name_of(question): key_of(question) for question in questions()}
    rows = {"{scenario}: {part}, {form}".format(**row): row for row in stored["answers"]}
    odd = [name for name, value in asked_alike.items() if stored.get(name) != value]
    odd += [name for name, row in rows.items() if keys.get(name) != row["key"]]
    if odd:
        raise SystemExit(
            f"{path} was asked otherwise ({', '.join(odd)}): ask all again, or give --output another file"
        )
    return rows


if __name__ == "__main__":
    main()
