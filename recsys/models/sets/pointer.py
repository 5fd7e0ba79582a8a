"""Writing by pointing: an LSTM that puts the places of a memory into an order.

The pointer network of Vinyals, Fortunato and Jaitly (2015, arXiv 1506.03134) with the glimpses of
Vinyals, Bengio and Kudlur (2015, arXiv 1511.06391), whose equations were never printed; we take

    g_t = LSTM(memory of what was chosen last, g_{t-1})            from a state made of the context
    a = softmax_i(v . tanh(W1 m_i + W2 g_t)),    g'_t = sum_i a_i m_i                   (a glimpse)
    u_i = v' . tanh(W3 m_i + W4 [g_t ; g'_t]),    p = softmax(u) over what is not chosen yet

A further glimpse is taken with the last one in g_t's place; without any, W4 takes g_t alone. Since no
glimpse enters g, teacher forcing runs all steps at once.

Shapes: B sets, n places, L steps, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

LOG_NONE = -1e30
"""Log-probability of a place that may not be chosen."""


class Additive(nn.Module):
    """Scores v . tanh(A m_i + B q_t) of every place for every step."""

    def __init__(self, hidden: int, query: int) -> None:
        super().__init__()
        self.of_memory = nn.Linear(hidden, hidden, bias=False)
        self.of_query = nn.Linear(query, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(self, memory: Tensor, queries: Tensor) -> Tensor:
        """Return float [B, L, n] of a memory [B, n, H] and queries [B, L, Q]."""
        both = self.of_memory(memory)[:, None] + self.of_query(queries)[:, :, None]  # [B, L, n, H]
        scores: Tensor = self.score(torch.tanh(both))[..., 0]
        return scores


class PointerWriter(nn.Module):
    """Writes an order of the memory's places, one after another.

    With `repeats` nothing keeps it from choosing a place again: it must learn that, too. (Without, to
    sort is to have one score that falls as the numbers rise, and needs neither state nor context.)
    """

    def __init__(
        self, hidden: int, context: int, glimpses: int = 1, *, repeats: bool = False
    ) -> None:
        super().__init__()
        self.glimpses = glimpses
        self.repeats = repeats
        self.first = nn.Parameter(torch.zeros(hidden))
        self.state = nn.Linear(context, 2 * hidden)
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.glimpse = Additive(hidden, hidden) if glimpses else None
        self.pointer = Additive(hidden, 2 * hidden if glimpses else hidden)

    def forward(self, memory: Tensor, mask: Tensor, context: Tensor, order: Tensor) -> Tensor:
        """Return log-probabilities float [B, L, n] of each step's place, given the places before.

        Chosen and padded places have `LOG_NONE`; so has everything once nothing is left.

        Args:
            memory: float [B, n, H].
            mask: bool [B, n], False at padding.
            context: float [B, C].
            order: int64 [B, L], the places that are chosen; the last is only aimed at.
        """
        length, hidden = order.shape[1], memory.shape[2]
        if length == 0:
            return memory.new_zeros(len(memory), 0, memory.shape[1])
        chosen = memory.gather(1, order[:, :-1, None].expand(-1, -1, hidden))  # [B, L - 1, H]
        first = self.first.expand(len(memory), 1, hidden)
        states, _ = self.lstm(torch.cat([first, chosen], 1), self.start(context))  # [B, L, H]
        marks = torch.nn.functional.one_hot(order, memory.shape[1]).cumsum(1)  # [B, L, n]
        before = torch.nn.functional.pad(marks[:, :-1], (0, 0, 1, 0)) > 0
        free = mask[:, None] & ~before if not self.repeats else mask[:, None].expand_as(before)
        return self.log_probabilities(memory, states, free, mask)

    def start(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first state of the LSTM, `(h [1, B, H], c [1, B, H])`, of a context [B, C]."""
        h, c = self.state(context).chunk(2, dim=1)
        return torch.tanh(h)[None].contiguous(), c[None].contiguous()

    def log_probabilities(
        self, memory: Tensor, states: Tensor, free: Tensor, mask: Tensor
    ) -> Tensor:
        """Return log p [B, L, n] of the places for states [B, L, H]; `free` is bool [B, L, n].

        Glimpses read all real places, chosen or not.
        """
        query = states
        if self.glimpse is not None:
            some = mask.any(1)[:, None, None]
            for _ in range(self.glimpses):
                read = self.glimpse(memory, query).masked_fill(~mask[:, None], LOG_NONE)
                query = torch.bmm(read.softmax(2) * some, memory)  # [B, L, H]
            query = torch.cat([states, query], 2)
        scores: Tensor = self.pointer(memory, query).masked_fill(~free, LOG_NONE)
        log_p = scores.log_softmax(2).masked_fill(~free, LOG_NONE)
        return log_p

    @torch.no_grad()
    def write(self, memory: Tensor, mask: Tensor, context: Tensor) -> Tensor:
        """Return the order that is likeliest step by step, int64 [B, n]; padded places come last.

        Equal probabilities: the earlier place. With `repeats` it may not be an order.
        """
        places = torch.arange(memory.shape[1], device=memory.device)
        free, order = mask.clone(), places.repeat(len(memory), 1)
        state = self.start(context)
        step = self.first.expand(len(memory), 1, -1)
        for t in range(memory.shape[1]):
            states, state = self.lstm(step, state)
            log_p = self.log_probabilities(memory, states, free[:, None], mask)[:, 0]  # [B, n]
            # When nothing is left, the padded places follow in their order.
            going_on = t < mask.sum(1, keepdim=True)
            left = torch.where(going_on, free, ~mask & ~self._written(order, t))
            pick = log_p.masked_fill(~left, -torch.inf).argmax(1, keepdim=True)
            order[:, t : t + 1] = pick
            free = free if self.repeats else free.scatter(1, pick, False)
            step = memory.gather(1, pick[:, :, None].expand(-1, -1, memory.shape[2]))
        return order

    @staticmethod
    def _written(order: Tensor, count: int) -> Tensor:
        """Tell which places are among the first `count` of each order, bool [B, n]."""
        return torch.zeros_like(order, dtype=torch.bool).scatter(1, order[:, :count], True)

    def scorer(
        self, memory: Tensor, mask: Tensor, context: Tensor
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the decoder of these sets as losses of orders want it (`recsys.losses.order.Scorer`)."""

        def score(prefix: Tensor, rows: Tensor) -> Tensor:
            aimed = torch.nn.functional.pad(prefix, (0, 1))
            log_p: Tensor = self(memory[rows], mask[rows], context[rows], aimed)
            return log_p

        return score
