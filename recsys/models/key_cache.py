"""Keys and values kept while lists grow, so that a step computes the new places alone.

The lists of one history share the history's part, which is computed once and never copied or
reordered; each list has a part of its own for the items chosen so far, one tensor, reordered by one
`index_select`. All lists of a history attend together: their queries stand in one row, over the
history's keys and everybody's own, and a mask lets each list see its own only.

Shapes: N histories of L places, n lists a history, B = N * n lists of S chosen items, T new places,
H heads of width E, M = 2 * blocks tensors (keys and values of each block).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recsys.models.generation import GenerationState


@dataclass(frozen=True)
class CachedState(GenerationState):
    """A state with keys and values. Rows of one history stand together, and all have equally many.

    Attributes:
        history: int64 [N, L], filled up with 0 at the right.
        lengths: int64 [N].
        past: M tensors [N, H, L, E].
        chosen: int64 [B, S].
        own: [M, B, S, H, E].
        lists: n.
    """

    history: Tensor
    lengths: Tensor
    past: tuple[Tensor, ...]
    chosen: Tensor
    own: Tensor
    lists: int = 1

    @classmethod
    def of_histories(
        cls, query: Tensor, items: Tensor, lengths: Tensor, past: list[Tensor]
    ) -> CachedState:
        """Return the state of one list a history, with nothing chosen yet."""
        rows, heads, _, width = past[0].shape
        own = past[0].new_zeros(len(past), rows, 0, heads, width)
        return cls(query, items, lengths, tuple(past), items[:, :0], own)

    def select(self, rows: Tensor) -> CachedState:
        """See `GenerationState.select`; the histories' part stays where every history has as many."""
        lists = len(rows) // max(1, len(self.history))
        home = rows // self.lists  # [B'] the history of each new row
        wanted = torch.arange(len(self.history), device=rows.device).repeat_interleave(lists)
        own = self.own.index_select(1, rows)
        if len(rows) == len(wanted) and lists and torch.equal(home, wanted):
            return replace(
                self, query=self.query[rows], chosen=self.chosen[rows], own=own, lists=lists
            )
        past = tuple(tensor[home] for tensor in self.past)
        return CachedState(
            self.query[rows], self.history[home], self.lengths[home], past, self.chosen[rows], own
        )

    def spread(self, like: CachedState) -> CachedState:
        """Return this state of one list a history for as many lists as `like` has."""
        own = self.own.new_zeros(len(self.own), len(like), *self.own.shape[2:])
        return replace(self, own=own, chosen=like.chosen[:, :0], lists=like.lists)

    def grown(self, which: int, new: Tensor) -> Tensor:
        """Return the lists' own keys (or values) with new ones [B, H, T, E] behind, [B, S + T, H, E]."""
        return torch.cat([self.own[which], new.transpose(1, 2)], dim=1)

    def joined(self, which: int, own: Tensor) -> Tensor:
        """Return the history's keys (or values) before those of its lists, [N, H, L + n * S, E]."""
        past = self.past[which]
        mine = own.reshape(len(past), -1, *own.shape[2:]).transpose(1, 2)  # [N, H, n * S, E]
        return torch.cat([past, mine], dim=2)

    def by_history(self, queries: Tensor) -> Tensor:
        """Put queries [B, H, T, E] of all lists of a history into one row, [N, H, n * T, E]."""
        rows, heads, new, width = queries.shape
        split = queries.view(rows // self.lists, self.lists, heads, new, width)
        return split.transpose(1, 2).reshape(-1, heads, self.lists * new, width)

    def extended(self, query: Tensor, chosen: Tensor, own: list[Tensor]) -> CachedState:
        """Return the state with more items chosen, their keys and values among `own`."""
        return replace(self, query=query, chosen=chosen, own=torch.stack(own))


def shared_mask(state: CachedState, new: int) -> Tensor:
    """Return which keys the newest `new` places of every list see, bool [N, 1, n * T, L + n * S].

    S counts the new places. A place sees its history, and of its own list what is not newer.
    """
    device, lists = state.history.device, state.lists
    n, length = state.history.shape
    total = state.own.shape[2] + new
    place = torch.arange(total, device=device)
    causal = place[-new:, None] >= place  # [T, S]
    alone = torch.eye(lists, dtype=torch.bool, device=device)
    own = (alone[:, None, :, None] & causal[None, :, None]).reshape(lists * new, lists * total)
    past = torch.arange(length, device=device) < state.lengths[:, None]  # [N, L]
    rows = lists * new
    parts = [past[:, None].expand(n, rows, length), own.expand(n, rows, lists * total)]
    return torch.cat(parts, dim=2)[:, None]
