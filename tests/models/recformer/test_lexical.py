"""The lexical term of Recformer: its formula, its place in score and shortlist, new items, its state."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentences_of import token_store

from recsys.config import IndexConfig, RecformerConfig, TextEncoderConfig
from recsys.config.recformer import LexicalConfig
from recsys.data.batches import batch_from_lists
from recsys.data.sequences import SequenceStore, TrainingData
from recsys.data.token_store import TokenStore
from recsys.errors import ArtifactError
from recsys.models.recformer.lexical import LexicalTerm
from recsys.models.recformer.model import Recformer
from recsys.retrieval.exclusion import Exclusion, Histories
from recsys.retrieval.index import build_index
from recsys.retrieval.rescore import search_rescored
from recsys.retrieval.topk import topk_rows
from recsys.training.callbacks import plain_state

N, WORDS = 300, 80
HISTORIES = [[1, 2, 9, 4], [7], [], [9, 8, 5]]


def texts(seed: int = 0) -> TokenStore:
    rng = np.random.default_rng(seed)
    return token_store([rng.integers(0, WORDS, 4).tolist() for _ in range(N)], WORDS)


def ready(**lexical: float) -> Recformer:
    torch.manual_seed(0)
    shape = TextEncoderConfig(width=8, heads=2, inner=8, blocks=1, max_tokens=16, max_items=2)
    config = RecformerConfig(encoder=shape, lexical=LexicalConfig.model_validate(lexical))
    model = Recformer(config, N).eval()
    model.set_sentences(texts())
    for parameter in model.encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    model.refresh_items()
    return model


def test_the_term_is_the_cosine_of_weighted_bags() -> None:
    """Three items of words 0 1, 1 2 and 3; the history is item 1, and item 2 before it."""
    term = LexicalTerm(LexicalConfig(weight=3.0, decay=0.5))
    term.set_sentences(token_store([[0, 1], [1, 2], [3]], 4))
    rare, common = math.log(4 / 2) + 1, math.log(4 / 3) + 1
    norm = math.hypot(rare, common)
    first, second = np.array([rare, common, 0, 0]) / norm, np.array([0, common, rare, 0]) / norm
    query = first + 0.5 * second
    query /= np.linalg.norm(query)
    found = term.bonus(batch_from_lists([[2, 1], []], None, 20))
    expected = [0.0, 3 * query @ first, 3 * query @ second, 0.0]
    torch.testing.assert_close(found[0], torch.tensor(expected, dtype=torch.float32))
    assert not found[1].any()
    assert term.candidates(batch_from_lists([[2, 1], []], None, 20), 3).tolist() == [
        [1, 2, 0],
        [0, 0, 0],
    ]


@torch.no_grad()
def test_it_is_added_to_the_encoders_cosine_and_reads_a_history_of_its_own_length() -> None:
    model = ready(weight=2.0, decay=0.9, history=3)
    assert not model.is_inner_product and model.max_length == 3 > model.encoder.config.max_items
    batch = batch_from_lists(HISTORIES, None, model.max_length)
    plain = model.encode_sequences(batch) @ model.encode_items().T
    assert model.lexical is not None
    torch.testing.assert_close(model.score(batch) - plain, model.lexical.bonus(batch))
    newest = batch_from_lists([[9, 4]], None, 3)  # the encoder reads two items, the term three
    torch.testing.assert_close(model.encode_sequences(batch)[:1], model.encode_sequences(newest))
    assert not torch.equal(model.beyond_product(batch)[:1], model.beyond_product(newest))
    without = Recformer(RecformerConfig(encoder=model.encoder.config), N)
    assert without.is_inner_product and without.lifted(batch, 3) is None


@torch.no_grad()
def test_a_shortlist_with_the_items_of_most_shared_words_is_full_ranking() -> None:
    model = ready(weight=50.0)
    batch = batch_from_lists(HISTORIES, None, model.max_length)
    histories, rule = Histories.from_lists(HISTORIES), Exclusion()
    index = build_index(IndexConfig(shortlist=1), model.encode_items())
    expected, values = topk_rows(rule.mask_(model.score(batch), histories), 3)
    queries = model.encode_sequences(batch)
    items, scores = search_rescored(index, model, batch, queries, 3, rule, histories)
    assert torch.equal(items, expected)
    torch.testing.assert_close(scores, values, rtol=0, atol=1e-4)
    plain = topk_rows(rule.mask_(queries @ model.encode_items().T, histories), 3)[0]
    assert not torch.equal(plain[[0, 1, 3]], expected[[0, 1, 3]]), "the term decides nothing here"


@torch.no_grad()
def test_new_items_are_ranked_by_their_words_as_those_of_the_catalogue(tmp_path: Path) -> None:
    model, catalogue = ready(), texts()
    batch = batch_from_lists(HISTORIES, None, model.max_length)
    some = catalogue.take(np.array([5]))
    [bag] = model.bags_of(some)
    assert len(bag) and all(weight > 0 for _, weight in bag)
    tokens, weights = zip(*bag, strict=True)
    where = torch.tensor([[0] * len(bag), list(tokens)])
    size = (1, max(tokens) + 1)
    bags = torch.sparse_coo_tensor(where, torch.tensor(weights), size, check_invariants=True)
    found = model.beyond_of_bags(batch, bags)
    torch.testing.assert_close(found[:, 0], model.beyond_product(batch)[:, 5])
    with pytest.raises(ArtifactError, match="tokenizer cdcdcdcd"):
        model.bags_of(token_store([[1]], WORDS, "cd" * 32))
    assert Recformer(RecformerConfig(encoder=model.encoder.config), N).lexical is None
    save_file(plain_state(model.state_dict()), tmp_path / "model.safetensors")
    copy = Recformer(model.config, N).eval()
    copy.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(copy.score(batch), model.score(batch))
    assert copy.bags_of(some) == [bag]


def learned_from(histories: list[list[int]], n_items: int) -> TrainingData:
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in histories])]).astype(np.int64)
    items = np.array([item for one in histories for item in one], dtype=np.int32)
    return TrainingData(SequenceStore(items, offsets, n_items), offsets[1:])


@torch.no_grad()
def test_words_of_items_without_training_events_move_nothing(tmp_path: Path) -> None:
    """Items 1 and 2 are trained on; what item 3 says of itself changes their likeness not at all."""
    found = []
    for third in ([3], [1]):
        term = LexicalTerm(LexicalConfig())
        term.set_sentences(token_store([[0, 1], [1, 2], third], 4))
        whole = float(term.bonus(batch_from_lists([[1]], None, 20))[0, 2])
        term.count(np.array([False, True, True, False]))
        found.append((whole, float(term.bonus(batch_from_lists([[1]], None, 20))[0, 2])))
    assert found[0][0] != found[1][0]  # in a catalogue that nobody has bought from all texts count
    assert found[0][1] == found[1][1]

    model = ready()
    assert model.lexical is not None
    batch, before = batch_from_lists(HISTORIES, None, model.max_length), model.lexical.idf.clone()
    model.prepare(learned_from(HISTORIES, N))
    assert not torch.equal(model.lexical.idf, before)
    save_file(plain_state(model.state_dict()), tmp_path / "model.safetensors")
    copy = Recformer(model.config, N).eval()
    copy.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(copy.beyond_product(batch), model.beyond_product(batch))
    model.prepare(learned_from([], N))
    torch.testing.assert_close(model.lexical.idf, before)
