"""Users to look at: the most gained and the most lost between two models, and some at random."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recsys.data.sequences import SequenceStore, Targets
from recsys.evaluation.background import Example
from recsys.evaluation.by_user import UserValues
from recsys.evaluation.inside import Answer, Case, by_gain, read_case, targets_of

AT_RANDOM = 2


@dataclass(frozen=True)
class Looking:
    """Where the users of one exam are looked up.

    Attributes:
        store: all events.
        targets: what was asked.
        files: model -> its rows per target.
        texts: item -> what a reader calls it.
        shown: items of a list or a history.
        seed: of those at random.
    """

    store: SequenceStore
    targets: Targets
    files: Mapping[str, Path]
    texts: Mapping[int, str]
    shown: int
    seed: int


def look(
    looking: Looking, one: tuple[str, UserValues], other: tuple[str, UserValues]
) -> list[Example]:
    """Return the user that gained most from `one` over `other`, the one that lost most, two at random.

    Of a user's targets the one is shown where some model does best.
    """
    users, gain = by_gain(one[1], other[1])
    if not len(users):
        return []
    pair = f"{one[0]} over {other[0]}"
    chosen: dict[int, str] = {}
    if gain[0] > 0:
        chosen[int(users[0])] = f"most gained by {pair} ({gain[0]:+.3f})"
    if gain[-1] < 0:
        chosen[int(users[-1])] = f"most lost by {pair} ({gain[-1]:+.3f})"
    rng = np.random.default_rng(looking.seed)
    for user in rng.permutation(np.unique(users))[:AT_RANDOM].tolist():
        chosen.setdefault(int(user), "at random")
    return [_example(looking, user, why) for user, why in chosen.items()]


def _example(looking: Looking, user: int, why: str) -> Example:
    first = next(iter(looking.files.values()))
    rows = targets_of(first, user)[: looking.shown]
    cases = [read_case(looking.files, looking.store, looking.targets, int(row)) for row in rows]
    case = min(cases, key=lambda c: min(best_rank(answer) for answer in c.answers.values()))
    return Example(
        title=f"User {user}: {why}",
        history=[_text(looking, item) for item in case.history[-looking.shown :].tolist()],
        held_out=[_text(looking, item) for item in case.relevant.tolist()],
        lists={model: _list(looking, case, answer) for model, answer in case.answers.items()},
        ranks={model: rank_text(best_rank(answer)) for model, answer in case.answers.items()},
    )


def _list(looking: Looking, case: Case, answer: Answer) -> list[tuple[str, bool]]:
    held = set(case.relevant.tolist())
    return [(_text(looking, item), item in held) for item in answer.top[: looking.shown].tolist()]


def _text(looking: Looking, item: int) -> str:
    return looking.texts.get(item, str(item))


def best_rank(answer: Answer) -> float:
    """Return the rank of the best held-out item."""
    return min(answer.ranks.values(), default=math.inf)


def rank_text(rank: float) -> str:
    """Return a rank in words: ties share a rank that may be a half.

    >>> rank_text(3.0), rank_text(2.5), rank_text(math.inf)
    ('3', '2.5', 'excluded')
    """
    return "excluded" if math.isinf(rank) else f"{rank:g}"
