from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.config import IndexConfig
from recsys.errors import ArtifactError, ConfigError, DataError, MissingExtraError
from recsys.retrieval import Exclusion, Histories, faiss_index
from recsys.retrieval.faiss_index import FaissIndex, grown_faiss
from recsys.retrieval.index import ExactIndex, Index, build_index, load_index, recall_check

N, D = 600, 16
KINDS = ("exact", "flat", "hnsw", "ivf_flat", "ivf_pq", "pq_scan")
TRUE_KINDS = ("exact", "flat")
# Small enough that every structure can be made exact: all cells, a search width of all items.
SETTINGS = {"ef_search": N, "lists": 8, "probes": 8, "pq_bytes": 8, "scan_rerank": 6}


@pytest.fixture(autouse=True)
def few_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan of codes fetches a small part of these items, or it would be no scan."""
    monkeypatch.setattr(faiss_index, "SCAN_LEAST", 20)


def vectors(n: int = N, d: int = D, seed: int = 0) -> torch.Tensor:
    table = torch.randn(n + 1, d, generator=torch.Generator().manual_seed(seed))
    table[0] = 100.0  # PAD would win every search if it took part
    return table


def queries(b: int = 5, seed: int = 1) -> torch.Tensor:
    return torch.randn(b, D, generator=torch.Generator().manual_seed(seed))


def nothing(b: int) -> Histories:
    return Histories.from_lists([[]] * b)


@pytest.fixture(scope="module")
def indexes() -> dict[str, Index]:
    return {k: build_index(IndexConfig(kind=k, **SETTINGS), vectors()) for k in KINDS}


def brute(query: torch.Tensor, k: int, permitted: set[int]) -> list[int]:
    scores = vectors() @ query
    return sorted(permitted, key=lambda i: (-float(scores[i]), i))[:k]


@pytest.mark.parametrize("kind", KINDS)
def test_finds_the_items_of_largest_inner_product(indexes: dict[str, Index], kind: str) -> None:
    asked = queries()
    items, scores = indexes[kind].search(asked, 10, Exclusion(seen=False), nothing(5))
    assert items.dtype == torch.int64
    assert scores.dtype == torch.float32
    everything = set(range(1, N + 1))
    hits = 0
    for row in range(5):
        truth = brute(asked[row], 10, everything)
        hits += len(set(truth) & set(items[row].tolist()))
        if kind in TRUE_KINDS:
            assert items[row].tolist() == truth
    assert hits >= (40 if "pq" in kind else 50)
    assert getattr(indexes[kind], "exact_searches", 0) == 0
    torch.testing.assert_close(scores, (vectors()[items] * asked[:, None]).sum(2))
    assert bool((scores.diff(dim=1) <= 0).all())


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_never_a_forbidden_item_and_always_a_full_list(
    indexes: dict[str, Index], kind: str, data: st.DataObject
) -> None:
    items = st.integers(1, N)
    histories = data.draw(st.lists(st.lists(items, max_size=60), min_size=1, max_size=4))
    blocked = data.draw(st.lists(items, max_size=60))
    allowed = data.draw(st.none() | st.lists(items, max_size=60))
    seen = data.draw(st.booleans())
    k = data.draw(st.integers(1, 30))
    rule = Exclusion(seen=seen, blocked=blocked, allowed=allowed)
    found, scores = indexes[kind].search(
        queries(len(histories)), k, rule, Histories.from_lists(histories)
    )
    for row, history in enumerate(histories):
        permitted = set(range(1, N + 1)) if allowed is None else set(allowed)
        permitted -= set(blocked) | (set(history) if seen else set())
        shown = [i for i in found[row].tolist() if i != -1]
        assert len(shown) == len(set(shown)) == min(k, len(permitted))
        assert set(shown) <= permitted
        assert torch.isneginf(scores[row, len(shown) :]).all()
        if allowed is not None or kind in TRUE_KINDS:
            assert shown == brute(queries(len(histories))[row], k, permitted)


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf_flat", "ivf_pq", "pq_scan"])
def test_fetch_grows_when_the_best_items_are_blocked(indexes: dict[str, Index], kind: str) -> None:
    index, asked = indexes[kind], queries(1)
    order = brute(asked[0], N, set(range(1, N + 1)))
    repeats = Exclusion(window=1)  # forbids one event, so the first fetch is small
    history = Histories.from_lists([[order[0]]])
    items, _ = index.search(asked, 5, repeats, history)
    assert order[0] not in items[0].tolist()
    assert items.min() > 0


@pytest.mark.parametrize("kind", ["hnsw", "ivf_flat"])
def test_search_is_exact_at_last(kind: str) -> None:
    index = build_index(IndexConfig(kind=kind, ef_search=1, lists=64, probes=1), vectors())
    assert isinstance(index, FaissIndex)
    asked = queries(1)
    order = brute(asked[0], N, set(range(1, N + 1)))
    rule = Exclusion(blocked=order[:-7])
    items, _ = index.search(asked, 10, rule, nothing(1))
    assert items[0].tolist() == [*order[-7:], -1, -1, -1]
    assert index.exact_searches == 1


def test_equal_scores_come_in_the_order_of_items() -> None:
    table = torch.ones(N + 1, D)
    for kind in TRUE_KINDS:
        index = build_index(IndexConfig(kind=kind), table)
        items, _ = index.search(torch.ones(1, D), 6, Exclusion(), Histories.from_lists([[2, 4]]))
        if kind == "exact":
            assert items[0].tolist() == [1, 3, 5, 6, 7, 8]
        assert items[0].tolist() == sorted(items[0].tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_saved_index_answers_the_same(indexes: dict[str, Index], kind: str, tmp_path: Path) -> None:
    index = indexes[kind]
    recall_check(index, vectors(), queries(20), 10)
    index.save(tmp_path)
    again = load_index(tmp_path)
    assert (again.kind, again.n_items, again.width) == (kind, N, D)
    assert again.recall == index.recall is not None
    assert again.config == index.config
    rule, seen = Exclusion(), Histories.from_lists([[1, 2, 3]] * 5)
    for ours, theirs in zip(
        index.search(queries(), 10, rule, seen),
        again.search(queries(), 10, rule, seen),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


def test_recall_counts_what_reaches_the_true_list(indexes: dict[str, Index]) -> None:
    for kind in ("exact", "flat", "hnsw", "ivf_flat"):
        measured = recall_check(indexes[kind], vectors(), queries(50), 10)
        assert measured == {"k": 10, "queries": 50, "recall": 1.0}
    poor = build_index(IndexConfig(kind="ivf_flat", lists=60, probes=1), vectors())
    low = recall_check(poor, vectors(), queries(50), 10)["recall"]
    assert 0.05 < low < 0.9


@pytest.mark.parametrize("width", [16, 9])
def test_a_scan_of_codes_finds_the_best_and_nothing_forbidden(width: int) -> None:
    """Enough items that a list is not the whole catalogue's; codes of an odd width, too."""
    table = vectors(n=5000, d=width)
    index = build_index(IndexConfig(kind="pq_scan"), table)
    assert isinstance(index, FaissIndex)
    asked = torch.randn(50, width, generator=torch.Generator().manual_seed(5))
    assert recall_check(index, table, asked, 10)["recall"] > 0.98
    best = (asked @ table[1:].T).argmax(1) + 1
    found, _ = index.search(asked, 10, Exclusion(), Histories.from_lists(best[:, None].tolist()))
    assert not bool((found == best[:, None]).any())
    assert int(found.min()) > 0
    more = 10 * asked[:2]
    grown = grown_faiss(index, torch.cat([index.columns, more.T], dim=1), more)
    found, _ = grown.search(asked[:2], 3, Exclusion(seen=False), nothing(2))
    assert found[:, 0].tolist() == [5001, 5002]
    assert index.exact_searches == grown.exact_searches == 0  # no list was filled by all scores


def test_recall_of_a_known_error() -> None:
    # Scores of the four items are 4, 3, 2, 1; an index over a table whose best item is spoilt
    # returns items 2 and 3 for k = 2: one of two belongs to the true list.
    table = torch.tensor([[0.0], [4.0], [3.0], [2.0], [1.0]])
    spoilt = table.clone()
    spoilt[1] = 0.5
    index = ExactIndex(IndexConfig(), spoilt.T.contiguous())
    assert recall_check(index, table, torch.ones(1, 1), 2)["recall"] == 0.5


def test_auto_is_exact_for_small_catalogues() -> None:
    assert build_index(IndexConfig(), vectors()).kind == "exact"
    assert build_index(IndexConfig(exact_below=N + 1), vectors()).kind == "exact"
    assert build_index(IndexConfig(exact_below=N), vectors()).kind == "hnsw"


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"pq_bytes=7 .* allowed: 1, 2, 4, 8, 16"):
        build_index(IndexConfig(kind="ivf_pq", pq_bytes=7), vectors())
    with pytest.raises(ConfigError, match="at least 256 items"):
        build_index(IndexConfig(kind="ivf_pq", pq_bytes=8), vectors(n=100))
    with pytest.raises(ConfigError, match=r"pq_scan needs at least 16 items, the catalogue has 15"):
        build_index(IndexConfig(kind="pq_scan"), vectors(n=15))
    bad = vectors()
    bad[3, 2] = torch.nan
    with pytest.raises(DataError, match="item vectors"):
        build_index(IndexConfig(), bad)
    index = build_index(IndexConfig(), vectors())
    with pytest.raises(DataError, match="queries"):
        index.search(bad[3:4], 5, Exclusion(), nothing(1))


def test_gpu_on_without_a_gpu_is_an_error() -> None:
    import faiss

    if hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match="sees no GPU"):
        build_index(IndexConfig(kind="flat", gpu="on"), vectors())


def test_missing_faiss_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert build_index(IndexConfig(), vectors()).kind == "exact"
    with pytest.raises(MissingExtraError, match=r"recsys\[ann\]"):
        build_index(IndexConfig(kind="hnsw"), vectors())


@pytest.mark.parametrize("name", ["index.json", "vectors.npy", "index.faiss"])
def test_unusable_files_are_named(indexes: dict[str, Index], name: str, tmp_path: Path) -> None:
    indexes["hnsw"].save(tmp_path)
    (tmp_path / name).write_bytes(b"nonsense")
    with pytest.raises(ArtifactError, match=str(tmp_path)):
        load_index(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ArtifactError, match=name):
        load_index(tmp_path)


def test_no_queries_give_no_lists(indexes: dict[str, Index]) -> None:
    for index in indexes.values():
        items, scores = index.search(np.zeros((0, D), dtype=np.float32), 4, Exclusion(), nothing(0))
        assert items.shape == scores.shape == (0, 4)
