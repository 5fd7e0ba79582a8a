"""What every model promises, checked on all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sentences_of import ring_store

from recsys.config import (
    ItemKNNConfig,
    LagMarkovConfig,
    MarkovConfig,
    ModelConfig,
    NeighbourVotesConfig,
    OwnPopularityConfig,
    PopularityConfig,
    RecformerConfig,
    SASRecConfig,
    Seq2SeqConfig,
    SetModelConfig,
    TextEncoderConfig,
    TiSASRecConfig,
    UniRecConfig,
    VotesConfig,
)
from recsys.config.recformer import LexicalConfig
from recsys.config.sets import ReadProcessConfig, SetTransformerConfig, SIFConfig
from recsys.data.batches import SequenceBatch, batch_from_lists
from recsys.data.sequences import SequenceStore, TrainingData
from recsys.models import CountingModel, EncoderModel, Model, build_model
from recsys.models.recformer.model import Recformer
from recsys.models.unirec import UniRec

N_ITEMS, HOUR = 30, 3600
CONFIGS: dict[str, ModelConfig] = {
    "pop": PopularityConfig(),
    "own_pop": OwnPopularityConfig(),
    "markov": MarkovConfig(history=4),
    "markov_recent": MarkovConfig(history=3, half_life=5, reach=2),
    "lag_markov": LagMarkovConfig(history=3, half_life=5),
    "item_knn": ItemKNNConfig(neighbours=5, history=6, shrinkage=1),
    "neighbour_votes": NeighbourVotesConfig(history=4, reach=3, backward=0.5, kept=6),
    "sasrec": SASRecConfig(width=8, max_length=7, dropout=0.3),
    "sasrec_cosine": SASRecConfig(width=8, max_length=7, normalise=True, block="prenorm"),
    "tisasrec": TiSASRecConfig(width=8, max_length=7, dropout=0.3),
    "unirec": UniRecConfig(width=8, max_length=7, dropout=0.3),
    "unirec_ancestor": UniRecConfig(
        width=8,
        max_length=7,
        interval=False,
        sequence_enhancement=False,
        item_enhancement=False,
    ),
    "unirec_fused": UniRecConfig(
        width=8,
        max_length=7,
        block="ligr",
        fusion="sum",
        gaps="log",
        time_bias=True,
        global_term=False,
        inject_tail="both",
        item_bias=True,
        normalise=True,
    ),
    "unirec_votes": UniRecConfig(
        width=8,
        max_length=7,
        block="prenorm",
        fusion="sum",
        gaps="log",
        votes=VotesConfig(history=3, backward=0.5, kept=5),
    ),
    "unirec_apart": UniRecConfig(
        width=8, max_length=7, block="prenorm", separate_interval=True, item_bias=True
    ),
    "seq2seq": Seq2SeqConfig(width=8, hidden=12, max_length=7),
    "seq2seq_base": Seq2SeqConfig(
        width=8, hidden=12, max_length=7, cell="lstm", bidirectional=False, attention=False
    ),
    "seq2seq_transformer": Seq2SeqConfig(width=8, hidden=12, max_length=7, cell="transformer"),
    "set": SetModelConfig(max_length=7),
    "set_votes": SetModelConfig(max_length=7, votes=VotesConfig(history=3, backward=0.5, kept=5)),
    "set_sif": SetModelConfig(max_length=7, encoder=SIFConfig(width=8)),
    "set_transformer": SetModelConfig(max_length=7, encoder=SetTransformerConfig(width=8)),
    "set_read_process": SetModelConfig(max_length=7, encoder=ReadProcessConfig(width=8)),
    "recformer": RecformerConfig(
        encoder=TextEncoderConfig(width=8, heads=2, inner=8, blocks=1, max_tokens=24, max_items=7)
    ),
    "recformer_lexical": RecformerConfig(
        encoder=TextEncoderConfig(width=8, heads=2, inner=8, blocks=1, max_tokens=24, max_items=7),
        lexical=LexicalConfig(history=5),
    ),
}
HISTORIES = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5], [], [7], [30, 1, 2], [8, 8, 8]]


def training_data() -> TrainingData:
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 12, 40)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    items = rng.integers(1, N_ITEMS + 1, lengths.sum()).astype(np.int32)
    return TrainingData(SequenceStore(items, offsets, N_ITEMS), offsets[1:])


def times_of(history: list[int]) -> list[int]:
    return [HOUR * (7 * len(history) + place**2) for place in range(len(history))]


def batch(
    model: Model, histories: list[list[int]], times: list[list[int]] | None = None
) -> SequenceBatch:
    stamps = [times_of(history) for history in histories] if times is None else times
    return batch_from_lists(histories, stamps, model.max_length)


def ready(config: ModelConfig) -> Model:
    """Return the model, fitted where that is counting."""
    torch.manual_seed(0)
    built = build_model(config, N_ITEMS).eval()
    if isinstance(built, CountingModel):
        built.fit(training_data())
    if isinstance(built, UniRec) and built.enhancer is not None:
        built.neighbours.copy_(torch.randint(1, N_ITEMS + 1, built.neighbours.shape))
        built.is_rare[1::2] = True
        built.injected.fill_(0.7)
    if isinstance(built, Recformer):
        built.set_sentences(ring_store(N_ITEMS))
        built.refresh_items()
    if isinstance(built, EncoderModel):
        built.prepare(training_data())
    return built


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> ModelConfig:
    return CONFIGS[request.param]


@pytest.fixture
def model(config: ModelConfig) -> Model:
    return ready(config)


LEARNED = [name for name in CONFIGS if hasattr(CONFIGS[name], "training")]
COUNTED = [name for name in CONFIGS if name not in LEARNED]


@torch.no_grad()
def test_scores_all_items(model: Model) -> None:
    scores = model.score(batch(model, HISTORIES))
    assert scores.shape == (len(HISTORIES), N_ITEMS + 1)
    assert scores.dtype == torch.float32
    assert scores[:, 1:].isfinite().all()
    assert scores[:, 1:].std() > 0


@torch.no_grad()
def test_candidates_are_columns_of_the_whole(model: Model) -> None:
    whole = model.score(batch(model, HISTORIES))
    candidates = torch.tensor([17, 3, 3, 30, 1, 17])  # any order, repetitions too
    torch.testing.assert_close(
        model.score(batch(model, HISTORIES), candidates), whole[:, candidates]
    )
    assert model.score(batch(model, HISTORIES), candidates[:0]).shape == (len(HISTORIES), 0)


@torch.no_grad()
def test_a_sequence_does_not_depend_on_its_neighbours(model: Model) -> None:
    together = model.score(batch(model, HISTORIES))
    for row, history in zip(together, HISTORIES, strict=True):
        alone = model.score(batch(model, [history]))[0]
        torch.testing.assert_close(alone[1:], row[1:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_reads_the_newest_max_length_events_only(model: Model) -> None:
    newest = [1 + i % 9 for i in range(model.max_length)]
    one, other = (model.score(batch(model, [[old, *newest]])) for old in (20, 21))
    assert torch.equal(one[:, 1:], other[:, 1:])


@torch.no_grad()
def test_no_histories_at_all(model: Model) -> None:
    assert model.score(batch(model, [])).shape == (0, N_ITEMS + 1)


@torch.no_grad()
def test_state_dict_is_the_whole_model(model: Model, config: ModelConfig) -> None:
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    copy = build_model(config, N_ITEMS).eval()
    copy.load_state_dict(state)
    expected = model.score(batch(model, HISTORIES))
    torch.testing.assert_close(copy.score(batch(copy, HISTORIES)), expected, atol=0, rtol=0)


@torch.no_grad()
def test_scores_are_the_callers_to_change(model: Model) -> None:
    before = model.score(batch(model, HISTORIES)).clone()
    model.score(batch(model, HISTORIES)).fill_(-torch.inf)
    assert torch.equal(model.score(batch(model, HISTORIES)), before)


@pytest.mark.parametrize("name", COUNTED)
def test_counting_twice_is_counting_once(name: str) -> None:
    model = ready(CONFIGS[name])
    assert isinstance(model, CountingModel)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.fit(training_data())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", COUNTED)
def test_counting_nothing_leaves_every_item_equal(name: str) -> None:
    model = build_model(CONFIGS[name], N_ITEMS)
    assert isinstance(model, CountingModel)
    empty = SequenceStore(np.zeros(0, dtype=np.int32), np.zeros(4, dtype=np.int64), N_ITEMS)
    model.fit(TrainingData(empty, np.zeros(3, dtype=np.int64)))
    scores = model.score(batch(model, [[], [5]]))
    assert scores[0, 1:].unique().numel() == 1
    assert scores[:, 1:].isfinite().all()


@pytest.mark.parametrize("name", LEARNED)
@torch.no_grad()
def test_an_encoder_scores_by_inner_product_and_says_what_is_beyond(name: str) -> None:
    model = ready(CONFIGS[name])
    assert isinstance(model, EncoderModel)
    queries = model.encode_sequences(batch(model, HISTORIES))
    items = model.encode_items()
    assert queries.shape == (len(HISTORIES), model.width)
    assert items.shape == (N_ITEMS + 1, model.width)
    assert torch.equal(model.encode_items(torch.tensor([4, 2])), items[[4, 2]])
    beyond = torch.zeros(len(HISTORIES), N_ITEMS + 1)
    if not model.is_inner_product:
        beyond = model.beyond_product(batch(model, HISTORIES))
        rows = torch.stack([torch.randperm(N_ITEMS)[:5] + 1 for _ in HISTORIES])
        own = model.beyond_product(batch(model, HISTORIES), rows)
        torch.testing.assert_close(own, beyond.gather(1, rows))
        assert beyond[HISTORIES.index([])].count_nonzero() == 0
    torch.testing.assert_close(
        model.score(batch(model, HISTORIES)), queries @ items.T + beyond, rtol=0, atol=1e-6
    )
    assert torch.equal(queries[HISTORIES.index([])], model.default_query)


REREAD = [name for name in LEARNED if not name.startswith("seq2seq")]
"""A decoder goes on by itself: tests/models/playlists/test_seq2seq.py."""


@pytest.mark.parametrize("name", REREAD)
@torch.no_grad()
def test_a_list_grows_as_if_its_history_did(name: str) -> None:
    model = ready(CONFIGS[name])
    assert isinstance(model, EncoderModel)
    state, grown = model.start(batch(model, HISTORIES), gap=5 * HOUR), HISTORIES
    times = [times_of(history) for history in HISTORIES]
    for item in (4, 11):
        expected = model.score(batch(model, grown, times))
        torch.testing.assert_close(model.score_next(state), expected, atol=1e-5, rtol=1e-5)
        own = torch.randint(1, N_ITEMS + 1, (len(grown), 6))
        scores = model.score_next(state, own)
        torch.testing.assert_close(scores, expected.gather(1, own), atol=1e-5, rtol=1e-5)
        state = model.step(state, torch.full((len(grown),), item))
        grown = [[*history, item] for history in grown]
        times = [[*stamps, stamps[-1] + 5 * HOUR if stamps else 0] for stamps in times]


@pytest.mark.parametrize("name", LEARNED)
@torch.no_grad()
def test_no_place_knows_what_follows_nor_when(name: str) -> None:
    model = ready(CONFIGS[name])
    assert isinstance(model, EncoderModel)
    before = batch(model, [[3, 1, 4]], [[0, 50 * HOUR, 90 * HOUR]])
    begun = model.hidden(before)
    for items, hours in (([3, 1, 4, 1, 5], [0, 50, 90, 91, 92]), ([3, 1, 4, 9], [0, 50, 90, 900])):
        whole = batch(model, [items], [[HOUR * hour for hour in hours]])
        torch.testing.assert_close(model.hidden(whole)[:, :3], begun[:, :3], rtol=0, atol=1e-6)
