"""Models that read texts: votes of alike texts, bags of tokens, frozen vectors, items with texts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import nn

from recsys.config import (
    BagOfTokensConfig,
    ItemKNNConfig,
    ItemVectors,
    SASRecConfig,
    TextItems,
    TextVectorsConfig,
    TextVotes,
    UniRecConfig,
)
from recsys.data.bags import inverse_frequency, token_counts, weighted_bags
from recsys.data.batches import batch_from_lists
from recsys.data.sequences import SequenceStore, TrainingData
from recsys.data.token_store import TokenStore
from recsys.errors import ArtifactError
from recsys.models import EncoderModel, Model, build_model, text_votes
from recsys.models.item_table import TextItemTable, read_texts
from recsys.models.text_votes import inherited

# Items 1..4; item 4 has no events, item 3 no text. Items 1 and 2 share token 5, 2 and 4 share token 6.
TEXTS = [[], [1, 5, 5], [1, 5, 6], [], [1, 6, 7]]
NAME_TOKEN = 1


def sentences() -> TokenStore:
    tokens = [token for text in TEXTS for token in text]
    return TokenStore(
        tokens=np.array(tokens, dtype=np.int32),
        types=np.array([1 if t == NAME_TOKEN else 2 for t in tokens], dtype=np.uint8),
        word_starts=np.ones(len(tokens), dtype=np.bool_),
        offsets=np.array([0, 0, 3, 6, 9]),
        hashes=np.arange(8, dtype=np.uint64).reshape(4, 2),
        rows=np.array([0, 1, 2, 0, 3], dtype=np.int32),
        pad_id=0,
        cls_id=2,
        mask_id=3,
        unknown_id=4,
        vocabulary_size=8,
        tokenizer_hash="00",
    )


def unit(rows: list[list[float]]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    found = np.array(rows, dtype=np.float32)
    norms = np.linalg.norm(found, axis=1, keepdims=True)
    return np.divide(found, norms, out=np.zeros_like(found), where=norms > 0)


VECTORS = unit([[0, 0], [1, 0], [3, 4], [0, 0], [0, 1]])


def data() -> TrainingData:
    items = np.array([1, 2, 1, 2, 3, 3], dtype=np.int32)
    store = SequenceStore(items, np.array([0, 2, 5, 6]), n_items=4)
    return TrainingData(store, store.offsets[1:].copy(), sentences(), VECTORS)


def scores(model: Model, *histories: list[int]) -> list[list[float]]:
    with torch.no_grad():
        found = model.eval().score(batch_from_lists(list(histories), None, model.max_length))
    return [[round(float(x), 4) for x in row] for row in found]


def test_idf_is_counted_on_training_items_and_names_say_nothing() -> None:
    counts = token_counts(sentences())
    assert counts[:, NAME_TOKEN].nnz == 0
    idf = inverse_frequency(counts, data().item_counts() > 0)  # items 1, 2, 3
    assert idf[5] == pytest.approx(math.log(4 / 3) + 1)
    assert idf[6] == pytest.approx(math.log(4 / 2) + 1)
    assert idf[7] == pytest.approx(math.log(4 / 1) + 1)  # in a new item only
    bags = weighted_bags(counts, idf).toarray()
    np.testing.assert_allclose(np.linalg.norm(bags, axis=1), [0, 1, 1, 0, 1], atol=1e-6)


def test_bag_of_tokens_by_hand() -> None:
    model = build_model(BagOfTokensConfig(history=2, decay=0.5), 4)
    model.fit(data())  # type: ignore[operator]
    i5, i6, i7 = math.log(4 / 3) + 1, math.log(2) + 1, math.log(4) + 1
    two, four = math.hypot(i5, i6), math.hypot(i6, i7)
    likeness = i6 / two * i6 / four
    [row] = scores(model, [3, 1, 2])  # of which the newest two are read
    assert row[2] == pytest.approx(1 + 0.5 * i5 / two, abs=1e-4)
    assert row[1] == pytest.approx(i5 / two + 0.5, abs=1e-4)
    assert row[4] == pytest.approx(likeness, abs=1e-4)
    assert row[3] < 0 <= min(row[1], row[2], row[4])
    empty = scores(model, [])[0]
    assert max(empty) < 0 and empty[1] == empty[2] == empty[3] > empty[4]


def test_text_vectors_are_the_decayed_mean_of_the_newest_events() -> None:
    config = TextVectorsConfig(
        vectors=ItemVectors(source="minilm", width=None), history=2, decay=0.5
    )
    model = build_model(config, 4)
    model.fit(data())  # type: ignore[operator]
    assert isinstance(model, EncoderModel) and model.width == 2
    query = unit([[0.5 + 0.6, 0.8]])[0]
    expected = [round(float(v), 4) for v in VECTORS @ query]
    assert scores(model, [4, 1, 2])[0] == pytest.approx(expected, abs=1e-4)
    counts = np.array([0, 2, 2, 2, 0])
    mean = unit([list(counts @ VECTORS)])[0]
    assert scores(model, [])[0] == pytest.approx((VECTORS @ mean).tolist(), abs=1e-4)
    again = build_model(config, 4)
    again.load_state_dict(model.state_dict())
    assert scores(again, [1, 4], [2]) == scores(model, [1, 4], [2])
    assert isinstance(again, EncoderModel) and again.width == 2


def test_alike_texts_vote_beside_common_users() -> None:
    plain = build_model(ItemKNNConfig(shrinkage=0), 4)
    plain.fit(data())  # type: ignore[operator]
    text = TextVotes(vectors=ItemVectors(width=2), weight=0.5, power=2, neighbours=1)
    model = build_model(ItemKNNConfig(shrinkage=0, text=text), 4)
    model.fit(data())  # type: ignore[operator]
    [before], [after] = scores(plain, [2]), scores(model, [2])
    assert after[4] == pytest.approx(
        0.5 * 0.8**2, abs=1e-4
    )  # 4 has no events, and 0.8 is its cosine
    assert before[4] < 0
    assert after[1] == before[1] == pytest.approx(1.0)  # one neighbour by text, which is 4
    [other] = scores(model, [4])
    assert other[2] == pytest.approx(0.5 * 0.8**2, abs=1e-4)
    assert max(other[1], other[3]) < 0


@pytest.mark.parametrize("power", [1.0, 2.5])
def test_an_item_without_events_inherits_from_those_of_like_texts(
    power: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    n_items, from_ = 9, 2
    vectors = unit(rng.normal(size=(n_items + 1, 3)).tolist()).astype(np.float32)
    vectors[[0, 9]] = 0  # 9 has no text
    learned = np.array([False, *[True] * 6, False, False, False])  # 7, 8, 9 have no events
    dense = rng.random((n_items + 1, n_items + 1)) * np.outer(learned, learned)
    np.fill_diagonal(dense, 0)
    config = TextVotes(vectors=ItemVectors(width=3), power=power, inherit=1.5, inherit_from=from_)
    parents: dict[int, list[tuple[int, float]]] = {i: [(i, 1.0)] for i in range(1, 7)}
    for item in (7, 8):
        alike = sorted(range(1, 7), key=lambda n: -float(vectors[item] @ vectors[n]))[:from_]
        worth = [max(0.0, float(vectors[item] @ vectors[n])) ** power for n in alike]
        parents[item] = [(n, w / sum(worth)) for n, w in zip(alike, worth, strict=True)]
    expected = np.zeros_like(dense)
    for j, of_j in parents.items():
        for i, of_i in parents.items():
            strength = 1.0 if learned[i] else 1.5
            votes = sum(a * b * dense[n, m] for n, a in of_j for m, b in of_i)
            expected[j, i] = strength * votes if i != j else 0.0
    monkeypatch.setattr(text_votes, "BLOCK_PAIRS", 25)  # blocks of two items
    found = inherited(config, sparse.csr_array(dense), vectors, learned, 9).toarray()
    assert found == pytest.approx(expected, abs=1e-6)
    fewer = inherited(config, sparse.csr_array(dense), vectors, learned, 2).toarray()
    for some in (np.flatnonzero(learned), np.array([7, 8, 9])):
        for all_votes, kept in zip(expected[:, some], fewer[:, some], strict=True):
            place = np.argsort(-all_votes, kind="stable")
            assert kept[place[:2]] == pytest.approx(all_votes[place[:2]], abs=1e-6)
            assert not kept[place[2:]].any()
    assert found[1, 7] > 0 and found[7, 1] > 0 and found[7, 8] > 0
    assert not found[9].any() and not found[:, 9].any()
    none = config.model_copy(update={"inherit": 0.0})
    unchanged = inherited(none, sparse.csr_array(dense), vectors, learned, 2)
    assert (unchanged.toarray() == dense).all()


def test_a_model_lets_items_without_events_inherit() -> None:
    text = TextVotes(vectors=ItemVectors(width=2), weight=0.5, power=2, neighbours=1)
    plain = build_model(ItemKNNConfig(shrinkage=0, text=text), 4)
    plain.fit(data())  # type: ignore[operator]
    heir = build_model(ItemKNNConfig(shrinkage=0, text=text.model_copy(update={"inherit": 2.0})), 4)
    heir.fit(data())  # type: ignore[operator]
    [before], [after] = scores(plain, [1]), scores(heir, [1])
    assert before[4] < after[4] and before[1:4] == after[1:4]  # 4 has no events


@pytest.mark.parametrize("kind", ["bag", "vectors", "knn"])
def test_models_say_that_texts_are_missing(kind: str) -> None:
    config = {
        "bag": BagOfTokensConfig(),
        "vectors": TextVectorsConfig(),
        "knn": ItemKNNConfig(text=TextVotes()),
    }[kind]
    bare = TrainingData(data().store, data().train_end)
    with pytest.raises(ArtifactError, match="there are none; run the features stage"):
        build_model(config, 4).fit(bare)  # type: ignore[operator]


def sasrec(mode: str, **settings: int) -> SASRecConfig:
    text = TextItems(vectors=ItemVectors(width=2), mode=mode, **settings)  # type: ignore[arg-type]
    return SASRecConfig(width=2, heads=1, max_length=5, text=text)


@pytest.mark.parametrize("inner", [0, 3])
@pytest.mark.parametrize("mode", ["add", "only"])
def test_items_are_made_of_texts_and_pad_is_zero(mode: str, inner: int) -> None:
    torch.manual_seed(0)
    model = build_model(sasrec(mode, inner=inner), 4)
    read_texts(model, data())
    assert isinstance(model, EncoderModel)
    table = model.get_submodule("item_table")
    assert isinstance(table, TextItemTable)
    vectors = model.encode_items()
    assert vectors.shape == (5, 2) and not vectors[0].any()
    made = table.of_texts(torch.from_numpy(VECTORS))
    own = 0 if table.own is None else table.own.weight
    assert torch.allclose(vectors, made + own)
    some = torch.tensor([2, 0, 4])
    assert torch.allclose(model.encode_items(some), vectors[some])
    many = torch.arange(5).repeat(3)
    assert torch.allclose(model.encode_items(many), vectors[many])
    vectors.square().sum().backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in table.parameters())
    again = build_model(sasrec(mode, inner=inner), 4)
    again.load_state_dict(model.state_dict())
    assert scores(again, [1, 4]) == scores(model, [1, 4])


def test_initialised_items_begin_in_the_direction_of_their_texts() -> None:
    torch.manual_seed(0)
    model = build_model(sasrec("initialise"), 4)
    table = model.get_submodule("item_table")
    assert isinstance(table, nn.Embedding)
    size = float(table.weight.detach().std())
    read_texts(model, data())
    assert torch.allclose(nn.functional.normalize(table.weight, dim=1), torch.from_numpy(VECTORS))
    assert float(table.weight.detach()[1:].std()) == pytest.approx(size, rel=1e-4)


def test_unirec_reads_texts_too() -> None:
    config = UniRecConfig(
        width=2,
        heads=1,
        calendar=False,
        interval=False,
        block="ligr",
        global_term=False,
        sequence_enhancement=False,
        item_enhancement=False,
        text=TextItems(vectors=ItemVectors(width=2), mode="add"),
    )
    model = build_model(config, 4)
    before = scores(model, [1, 2])
    read_texts(model, data())
    assert scores(model, [1, 2]) != before


def test_texts_of_another_shape_are_refused_with_both_sides() -> None:
    model = build_model(sasrec("add"), 3)
    with pytest.raises(ArtifactError, match=r"of shape \(4, 2\), but these are \(5, 2\)"):
        read_texts(model, data())
    with pytest.raises(ValueError, match=r"set text\.vectors\.width to 4 \(it is 2\)"):
        SASRecConfig(width=4, text=TextItems(vectors=ItemVectors(width=2), mode="initialise"))
    with pytest.raises(ValueError, match=r"set vectors\.width"):
        TextItems(vectors=ItemVectors(source="minilm", width=None))
