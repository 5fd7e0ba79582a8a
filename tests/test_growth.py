"""New items stand where they are said to stand, for models with vectors and without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_bundle import N_ITEMS, make_bundle

from recsys.bundle import Bundle, load_bundle
from recsys.config import (
    IndexConfig,
    ItemKNNConfig,
    LagMarkovConfig,
    MarkovConfig,
    ModelConfig,
    PopularityConfig,
    SASRecConfig,
    SetModelConfig,
    UniRecConfig,
    VotesConfig,
)
from recsys.config.sets import MeanSetConfig
from recsys.data.batches import batch_from_lists
from recsys.growth import GrownScorer, NewItem, grow
from recsys.models import EncoderModel
from recsys.models.sets.model import SetModel
from recsys.models.unirec import UniRec
from recsys.recommender import Query, Recommender, SearchSettings

SASREC = SASRecConfig(width=8, heads=2, blocks=1, max_length=6)
UNIREC = UniRecConfig(width=8, heads=2, blocks=1, max_length=6, global_weight=20.0)
HISTORY = ["i05", "i09", "i12"]
LIKE_TWO = NewItem("new", {"title": "A new one"}, like=("i07", "i20"), weights=(3.0, 1.0))


@pytest.fixture(
    scope="module",
    params=[SASREC, UNIREC, MarkovConfig(), LagMarkovConfig(), ItemKNNConfig(), PopularityConfig()],
    ids=lambda c: c.kind,
)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    config: ModelConfig = request.param
    return load_bundle(make_bundle(tmp_path_factory.mktemp("bundles"), config))


def scores(bundle: Bundle, history: list[str]) -> dict[str, float]:
    query = Query(history=history, times=[0] * len(history), k=N_ITEMS + 5, exclude_seen=False)
    [answer] = Recommender(bundle).recommend([query])
    return dict(zip(answer.items, answer.scores, strict=True))


def test_a_new_items_score_is_the_mean_of_those_it_is_like(bundle: Bundle) -> None:
    grown = grow(bundle, [LIKE_TWO])
    assert (grown.placed, grown.unplaced) == (("new",), ())
    before, after = scores(bundle, HISTORY), scores(grown.bundle, HISTORY)
    expected = 0.75 * before["i07"] + 0.25 * before["i20"]
    assert after.pop("new") == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert after == pytest.approx(before, rel=1e-5, abs=1e-6)


def test_in_a_history_it_is_read_as_the_one_it_is_most_like(bundle: Bundle) -> None:
    grown = grow(bundle, [LIKE_TWO]).bundle
    query = Query(history=["i05", "new"], times=[0, 0], k=N_ITEMS)
    [answer] = Recommender(grown).recommend([query])
    assert answer.unknown == [] and "new" not in answer.items
    alone = scores(bundle, ["i05", "i07"])
    found = dict(zip(answer.items, answer.scores, strict=True))
    assert found == pytest.approx({item: alone[item] for item in found}, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    "config",
    [
        UniRecConfig(width=8, blocks=1, max_length=6, votes=VotesConfig(weight=9.0, kept=4)),
        SetModelConfig(encoder=MeanSetConfig(width=8), votes=VotesConfig(weight=9.0, kept=4)),
    ],
    ids=["unirec", "set"],
)
@torch.no_grad()
def test_what_is_beyond_a_product_it_has_of_the_item_it_is_like(
    tmp_path: Path, config: UniRecConfig | SetModelConfig
) -> None:
    known = load_bundle(make_bundle(tmp_path, config))
    assert isinstance(known.model, UniRec | SetModel) and known.model.votes is not None
    known.model.votes.neighbours.fill_(7)  # i07, by everybody's votes
    known.model.votes.shares.fill_(0.2)
    grown = grow(known, [NewItem("new", {}, like=("i07",))]).bundle
    before, after = scores(known, HISTORY), scores(grown, HISTORY)
    assert after["new"] == pytest.approx(before["i07"], rel=1e-4)
    assert before["i07"] - sorted(before.values())[-2] > 3.0
    assert after["i07"] == pytest.approx(before["i07"], rel=1e-4)


def test_what_the_bundle_knows_or_cannot_place_changes_nothing(bundle: Bundle) -> None:
    known = NewItem("i03", like=("i04",))
    lost = NewItem("lost", like=("ghost",))
    grown = grow(bundle, [known, lost])
    assert grown.bundle is bundle
    assert (grown.placed, grown.unplaced) == ((), ("lost",))


def test_the_table_names_it_and_it_is_found_like_others(bundle: Bundle) -> None:
    grown = grow(bundle, [LIKE_TWO, NewItem("other", like=("i07",))]).bundle
    assert grown.items["title"].to_list()[-2:] == ["A new one", None]
    assert grown.items["item"].to_list() == list(range(1, N_ITEMS + 3))
    assert grown.popularity.tolist()[-2:] == [0, 0]
    alike = Recommender(grown).similar(["other", "new"], 5)
    assert set(alike) == {"other", "new"}
    if grown.index is not None:
        assert alike["other"].items[0] == "i07"


def test_a_vector_of_its_own(tmp_path: Path) -> None:
    bundle = load_bundle(make_bundle(tmp_path))
    assert bundle.index is not None
    vector = (bundle.index.vectors[7] * 2).tolist()
    grown = grow(bundle, [NewItem("v", vector=tuple(vector)), NewItem("w", vector=(1.0,))])
    assert (grown.placed, grown.unplaced) == (("v",), ("w",))
    before, after = scores(bundle, HISTORY), scores(grown.bundle, HISTORY)
    assert after["v"] == pytest.approx(2 * before["i07"], rel=1e-4)
    as_seven = scores(grown.bundle, ["i05", "v"])
    assert as_seven["i30"] == pytest.approx(scores(bundle, ["i05", "i07"])["i30"], rel=1e-5)


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf_flat", "pq_scan"])
def test_a_faiss_index_takes_new_vectors_and_the_old_one_stays(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("faiss")
    from dataclasses import replace

    from recsys.retrieval.index import build_index

    bundle = load_bundle(make_bundle(tmp_path))
    assert isinstance(bundle.model, EncoderModel)
    with torch.no_grad():
        index = build_index(IndexConfig(kind=kind), bundle.model.encode_items())
    bundle = replace(bundle, index=index)
    grown = grow(bundle, [LIKE_TWO]).bundle
    exact = scores(grow(load_bundle(bundle.path), [LIKE_TWO]).bundle, HISTORY)
    assert scores(grown, HISTORY) == pytest.approx(exact, rel=1e-4, abs=1e-5)
    assert index.structure.ntotal == N_ITEMS


def test_removed_items_are_in_no_list(tmp_path: Path) -> None:
    recommender = Recommender(load_bundle(make_bundle(tmp_path)))
    [before] = recommender.recommend([Query(history=HISTORY, k=3)])
    gone = recommender.bundle.item_ids.encode(before.items[:2]).astype(np.int64)
    recommender.removed = gone
    [after] = recommender.recommend([Query(history=HISTORY, k=N_ITEMS)])
    assert not set(before.items[:2]) & set(after.items)
    assert after.items[0] == before.items[2]
    allowed = Query(history=HISTORY, allow=before.items)
    assert recommender.recommend([allowed])[0].items == before.items[2:]
    alike = recommender.similar(["i05"], N_ITEMS)["i05"].items
    assert not set(before.items[:2]) & set(alike)


def test_events_before_the_history_are_excluded_and_not_read(tmp_path: Path) -> None:
    recommender = Recommender(load_bundle(make_bundle(tmp_path)))
    plain, longer, window = recommender.recommend(
        [
            Query(history=HISTORY, k=N_ITEMS),
            Query(history=HISTORY, before=["i01", "i02", "ghost"], k=N_ITEMS),
            Query(history=HISTORY, before=["i01", "i02"], k=N_ITEMS, repeat_window=4),
        ]
    )
    assert longer.items == [item for item in plain.items if item not in ("i01", "i02")]
    assert longer.unknown == []
    assert window.items == [item for item in plain.items if item != "i02"]


def test_what_is_beyond_the_product_stays_in_a_grown_bundle(tmp_path: Path) -> None:
    """UniRec's global term: lists and continuations of the grown bundle go by the whole score."""
    bundle = load_bundle(make_bundle(tmp_path, UNIREC))
    own = NewItem("own", vector=tuple(np.linspace(-1, 1, 8).tolist()))
    grown = grow(bundle, [LIKE_TWO, own]).bundle
    assert isinstance(grown.model, GrownScorer) and not grown.model.is_inner_product
    assert isinstance(bundle.model, EncoderModel)
    indices = bundle.item_ids.encode(HISTORY).tolist()
    batch = batch_from_lists([indices], [[0] * 3], 6, [[0, 1, 2]])
    with torch.no_grad():
        known, new = bundle.model.score(batch), grown.model.score(batch)
        beyond = grown.model.beyond_product(batch)
        rows = torch.tensor([[41, 7, 42, 20]])
        torch.testing.assert_close(grown.model.beyond_product(batch, rows), beyond[:, rows[0]])
        torch.testing.assert_close(grown.model.beyond_product(batch, rows[0]), beyond[:, rows[0]])
        torch.testing.assert_close(new[:, 1:41], known[:, 1:])
        torch.testing.assert_close(new[:, 41], 0.75 * known[:, 7] + 0.25 * known[:, 20])
        state = grown.model.start(batch)
        torch.testing.assert_close(grown.model.score_next(state), new)
    assert (beyond[:, 1:] > 0).all(), "the term is there to be lost"
    whole = dict(enumerate(new[0].tolist()))
    assert scores(grown, HISTORY)["new"] == pytest.approx(whole[41], rel=1e-4)
    assert scores(grown, HISTORY)["own"] == pytest.approx(whole[42], rel=1e-4)


@pytest.mark.parametrize("strategy", ["mmr", "dpp"])
def test_pools_to_be_reranked_go_by_the_whole_score(tmp_path: Path, strategy: str) -> None:
    """With a pool of five the product alone would choose others than the score does."""
    bundle = load_bundle(make_bundle(tmp_path, UNIREC))
    assert bundle.index is not None and isinstance(bundle.model, EncoderModel)
    best = Recommender(bundle).recommend([Query(history=HISTORY, times=[0] * 3, k=5)])[0]
    settings = SearchSettings(groups=1, beams=1, candidates=5, diversity=0.5)
    asked = Query(
        history=HISTORY,
        times=[0] * 3,
        k=5,
        strategy=strategy,  # type: ignore[arg-type]
        settings=settings,
    )
    [found] = Recommender(bundle).recommend([asked])
    assert set(found.items) == set(best.items)
    assert dict(zip(found.items, found.scores, strict=True)) == pytest.approx(
        dict(zip(best.items, best.scores, strict=True)), rel=1e-5
    )
    with torch.no_grad():
        batch = batch_from_lists(
            [bundle.item_ids.encode(HISTORY).tolist()], [[0] * 3], 6, [[0, 1, 2]]
        )
        product = bundle.model.encode_sequences(batch) @ bundle.model.encode_items().T
    seen = bundle.item_ids.encode(HISTORY).tolist()
    product[:, [0, *seen]] = -torch.inf
    by_product = set(bundle.item_ids.decode(product[0].topk(5).indices.numpy()))
    assert by_product != set(best.items), "the term decides here"
