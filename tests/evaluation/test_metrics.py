from __future__ import annotations

import doctest
from collections.abc import Callable

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import AP, RR, P, R, Rprec, Success, nDCG

from recsys.evaluation import beyond, metrics, significance
from recsys.evaluation.metrics import (
    Float64,
    Places,
    average_precision,
    hit_rate,
    ndcg,
    precision,
    r_precision,
    recall,
    reciprocal_rank,
    target_metrics,
)


def places(*ranks: list[float]) -> Places:
    offsets = np.concatenate([[0], np.cumsum([len(r) for r in ranks])]).astype(np.int64)
    return Places.of(np.array([x for r in ranks for x in r], dtype=np.float64), offsets)


# Relevant at 1 and 3; at 2 only; at 4, 5 and never.
LISTS = places([1.0, 3.0], [2.0], [4.0, 5.0, np.inf])


@pytest.mark.parametrize(
    ("metric", "k", "expected"),
    [
        (hit_rate, 1, [1, 0, 0]),
        (hit_rate, 4, [1, 1, 1]),
        (recall, 3, [1, 1, 0]),
        (recall, 5, [1, 1, 2 / 3]),
        (precision, 3, [2 / 3, 1 / 3, 0]),
        (precision, 5, [2 / 5, 1 / 5, 2 / 5]),
        (reciprocal_rank, 2, [1, 1 / 2, 0]),
        (reciprocal_rank, None, [1, 1 / 2, 1 / 4]),
        (average_precision, 1, [1, 0, 0]),
        (average_precision, 3, [(1 + 2 / 3) / 2, 1 / 2, 0]),
        (average_precision, 5, [(1 + 2 / 3) / 2, 1 / 2, (1 / 4 + 2 / 5) / 3]),
        (ndcg, 1, [1, 0, 0]),
        (
            ndcg,
            4,
            [
                (1 + 1 / 2) / (1 + 1 / np.log2(3)),
                1 / np.log2(3),
                (1 / np.log2(5)) / (1 + 1 / np.log2(3) + 1 / 2),
            ],
        ),
    ],
)
def test_values_by_hand(
    metric: Callable[..., Float64], k: int | None, expected: list[float]
) -> None:
    assert metric(LISTS, k) == pytest.approx(expected, abs=1e-15)


def test_r_precision_by_hand() -> None:
    assert r_precision(LISTS).tolist() == [1 / 2, 0, 0]
    assert r_precision(places([2.0, 1.0][::-1], [1.0, 2.0, 9.0])).tolist() == [1, 2 / 3]


def test_a_perfect_list_scores_one_even_where_more_is_relevant_than_fits() -> None:
    perfect = places([1.0, 2.0, 3.0, 4.0])
    assert average_precision(perfect, 2).tolist() == [1.0]
    assert ndcg(perfect, 2).tolist() == [1.0]
    assert recall(perfect, 2).tolist() == [0.5]


def test_averaged_ranks_count_as_given() -> None:
    half = places([2.5])
    assert hit_rate(half, 2).tolist() == [0.0]
    assert hit_rate(half, 3).tolist() == [1.0]
    assert ndcg(half, 3) == pytest.approx([1 / np.log2(3.5)])
    assert reciprocal_rank(half).tolist() == [1 / 2.5]


def test_tied_relevant_items_take_successive_places() -> None:
    tied = places([2.0, 2.0, 2.0])  # three relevant items share the first three places
    assert tied.place.tolist() == [2.0, 2.0, 3.0]
    assert precision(tied, 2).tolist() == [1.0]
    assert average_precision(tied, 3) == pytest.approx([(1 / 2 + 2 / 2 + 3 / 3) / 3])


def test_no_relevant_items_have_no_value() -> None:
    empty = places([1.0], [])
    for values in target_metrics(np.array([1.0]), np.array([0, 1, 1]), [3]).values():
        assert np.isnan(values).tolist() == [False, True]
    assert np.isnan(reciprocal_rank(empty)).tolist() == [False, True]


@given(
    st.lists(st.lists(st.integers(2, 60), min_size=1, max_size=8), min_size=1, max_size=6),
    st.integers(1, 30),
)
def test_values_lie_between_zero_and_one(halves: list[list[int]], k: int) -> None:
    lists = [sorted(x / 2 for x in half) for half in halves]
    flat = np.array([x for ranks in lists for x in ranks])
    offsets = np.concatenate([[0], np.cumsum([len(ranks) for ranks in lists])])
    for values in target_metrics(flat, offsets, [k]).values():
        assert (values >= 0).all()
        assert (values <= 1 + 1e-12).all()


def random_runs(
    seed: int, queries: int = 40, n_items: int = 60, length: int = 25
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, int]], Float64, np.ndarray]:
    """Return a run and its judgements for the oracles, and the same as ranks, without ties."""
    rng = np.random.default_rng(seed)
    run: dict[str, dict[str, float]] = {}
    judged: dict[str, dict[str, int]] = {}
    ranks: list[float] = []
    counts = []
    for q in range(queries):
        order = rng.permutation(n_items)
        relevant = rng.choice(n_items, size=rng.integers(1, 12), replace=False)
        run[f"q{q}"] = {f"i{item}": float(length - i) for i, item in enumerate(order[:length])}
        judged[f"q{q}"] = {f"i{item}": 1 for item in relevant}
        place = np.empty(n_items)
        place[order] = np.arange(1, n_items + 1)
        mine = place[relevant]
        ranks += sorted(np.where(mine <= length, mine, np.inf).tolist())
        counts.append(len(relevant))
    return run, judged, np.array(ranks), np.concatenate([[0], np.cumsum(counts)])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_agreement_with_trec_eval(seed: int) -> None:
    run, judged, ranks, offsets = random_runs(seed)
    n_relevant = np.diff(offsets)
    ks = [1, 5, 10, 20]
    ours = target_metrics(ranks, offsets, ks)
    oracle = {("mrr", None): RR, ("r_precision", None): Rprec}
    for k in ks:
        oracle |= {("hr", k): Success @ k, ("recall", k): R @ k, ("precision", k): P @ k}
        oracle |= {("ndcg", k): nDCG @ k, ("map", k): AP @ k}
    found: dict[tuple[str, str], float] = {
        (str(value.measure), value.query_id): value.value
        for value in ir_measures.iter_calc(list(oracle.values()), judged, run)
    }
    for (name, k), measure in oracle.items():
        theirs = np.array([found[str(measure), f"q{q}"] for q in range(len(n_relevant))])
        if name == "map":  # trec_eval divides by all relevant items, also where only k fit
            theirs = theirs * n_relevant / np.minimum(n_relevant, k or 0)
        assert ours[name, k] == pytest.approx(theirs, abs=1e-9), (name, k)


@pytest.mark.slow  # about 15 s, all of them compilation
@pytest.mark.filterwarnings("ignore")
def test_agreement_with_ranx() -> None:
    from ranx import (
        metrics as theirs,
    )  # its arrays directly: its Qrels and Run compile for a minute

    run, judged, ranks, offsets = random_runs(3)
    n_relevant = np.diff(offsets)
    ours = target_metrics(ranks, offsets, [10])
    arrays = [
        np.array([[int(item[1:]), s] for item, s in scored.items()], dtype=np.float64)[None]
        for scored in (*judged.values(), *run.values())
    ]
    pairs = list(zip(arrays[: len(judged)], arrays[len(judged) :], strict=True))
    expected = {
        ("hr", 10): [theirs.hit_rate(q, r, 10)[0] for q, r in pairs],
        ("recall", 10): [theirs.recall(q, r, 10)[0] for q, r in pairs],
        ("precision", 10): [theirs.precision(q, r, 10)[0] for q, r in pairs],
        ("ndcg", 10): [theirs.ndcg(q, r, 10)[0] for q, r in pairs],
        ("mrr", 10): [theirs.reciprocal_rank(q, r, 10)[0] for q, r in pairs],
        ("mrr", None): [theirs.reciprocal_rank(q, r)[0] for q, r in pairs],
        ("r_precision", None): [theirs.r_precision(q, r)[0] for q, r in pairs],
    }
    # ranx, too, divides by all relevant items.
    rescale = n_relevant / np.minimum(n_relevant, 10)
    expected["map", 10] = [theirs.average_precision(q, r, 10)[0] for q, r in pairs] * rescale
    for key, values in expected.items():
        assert ours[key] == pytest.approx(np.asarray(values), abs=1e-9), key


@pytest.mark.parametrize("module", [metrics, beyond, significance])
def test_examples_in_docstrings(module: object) -> None:
    import numpy

    result = doctest.testmod(module, extraglobs={"np": numpy})  # type: ignore[arg-type]
    assert result.failed == 0
    assert result.attempted > 0
