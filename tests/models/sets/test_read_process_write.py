"""Read-Process-Write: its oracles, and that it learns to sort."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recsys.losses.order import every_order, in_order
from recsys.losses.order_search import OrderSearch
from recsys.models.sets.pointer import LOG_NONE, PointerWriter
from recsys.models.sets.read_process import ReadProcess

HIDDEN, N = 6, 5
GLIMPSES = pytest.mark.parametrize("glimpses", [0, 1, 2])


def parts(steps: int = 3, glimpses: int = 1) -> tuple[ReadProcess, PointerWriter]:
    torch.manual_seed(0)
    return (
        ReadProcess(2, HIDDEN, steps).double(),
        PointerWriter(HIDDEN, 2 * HIDDEN, glimpses).double(),
    )


def sets() -> tuple[Tensor, Tensor]:
    """Return `(vectors [3, 5, 2], mask)` of sets of five, three and no things."""
    make = torch.Generator().manual_seed(1)
    mask = torch.arange(N) < torch.tensor([[5], [3], [0]])
    return torch.randn(3, N, 2, generator=make, dtype=torch.float64), mask


ORDER = torch.tensor([[3, 1, 4, 0, 2], [2, 0, 1, 3, 4], [0, 1, 2, 3, 4]])


@torch.no_grad()
def test_the_context_does_not_depend_on_the_order() -> None:
    reader, _ = parts()
    vectors, mask = sets()
    memory, context = reader(vectors, mask)
    for seed in range(5):
        order = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
        shuffled, same = reader(vectors[:, order], mask[:, order])
        torch.testing.assert_close(same, context, atol=1e-12, rtol=0)
        torch.testing.assert_close(shuffled, memory[:, order], atol=1e-12, rtol=0)


@torch.no_grad()
def test_an_lstm_of_zeros_reads_the_mean() -> None:
    reader, _ = parts()
    for parameter in reader.cell.parameters():
        parameter.zero_()
    vectors, mask = sets()
    memory, context = reader(vectors, mask)
    assert (context[:, :HIDDEN] == 0).all()
    for row, size in enumerate((5, 3)):
        torch.testing.assert_close(
            context[row, HIDDEN:], memory[row, :size].mean(0), atol=1e-12, rtol=0
        )
    assert (context[2] == 0).all()


@torch.no_grad()
def test_one_thing_is_what_is_read() -> None:
    reader, _ = parts()
    vectors, _ = sets()
    memory, context = reader(vectors[:, :1], torch.ones(3, 1).bool())
    torch.testing.assert_close(context[:, HIDDEN:], memory[:, 0], atol=1e-12, rtol=0)


@torch.no_grad()
def test_an_empty_set_reads_nothing() -> None:
    reader, _ = parts()
    vectors, mask = sets()
    _, context = reader(vectors, mask)
    assert context.isfinite().all()
    assert (context[2, HIDDEN:] == 0).all()


@torch.no_grad()
def test_process_by_hand() -> None:
    reader, _ = parts(steps=2)
    vectors, mask = sets()
    memory, context = reader(vectors[:1], mask[:1])
    query = read = state = torch.zeros(1, HIDDEN, dtype=torch.float64)
    for _ in range(2):
        query, state = reader.cell(torch.cat([query, read], 1), (query, state))
        read = (memory[0] @ query[0]).softmax(0)[None] @ memory[0]
    torch.testing.assert_close(context, torch.cat([query, read], 1), atol=1e-12, rtol=0)


@torch.no_grad()
def test_without_steps_the_first_state_does_not_see_the_set() -> None:
    reader, writer = parts(steps=0, glimpses=0)
    vectors, mask = sets()
    _, context = reader(vectors, mask)
    assert (context == 0).all()
    h, c = writer.start(context)
    assert (h[0] == h[0, :1]).all() and (c[0] == c[0, :1]).all()
    more, _ = parts(steps=1)
    start = writer.start(more(vectors, mask)[1])[0]
    assert (start[0, 0] - start[0, 1]).abs().max() > 1e-6


@GLIMPSES
@torch.no_grad()
def test_probabilities_move_with_the_places(glimpses: int) -> None:
    reader, writer = parts(glimpses=glimpses)
    vectors, mask = sets()
    log_p = writer(*with_mask(reader, vectors, mask), ORDER)
    assert log_p.shape == (3, N, N)
    for seed in range(4):
        to = torch.randperm(N, generator=torch.Generator().manual_seed(seed))
        where = to.argsort()  # place i is now at where[i]
        again = writer(*with_mask(reader, vectors[:, to], mask[:, to]), where[ORDER])
        torch.testing.assert_close(again, log_p[:, :, to], atol=1e-10, rtol=1e-12)


def with_mask(reader: ReadProcess, vectors: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    memory, context = reader(vectors, mask)
    return memory, mask, context


@GLIMPSES
@torch.no_grad()
def test_what_is_chosen_or_padding_has_no_probability(glimpses: int) -> None:
    reader, writer = parts(glimpses=glimpses)
    vectors, mask = sets()
    log_p = writer(*with_mask(reader, vectors, mask), ORDER)
    for row, size in enumerate((5, 3)):
        for t in range(size):
            left = ORDER[row, t:size].tolist()
            gone = [place for place in range(N) if place not in left]
            assert (log_p[row, t, gone] == LOG_NONE).all()
            assert log_p[row, t].exp().sum().item() == pytest.approx(1)
    assert log_p.isfinite().all()
    assert (log_p[2] == LOG_NONE).all()


@GLIMPSES
@torch.no_grad()
def test_writing_is_an_order_and_the_likeliest_of_each_step(glimpses: int) -> None:
    reader, writer = parts(glimpses=glimpses)
    vectors, mask = sets()
    given = with_mask(reader, vectors, mask)
    order = writer.write(*given)
    assert order.sort(1).values.tolist() == [list(range(N))] * 3
    assert sorted(order[1, :3].tolist()) == [0, 1, 2]
    assert order[1, 3:].tolist() == [3, 4] and order[2].tolist() == list(range(N))
    forced = writer(*given, order)  # one step at a time and all at once are the same
    assert forced[0].argmax(1).tolist() == order[0].tolist()
    assert forced[1, :3].argmax(1).tolist() == order[1, :3].tolist()


@torch.no_grad()
def test_with_repeats_nothing_but_padding_is_ruled_out() -> None:
    torch.manual_seed(0)
    reader, _ = parts()
    writer = PointerWriter(HIDDEN, 2 * HIDDEN, 1, repeats=True).double()
    vectors, mask = sets()
    given = with_mask(reader, vectors, mask)
    log_p = writer(*given, ORDER)
    assert (log_p[0] > LOG_NONE).all() and (log_p[1, :, :3] > LOG_NONE).all()
    assert (log_p[1, :, 3:] == LOG_NONE).all()
    written = writer.write(*given)
    forced = writer(*given, written)
    assert forced[0].argmax(1).tolist() == written[0].tolist()
    assert written[1, 3:].tolist() == [3, 4]


@torch.no_grad()
def test_padding_may_stand_anywhere() -> None:
    reader, writer = parts()
    vectors, mask = sets()
    to = torch.tensor([3, 0, 4, 2, 1])
    order = writer.write(*with_mask(reader, vectors[:, to], mask[:, to]))
    plain = writer.write(*with_mask(reader, vectors, mask))
    assert to[order][:2, :3].tolist() == plain[:2, :3].tolist()
    assert order[1, 3:].tolist() == [0, 2]


@torch.no_grad()
def test_a_pointer_step_by_hand() -> None:
    reader, writer = parts()
    vectors, mask = sets()
    memory, mask, context = with_mask(reader, vectors[:1], mask[:1])
    (h,), (c,) = writer.start(context)
    gates = [getattr(writer.lstm, f"{name}_l0") for name in ("weight_ih", "weight_hh")]
    biases = [getattr(writer.lstm, f"{name}_l0") for name in ("bias_ih", "bias_hh")]
    state, _ = torch._VF.lstm_cell(writer.first[None], (h, c), *gates, *biases)
    glimpse, pointer = writer.glimpse, writer.pointer
    assert glimpse is not None

    def additive(part: torch.nn.Module, query: Tensor) -> Tensor:
        each = [part.of_memory(m) + part.of_query(query[0]) for m in memory[0]]  # type: ignore[operator]
        return torch.stack([part.score(torch.tanh(one))[0] for one in each])  # type: ignore[operator]

    weights = additive(glimpse, state).softmax(0)
    scores = additive(pointer, torch.cat([state, weights[None] @ memory[0]], 1))
    log_p = writer(memory, mask, context, ORDER[:1])
    torch.testing.assert_close(log_p[0, 0], scores.log_softmax(0), atol=1e-12, rtol=0)


def test_it_is_a_decoder_for_losses_of_orders() -> None:
    reader, writer = parts()
    vectors, mask = sets()
    given = with_mask(reader, vectors, mask)
    score = writer.scorer(*given)
    losses = in_order(score, ORDER, mask)
    log_p = writer(*given, ORDER).gather(2, ORDER[:, :, None])[:, :, 0]
    torch.testing.assert_close(losses, -(log_p * mask).sum(1))
    # Every place is written once, so all orders together are certain.
    torch.testing.assert_close(every_order(score, ORDER, mask), torch.zeros(3).double())
    search = OrderSearch("sampled", warm_up=0)
    loss = search.loss(score, ORDER, mask, 0, torch.Generator().manual_seed(0)).sum()
    loss.backward()
    for part in (reader, writer):
        assert all(p.grad is None or p.grad.isfinite().all() for p in part.parameters())


def test_it_learns_to_sort_three_numbers() -> None:
    torch.manual_seed(0)
    reader, writer = ReadProcess(1, 16, 2), PointerWriter(16, 32, 1)
    parameters = [*reader.parameters(), *writer.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    make = torch.Generator().manual_seed(0)

    def draw(count: int) -> tuple[Tensor, Tensor, Tensor]:
        numbers = torch.rand(count, 3, generator=make)
        return numbers[:, :, None], torch.ones(count, 3).bool(), numbers.argsort(1)

    for _ in range(300):
        vectors, mask, order = draw(64)
        log_p = writer(*with_mask(reader, vectors, mask), order)
        loss = F.nll_loss(log_p.flatten(0, 1), order.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    vectors, mask, order = draw(500)
    with torch.no_grad():
        written = writer.write(*with_mask(reader, vectors, mask))
    assert (written == order).all(1).float().mean() > 0.85  # by chance: 1/6
