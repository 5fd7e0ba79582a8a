"""Accuracy against diversity: what each way of making lists gives, as its strength grows.

Each way gives a target two things: the *lists* themselves (continuations; one list for `top`), and one
*merged* list of k. What is relevant are the items that really followed: the distinct items of the next
events, as many as a list has places, less those the exclusion forbids. Metrics:

    ndcg@k        of the merged list, against what followed
    next_ndcg@k   of the merged list, against the very next item alone (0 where that is forbidden)
    ild@k         mean cosine distance between items of the merged list
    oracle@n      best NDCG, against what followed, of n = width lists
    distinct_1    distinct items / all items of the lists
    overlap       mean Jaccard likeness of two lists

Re-ranking (`beam+mmr`, `beam+dpp`) chooses the merged list from all items of the beam's lists, relevance
being their weight in the merge; the lists are the beam's own, and so are oracle@n, distinct_1, overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from recsys.data.batches import pack_histories
from recsys.data.sequences import Int32, Int64, SequenceStore, Targets
from recsys.decoding import Catalogue, Lists, Rules, SearchSettings, search
from recsys.decoding.rerank import dpp, mmr
from recsys.decoding.settings import Dissimilarity
from recsys.errors import DataError
from recsys.evaluation.beyond import Float32, intra_list_distance
from recsys.evaluation.diversity import distinct_n, oracle_at, overlap
from recsys.evaluation.intervals import bootstrap, mean_over_users, user_means
from recsys.evaluation.metrics import Float64
from recsys.models import EncoderModel
from recsys.retrieval.exclusion import Exclusion, Histories
from recsys.schema import PAD

Progress = Callable[[int, int], None]
BATCH = 16
"""Histories searched together."""


@dataclass(frozen=True)
class Course:
    """What is compared.

    Attributes:
        settings: of every search; groups x beams is the width of all of them.
        steps: places of a list.
        k: places of the merged list.
        kinds: dissimilarities of the diverse searches, each a way of its own, `diverse <kind>`.
        strengths: of the diverse searches, in nats.
        balances: of the re-rankers, shares of diversity from 0 to 1.
    """

    settings: SearchSettings
    steps: int
    k: int
    kinds: tuple[Dissimilarity, ...]
    strengths: tuple[float, ...]
    balances: tuple[float, ...]


@dataclass(frozen=True)
class Ways:
    """Values of every way: `names` are pairs (way, strength), `values` float64 [ways, T, metrics]."""

    names: list[tuple[str, float | None]]
    metrics: list[str]
    values: Float64
    user: Int32


@torch.inference_mode()
def compare_ways(
    catalogue: Catalogue,
    store: SequenceStore,
    targets: Targets,
    exclusion: Exclusion,
    course: Course,
    progress: Progress | None = None,
) -> Ways:
    """Make lists for every target in every way and measure them.

    Raises:
        DataError: nothing that followed any target may be recommended.
    """
    relevant = [_relevant(store, targets, row, exclusion, course) for row in range(len(targets))]
    kept = np.array([row for row, items in enumerate(relevant) if len(items)], dtype=np.int64)
    if not len(kept):
        raise DataError("the rule of exclusion forbids all items that followed; nothing to measure")
    rows: dict[tuple[str, float | None], list[Float64]] = {}
    model = catalogue.model
    assert isinstance(model, EncoderModel) and catalogue.vectors is not None
    vectors = catalogue.vectors.numpy()
    for at in range(0, len(kept), BATCH):
        part = kept[at : at + BATCH]
        followed = [relevant[row] for row in part]
        first = store.items[targets.start[part]].astype(np.int64)
        for name, lists, merged in _all_ways(catalogue, store, targets, part, exclusion, course):
            measured = _measure(lists, merged, followed, first, vectors, course)
            rows.setdefault(name, []).append(measured)
        if progress is not None:
            progress(min(at + BATCH, len(kept)), len(kept))
    values = np.stack([np.concatenate(parts) for parts in rows.values()])
    return Ways(list(rows), metric_names(course), values, targets.user[kept])


def metric_names(course: Course) -> list[str]:
    """Return the metrics, as the head of this file says them."""
    merged = [f"ndcg@{course.k}", f"next_ndcg@{course.k}", f"ild@{course.k}"]
    return [*merged, f"oracle@{course.settings.width}", "distinct_1", "overlap"]


def summary(
    ways: Ways, samples: int, level: float, seed: int
) -> list[dict[str, str | float | None]]:
    """Return a row for each way and metric: mean over users with its bootstrap interval."""
    rows: list[dict[str, str | float | None]] = []
    for (way, strength), values in zip(ways.names, ways.values, strict=True):
        _, means = user_means(values, ways.user)
        low, high = bootstrap(means, samples, level, np.random.default_rng(seed))
        figures = zip(ways.metrics, mean_over_users(means), low, high, strict=True)
        for metric, value, below, above in figures:
            known = {"value": value, "low": below, "high": above}
            numbers = {k: None if np.isnan(v) else round(float(v), 5) for k, v in known.items()}
            rows.append({"way": way, "strength": strength, "metric": metric, **numbers})
    return rows


def differences(
    ways: Ways, way: str, against: str, samples: int, level: float, seed: int
) -> list[dict[str, object]]:
    """Return, for each strength of one way against each of another, the paired differences by user."""
    found: list[dict[str, object]] = []
    for i, (one, strength) in enumerate(ways.names):
        for j, (other, balance) in enumerate(ways.names):
            if (one, other) != (way, against):
                continue
            _, means = user_means(ways.values[i] - ways.values[j], ways.user)
            low, high = bootstrap(means, samples, level, np.random.default_rng(seed))
            value = mean_over_users(means)
            by_metric = {
                metric: [round(float(x[m]), 5) for x in (value, low, high)]
                for m, metric in enumerate(ways.metrics)
            }
            found.append({way: strength, against: balance, "difference": by_metric})
    return found


def _relevant(
    store: SequenceStore, targets: Targets, row: int, exclusion: Exclusion, course: Course
) -> Int64:
    """Return the distinct items of the events from the target on that may be recommended."""
    user, start = int(targets.user[row]), int(targets.start[row])
    end = min(start + course.steps, int(store.offsets[user + 1]))
    history = store.items[int(store.offsets[user]) : start]
    return np.setdiff1d(store.items[start:end], exclusion.forbidden(history)).astype(np.int64)


def _all_ways(
    catalogue: Catalogue,
    store: SequenceStore,
    targets: Targets,
    part: Int64,
    exclusion: Exclusion,
    course: Course,
) -> Iterator[tuple[tuple[str, float | None], Int64, Int64]]:
    """Yield `(name, lists [N, B, T], merged list [N, k])` of every way."""
    begin, end = store.offsets[targets.user[part]], targets.start[part]
    model = catalogue.model
    assert isinstance(model, EncoderModel)
    batch = pack_histories(store, begin, end, model.max_length)
    histories = Histories(store.items, begin, np.asarray(end))
    events = zip(begin, end, strict=True)
    rules = [Rules(exclusion.forbidden(store.items[low:high])) for low, high in events]
    logits = model.encode_sequences(batch).float()
    assert catalogue.index is not None
    top = catalogue.index.search(logits, course.k, exclusion, histories)[0].clamp(min=PAD).numpy()
    yield ("top", None), top[:, None], top

    def searched(settings: SearchSettings) -> Lists:
        return search(catalogue, batch, course.steps, settings, rules)

    plain = replace(course.settings, groups=1, beams=course.settings.width, diversity=0.0)
    beam = searched(plain)
    ordered = beam.items[:, beam.order]
    yield ("beam", None), ordered, beam.merged(course.k)[0]
    for name, chosen in _reranked(catalogue, beam, course):
        yield name, ordered, chosen
    for kind in course.kinds:
        for strength in course.strengths:
            asked = replace(course.settings, diversity=strength, dissimilarity=kind)
            found = searched(asked)
            name = (f"diverse {kind}", strength)
            yield name, found.items[:, found.order], found.merged(course.k)[0]


def _reranked(
    catalogue: Catalogue, beam: Lists, course: Course
) -> Iterator[tuple[tuple[str, float | None], Int64]]:
    """Yield the lists that MMR and DPP choose from all items of the beam's lists."""
    distinct = max(len(np.unique(one[one != PAD])) for one in beam.items)
    items, weights = beam.merged(max(distinct, course.k))
    assert catalogue.vectors is not None
    vectors = torch.nn.functional.normalize(catalogue.vectors[torch.from_numpy(items)], dim=2)
    cosine = torch.bmm(vectors, vectors.transpose(1, 2)).double().numpy()
    relevance = weights / weights.max(axis=1, keepdims=True)  # the best item has 1
    pooled = weights > 0
    for balance in course.balances:
        worth = np.where(pooled, relevance, -np.inf)
        yield ("beam+mmr", balance), _taken(items, mmr(worth, cosine, course.k, 1.0 - balance))
        slope = (1.0 - balance) / (2.0 * max(balance, 1e-9))
        quality = np.where(pooled, np.exp(np.maximum(slope * (relevance - 1.0), -300.0)), 0.0)
        yield ("beam+dpp", balance), _taken(items, dpp(quality, (1.0 + cosine) / 2.0, course.k))


def _taken(items: Int64, places: Int64) -> Int64:
    """Return the items at these places, PAD for none."""
    row = np.arange(len(items))[:, None]
    return np.where(places < 0, PAD, items[row, places.clip(min=0)])


def _measure(
    lists: Int64,
    merged: Int64,
    followed: Sequence[Int64],
    first: Int64,
    vectors: Float32,
    course: Course,
) -> Float64:
    """Return the metrics of N targets, float64 [N, metrics]."""
    of_lists = np.array(
        [[_ndcg(one, items) for one in some] for some, items in zip(lists, followed, strict=True)]
    )
    distance = intra_list_distance(merged.astype(np.int32), [course.k], vectors)[course.k]
    columns = [
        np.array([_ndcg(one, items) for one, items in zip(merged, followed, strict=True)]),
        np.array([_ndcg(one, item[None]) for one, item in zip(merged, first, strict=True)]),
        distance,
        oracle_at(of_lists, course.settings.width),
        distinct_n(lists, 1),
        overlap(lists),
    ]
    return np.stack(columns, axis=1)


def _ndcg(ranked: Int64, relevant: Int64) -> float:
    """Return DCG / ideal DCG of a list filled up with PAD; NaN for an empty one."""
    if not (ranked != PAD).any():
        return float("nan")
    discount = 1.0 / np.log2(np.arange(2, len(ranked) + 2))
    return float(discount[np.isin(ranked, relevant)].sum() / discount[: len(relevant)].sum())
