"""Autoencoders of playlists: the specification's oracles, bad input, and lists that they write."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from recsys.config import Seq2SeqConfig, TrainingConfig
from recsys.data.batches import SequenceBatch, batch_from_lists
from recsys.decoding import Catalogue, SearchSettings, search
from recsys.losses import Softmax
from recsys.models.playlists.contract import Embedder, compact
from recsys.models.playlists.encoders import RecurrentEncoder
from recsys.models.playlists.seq2seq import Seq2Seq
from recsys.training.list_objectives import ListWriting, list_counts, whole_lists

N_ITEMS, LONGEST = 20, 8
KINDS: dict[str, dict[str, Any]] = {
    "base": {"bidirectional": False},
    "bi": {},
    "bi_lstm_2": {"cell": "lstm", "layers": 2},
    "bottleneck": {"attention": False},
    "transformer": {"cell": "transformer", "layers": 2, "heads": 2},
    "transformer_bottleneck": {"cell": "transformer", "attention": False, "heads": 2},
}
LISTS = torch.tensor(
    [[3, 1, 4, 15, 9], [2, 6, 0, 0, 0], [5, 5, 5, 8, 0], [0, 0, 0, 0, 0], [7, 0, 0, 0, 0]]
)


def config_of(**settings: Any) -> Seq2SeqConfig:
    return Seq2SeqConfig(**{"width": 6, "hidden": 8, "max_length": LONGEST, **settings})


def built(**settings: Any) -> Seq2Seq:
    torch.manual_seed(0)
    return Seq2Seq(config_of(**settings), N_ITEMS).double().eval()


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> Seq2Seq:
    return built(**KINDS[request.param])


@torch.no_grad()
def test_one_vector_a_list_and_bad_lists_are_defined(model: Seq2Seq) -> None:
    assert isinstance(model, Embedder)
    z = model.embed(LISTS)
    assert z.shape == (5, model.embedding_width) == (5, 8)
    assert z.isfinite().all()
    assert (z[3] == 0).all() and (z[4] != 0).any()  # empty, one song
    assert (z[2] != model.embed(torch.tensor([[5, 8]]))[0]).any()  # a duplicate counts twice
    assert model.embed(LISTS[:, :0]).tolist() == [[0.0] * 8] * 5
    assert model.embed(LISTS[:0]).shape == (0, 8)


@torch.no_grad()
def test_padding_and_neighbours_leave_the_vector_unchanged(model: Seq2Seq) -> None:
    z = model.embed(LISTS)
    for padding in ((0, 7), (7, 0), (3, 4)):
        wider = torch.nn.functional.pad(LISTS, padding)
        torch.testing.assert_close(model.embed(wider), z, atol=1e-12, rtol=0)
        mask = wider > 0
        wider[~mask] = 7  # a mask that is given is believed
        torch.testing.assert_close(model.embed(wider, mask), z, atol=1e-12, rtol=0)
    for row, size in enumerate((5, 2, 4, 0, 1)):
        alone = model.embed(LISTS[row : row + 1, :size])
        torch.testing.assert_close(alone[0], z[row], atol=1e-12, rtol=0)


@torch.no_grad()
def test_of_a_long_list_the_newest_are_read(model: Seq2Seq) -> None:
    long = torch.arange(1, LONGEST + 4)[None]
    torch.testing.assert_close(model.embed(long), model.embed(long[:, 3:]), atol=1e-12, rtol=0)
    assert (model.embed(long) - model.embed(long[:, :-3])).abs().max() > 1e-6


@torch.no_grad()
def test_order_matters_to_it(model: Seq2Seq) -> None:
    assert (model.embed(LISTS[:1]) - model.embed(LISTS[:1].flip(1))).abs().max() > 1e-4


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@torch.no_grad()
def test_reversed_lists_and_swapped_directions_swap_the_halves(cell: Any) -> None:
    torch.manual_seed(0)
    encoder = RecurrentEncoder(cell, 6, 8, 1, 0.0, bidirectional=True).double()
    swapped = RecurrentEncoder(cell, 6, 8, 1, 0.0, bidirectional=True).double()
    state = encoder.state_dict()
    swapped.load_state_dict(
        {
            name: state[name.removesuffix("_reverse") if "_reverse" in name else f"{name}_reverse"]
            for name in state
        }
    )
    songs, lengths = torch.randn(3, 5, 6).double(), torch.tensor([5, 5, 5])
    z, other = encoder(songs, lengths)[1], swapped(songs.flip(1), lengths)[1]
    torch.testing.assert_close(z[:, :4], other[:, 4:], atol=1e-12, rtol=0)
    torch.testing.assert_close(z[:, 4:], other[:, :4], atol=1e-12, rtol=0)


def test_compact_keeps_order_and_drops_what_is_masked() -> None:
    items = torch.tensor([[0, 4, 0, 2, 9], [1, 2, 3, 4, 5]])
    mask = torch.tensor([[True, True, True, True, False], [True] * 5])
    packed, lengths = compact(items, mask, 3)
    assert packed.tolist() == [[4, 2, 0], [3, 4, 5]]
    assert lengths.tolist() == [2, 3]


@torch.no_grad()
def test_lists_are_written_as_teacher_forcing_says(model: Seq2Seq) -> None:
    """Step by step or all at once, the queries are the same; the first is that of `score`."""
    histories = [[3, 1, 4], [2], [6, 5, 3, 5]]
    batch = batch_from_lists(histories, None, LONGEST)
    chosen = torch.tensor([[7, 9, 1], [1, 1, 2], [20, 3, 8]])
    state, queries = model.start(batch), []
    torch.testing.assert_close(model.score_next(state), model.score(batch))
    for place in range(3):
        queries.append(state.query)
        state = model.step(state, chosen[:, place])
    items, lengths = compact(
        torch.nn.utils.rnn.pad_sequence([torch.tensor(h) for h in histories], batch_first=True),
        None,
        LONGEST,
    )
    inputs = torch.cat([torch.tensor([[h[-1]] for h in histories]), chosen[:, :-1]], 1)
    written = model.write(items, lengths, inputs)  # [B, 3, D]
    torch.testing.assert_close(torch.stack(queries, 1), written, atol=1e-10, rtol=0)
    picked = state.select(torch.tensor([2, 0]))
    again = model.step(picked, torch.tensor([4, 4])).query
    torch.testing.assert_close(again, model.step(state, torch.tensor([4, 4, 4])).query[[2, 0]])


@torch.inference_mode()
def test_a_beam_as_wide_as_the_catalogue_finds_the_best_pair(model: Seq2Seq) -> None:
    """Of two songs each, as many lists as songs miss nothing: the best of all pairs is found."""
    model, histories = model.float(), [[3, 1, 4], []]
    settings = SearchSettings(
        groups=1, beams=N_ITEMS, candidates=N_ITEMS, sets=False, repeats=True, log_z="exact"
    )
    found = search(Catalogue(model), batch_from_lists(histories, None, LONGEST), 2, settings)
    for row, history in enumerate(histories):
        state = model.start(batch_from_lists([history], None, LONGEST))
        songs = torch.arange(1, N_ITEMS + 1)
        rest = model.step(state.select(torch.zeros_like(songs)), songs)
        first = model.score_next(state)[0, 1:].log_softmax(0)
        pairs = first[:, None] + model.score_next(rest)[:, 1:].log_softmax(1)  # [V, V]
        assert found.log_probability[row].max() == pytest.approx(float(pairs.max()), abs=1e-5)
        best = int(found.log_probability[row].argmax())
        one, two = (found.items[row, best] - 1).tolist()
        assert float(pairs[one, two]) == pytest.approx(float(pairs.max()), abs=1e-5)


def training_batch(lists: list[list[int]]) -> SequenceBatch:
    """A batch of windows as training makes them: inputs, and the next item as each place's target."""
    from dataclasses import replace

    batch = batch_from_lists([one[:-1] for one in lists], None, LONGEST)
    targets = torch.zeros_like(batch.items).flatten()
    for row, one in enumerate(lists):
        last = int(batch.last[row])
        targets[last - len(one) + 2 : last + 1] = torch.tensor(one[1:])
    places = (targets > 0).nonzero()[:, 0]
    return replace(batch, targets=targets.view_as(batch.items), target_places=places)


def test_windows_become_whole_lists() -> None:
    lists = [[3, 1, 4, 15], [2, 6], [5, 5, 5]]
    items, lengths = whole_lists(training_batch(lists))
    assert lengths.tolist() == [4, 2, 3]
    assert [row[:n] for row, n in zip(items.tolist(), lengths, strict=True)] == lists


class Recorded(Softmax):
    """The full softmax, which remembers what it was asked."""

    def forward(self, queries: Tensor, targets: Tensor, table: Tensor) -> Tensor:
        self.targets, self.table = targets, table
        return super().forward(queries, targets, table)


def test_what_is_written_is_the_list_and_its_end_or_the_rest_of_it() -> None:
    lists, model = [[3, 1, 4, 15], [2, 6], [5, 5, 5]], built()
    batch = training_batch(lists)
    again = ListWriting(loss := Recorded(), "reconstruct")
    again(model, batch, 0.0).backward()
    ended = [[*one, N_ITEMS + 1] for one in lists]
    assert loss.targets.tolist() == [item for one in ended for item in one]
    assert loss.table.shape == (N_ITEMS + 2, 6)
    rest = ListWriting(loss := Recorded(), "continue")
    ends = {tuple(one[cut:]) for one in lists for cut in range(len(one))}
    for seed in range(20):
        rest.reseed(seed)
        rest(model, batch, 0.0)
        written = loss.targets.tolist()
        found = []
        for one in lists:  # each list's rest: the longest end of it that stands here
            size = max(n for n in range(1, len(one) + 1) if written[:n] == one[-n:])
            found.append(tuple(written[:size]))
            written = written[size:]
        assert not written
        assert set(found) <= ends
    assert list_counts(torch.tensor([0, 3, 2]).numpy(), 4).tolist() == [0, 3, 2, 4]


def test_gradients_are_numbers_and_pad_gets_none(model: Seq2Seq) -> None:
    model.train()
    ListWriting(Softmax(), "both")(model, training_batch([[3, 1], [2, 6, 4]]), 0.0).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    table = model.item_table.weight.grad
    assert table is not None and (table[0] == 0).all() and (table[3] != 0).any()


@pytest.mark.parametrize("kind", ["bi", "bottleneck", "transformer"])
def test_it_overfits_32_lists_to_perfect_reconstruction(kind: str) -> None:
    torch.manual_seed(0)
    settings = {"hidden": 64, "width": 32, "dropout": 0.0, "task": "reconstruct", **KINDS[kind]}
    model = Seq2Seq(config_of(**settings), N_ITEMS)
    lists = torch.randint(1, N_ITEMS + 1, (32, 7))
    batch, objective = training_batch(lists.tolist()), ListWriting(Softmax(), "reconstruct")
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(250):
        optimizer.zero_grad()
        objective(model, batch, 0.0).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    inputs = torch.nn.functional.pad(lists, (1, 0))
    queries = model.write(lists, torch.full((32,), 7), inputs)
    written = (queries @ model.outputs()[1:].T).argmax(2) + 1  # [32, 8]
    assert torch.equal(written[:, :-1], lists)
    assert (written[:, -1] == N_ITEMS + 1).all()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"hidden": 9}, "hidden .9. must be even"),
        ({"cell": "transformer", "hidden": 6, "heads": 4}, "multiple of heads"),
        (
            {"training": TrainingConfig(repeats="mask")},
            "training.repeats is mask.*leave it at keep",
        ),
        ({"training": TrainingConfig(objective="next_basket")}, "use next_event, or rest_set"),
        ({"training": TrainingConfig(recency_half_life=3)}, "leave it out"),
        ({"learn_songs": False}, "set song_vectors"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        config_of(**settings)
