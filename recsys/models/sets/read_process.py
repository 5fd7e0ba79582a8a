"""Read and process: a set by repeated attention (Vinyals, Bengio and Kudlur 2015, arXiv 1511.06391).

Read: m_i = MLP(x_i). Process, for T steps from zero states and without any input:

    q_t = LSTM([q ; r] of the step before)
    r_t = sum_i a_i m_i,    a = softmax_i(m_i . q_t)

and the set is [q_T ; r_T], the same whatever the items' order. `recsys.models.sets.pointer` writes.

Shapes: B sets, n places, I inputs, H hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recsys.models.sets.contract import SetEncoder, seen


class ReadProcess(nn.Module):
    """The set as a memory and as a context."""

    def __init__(self, inputs: int, hidden: int, steps: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.steps = steps
        self.read = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden))
        self.cell = nn.LSTMCell(2 * hidden, hidden)

    def forward(self, vectors: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return `(memory [B, n, H], context [B, 2 H])`; with no steps the context is zero.

        Args:
            vectors: float [B, n, I].
            mask: bool [B, n], False at padding; an empty set reads 0.
        """
        memory: Tensor = self.read(vectors)
        return memory, self.process(memory, mask)

    def process(self, memory: Tensor, mask: Tensor) -> Tensor:
        """Return the context after all steps, float [B, 2 H]."""
        context = memory.new_zeros(len(memory), 2 * self.hidden)
        state = memory.new_zeros(len(memory), self.hidden)
        hidden_away = ~seen(mask)
        real = mask.any(1, keepdim=True)
        for _ in range(self.steps):
            query, state = self.cell(context, (context[:, : self.hidden], state))
            scores = torch.bmm(memory, query[:, :, None])[:, :, 0]  # [B, n]
            weights = scores.masked_fill(hidden_away, -torch.inf).softmax(1) * real
            read = torch.bmm(weights[:, None], memory)[:, 0]  # [B, H]
            context = torch.cat([query, read], 1)
        return context


class ReadProcessSet(SetEncoder):
    """The context, query and reading of half the width each."""

    def __init__(self, n_items: int, width: int, steps: int) -> None:
        super().__init__(n_items, width)
        self.read_process = ReadProcess(width, width // 2, steps)

    def pool(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Return the context, float [B, D]."""
        context: Tensor = self.read_process(vectors, mask)[1]
        return context
