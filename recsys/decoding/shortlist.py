"""The candidates of every list's next place, and where they come from.

Shapes: R lists, C candidates, D width, V items.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.data.sequences import Int64
from recsys.errors import DataError
from recsys.models.contract import EncoderModel
from recsys.models.generation import GenerationState, Generator, ReencodedState
from recsys.retrieval.blocks import block_rows
from recsys.retrieval.exclusion import Exclusion, Histories, check_history_items
from recsys.retrieval.index import Index
from recsys.retrieval.rescore import joined
from recsys.retrieval.topk import TILE, ClosedColumns, best_of_tiles, tiles_width, topk_rows
from recsys.schema import PAD

Float32 = npt.NDArray[np.float32]
SAFE_LOGIT = 60.0
"""The sum of a billion exponentials of this is still a float32."""


@dataclass(frozen=True)
class Shortlist:
    """Candidates, by item in every row so that an item is found by bisection.

    Attributes:
        ids: int64 [R, C] ascending; places without a candidate hold n_items + 1 and more.
        scores: float32 [R, C], logits of the current step; -inf where there is no candidate.
        complete: every item that the rules permit is a candidate.
        span: above all ids by more than one: -1, for no item, is then found in no row.
    """

    ids: Int64
    scores: Float32
    complete: bool
    span: int

    @classmethod
    def of_found(cls, items: Tensor, scores: Tensor, n_items: int, complete: bool) -> Shortlist:
        """Sort what a search found [R, C], -1 for nothing; an item that was found twice stays once."""
        found = items.numpy()
        width = found.shape[1]
        nothing = n_items + 1 + np.arange(width)
        ids = np.where(found < 1, nothing, found)
        order = np.argsort(ids, axis=1, kind="stable")
        row = np.arange(len(ids))[:, None]
        ids, values = ids[row, order], scores.numpy()[row, order]
        values[:, 1:][ids[:, 1:] == ids[:, :-1]] = -np.inf
        values[ids > n_items] = -np.inf
        return cls(ids, values, complete, n_items + 2 + width)

    @property
    def known(self) -> Int64:
        """The candidates int64 [R, C], PAD where there is none."""
        return np.where(np.isneginf(self.scores), PAD, self.ids)

    def find(self, items: Int64) -> Int64:
        """Return the columns of items [R, E], int64 [R, E]; -1 where one is no candidate."""
        rows, width = self.ids.shape
        row = np.arange(rows, dtype=np.int64)[:, None] * self.span
        flat = (self.ids + row).ravel()
        wanted = (items + row).ravel()
        place = np.minimum(np.searchsorted(flat, wanted), max(0, flat.size - 1))
        hit = (flat[place] == wanted) if flat.size else np.zeros(wanted.shape, dtype=bool)
        # Of an item that was found twice bisection gives the first place, which is the live one.
        return np.where(hit, place % max(width, 1), -1).reshape(items.shape)

    def select(self, rows: Int64) -> Shortlist:
        """Return these rows' candidates."""
        return Shortlist(self.ids[rows], self.scores[rows], self.complete, self.span)

    def rescored(self, scores: Float32) -> Shortlist:
        """Return the same candidates with the scores of another step."""
        values = np.where(np.isneginf(self.scores), -np.inf, scores).astype(np.float32)
        return Shortlist(self.ids, values, self.complete, self.span)


@dataclass(frozen=True)
class Closed:
    """What rows of a search must not hold.

    Attributes:
        forbidden: one ascending array of items for each of N requests.
        allowed: if given, only these items, for all of them.
    """

    forbidden: list[Int64]
    allowed: Int64 | None = None

    def of_rows(self, requests: Int64) -> tuple[Exclusion, Histories]:
        """Return rule and closed items of rows, from the request of each, int64 [R]."""
        rule, closed = self._packed
        return rule, Histories(closed.values, closed.start[requests], closed.end[requests])

    @cached_property
    def _packed(self) -> tuple[Exclusion, Histories]:
        return Exclusion(allowed=self.allowed), Histories.from_lists(self.forbidden)

    def n_permitted(self, n_items: int) -> int:
        """Return the most items that any of the requests may be shown."""
        base = n_items if self.allowed is None else len(self.allowed)
        if self.allowed is None:
            return base - min(map(len, self.forbidden), default=0)
        return max((len(np.setdiff1d(self.allowed, f)) for f in self.forbidden), default=base)


class Catalogue:
    """The items that a generator chooses from: searched by its query vector, scored exactly.

    Args:
        model: what makes lists.
        index: of its item vectors; None where every search scores all items.
    """

    def __init__(self, model: Generator, index: Index | None = None) -> None:
        self.model = model
        self.index = index
        self.n_items = model.n_items
        plain = isinstance(model, EncoderModel) and (
            model.is_inner_product and type(model).score_next is EncoderModel.score_next
        )
        # Rows of their own: the index keeps columns, and to gather single items from those takes
        # one cache line for every number.
        self.vectors = None if index is None else index.vectors.contiguous()
        self.table = self.vectors if plain else None
        self.longest = 0.0  # norm of any item vector
        if self.table is not None:
            self.longest = float(torch.linalg.vector_norm(self.table, dim=1).max())
        self.estimates: dict[int, object] = {}
        """Of log Z, by the size of their sample; see `recsys.decoding.normaliser`."""

    def whole(self, state: GenerationState) -> Tensor:
        """Return the logits of all items, float32 [R, n_items + 1], free to be overwritten."""
        if self.index is not None and self.table is not None:
            return checked_scores(self.logits_of(state.query) @ self.index.columns)
        scores = self.model.score_next(state).float().cpu()
        return checked_scores(scores.div(self.model.temperature))

    def rescore(self, state: GenerationState, ids: Int64) -> Tensor:
        """Return the logits of each row's own items int64 [R, C], float32 [R, C]."""
        items = torch.from_numpy(ids)
        if self.table is not None:
            queries = self.logits_of(state.query)[:, :, None]
            return torch.bmm(self.table[items], queries)[:, :, 0]
        scores = self.model.score_next(state, items.to(state.query.device)).float().cpu()
        return checked_scores(scores.div(self.model.temperature))

    def logits_of(self, queries: Tensor) -> Tensor:
        """Return queries on the CPU whose products with item vectors are logits."""
        return queries.float().cpu() / self.model.temperature

    def search(
        self, state: GenerationState, closed: Closed, lists: int, k: int
    ) -> tuple[Tensor, Tensor]:
        """Return the k best permitted items of every row and their logits, best first, -1 for none."""
        exclusion, histories = closed.of_rows(np.arange(len(state)) // max(1, lists))
        if self.index is None:
            return topk_rows(exclusion.mask_(self.whole(state), histories), k)
        queries = self.logits_of(state.query)
        items, scores = self.index.search(queries, k, exclusion, histories)
        if self.table is None:
            items = self._with_lifted(state, items, exclusion, histories)
            known = items.clamp(min=PAD).numpy()
            exact = self.rescore(state, known).masked_fill_(items < 0, -torch.inf)
            scores, order = exact.sort(dim=1, descending=True, stable=True)
            items, scores = items.gather(1, order)[:, :k], scores[:, :k]
        return items, scores

    def _with_lifted(
        self, state: GenerationState, items: Tensor, exclusion: Exclusion, histories: Histories
    ) -> Tensor:
        """Return the items found [R, k], and behind them those that the model lifts beyond a product."""
        if not isinstance(self.model, EncoderModel) or not isinstance(state, ReencodedState):
            return items
        lifted = self.model.lifted(state.windows.batch(), items.shape[1])
        if lifted is None:
            return items
        return torch.cat([items, joined(items, lifted.cpu(), exclusion, histories)], dim=1)

    def search_all(
        self,
        state: GenerationState,
        closed: Closed,
        requests: Int64,
        k: int,
        buffer: Buffer | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Do the same over all logits, and return log Z float64 [R], the log-sum of all items', too.

        `requests` int64 [R] are those of the rows.
        """
        exclusion, histories = closed.of_rows(requests)
        items = torch.empty(len(state), k, dtype=torch.int64)
        scores, log_z = torch.empty(len(state), k), torch.empty(len(state), dtype=torch.float64)
        step = block_rows(self.n_items + 1, len(state))
        for at in range(0, len(state), step):
            part = slice(at, at + step)
            rows = torch.arange(*part.indices(len(state)), device=state.query.device)
            some = state if step >= len(state) else state.select(rows)
            found = self._search_all(some, exclusion, histories[part], k, buffer or Buffer())
            items[part], scores[part], log_z[part] = found
        return items, scores, log_z

    def _search_all(
        self,
        state: GenerationState,
        exclusion: Exclusion,
        histories: Histories,
        k: int,
        buffer: Buffer,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the best k items and their logits, and log Z.

        Products are summed tile by tile while they are in the core's cache, which takes half the time of
        summing them afterwards. By Cauchy-Schwarz no logit is above the product of the norms; only
        where that could overflow is the maximum looked for first.
        """
        queries = self.logits_of(state.query)
        reach = float(torch.linalg.vector_norm(queries, dim=1).amax()) if len(queries) else 0.0
        if self.table is None or not reach * self.longest < SAFE_LOGIT:
            logits = self.whole(state)
            log_z = log_sum(logits)
            return (*topk_rows(exclusion.mask_(logits, histories), k), log_z)
        total = torch.zeros(len(queries), dtype=torch.float64)
        exponential = buffer.take(len(queries), TILE, "exponential")

        def add(tile: Tensor) -> None:
            part = exponential[:, : tile.shape[1]]
            np.exp(tile.numpy(), out=part.numpy())  # in half the time of torch.exp
            total.add_(part.sum(1))

        where = buffer.take(len(queries), tiles_width(len(self.table)), "scores").view(-1)
        found = best_of_tiles(
            queries, self.table, k, self._closed(exclusion, histories), where, add
        )
        return (*found, (total - (queries @ self.table[PAD]).exp().double()).log())

    def _closed(self, exclusion: Exclusion, histories: Histories) -> ClosedColumns:
        """Return what the rule forbids, in the form that a search in tiles takes."""
        rows, seen = exclusion.seen_pairs(histories)
        check_history_items(seen, self.n_items)
        blocked = exclusion.blocked
        if (allowed := exclusion.candidates(self.n_items)) is not None:
            everything = np.arange(1, self.n_items + 1, dtype=np.int64)
            blocked = np.setdiff1d(everything, allowed, assume_unique=True)
        return rows, seen, np.append(blocked, PAD)


class Buffer:
    """Memory of one search, used again at every step: fresh memory costs more than what is put into it."""

    def __init__(self) -> None:
        self._held: dict[str, Tensor] = {}

    def take(self, rows: int, width: int, name: str) -> Tensor:
        """Return float32 [rows, width], whatever is in it."""
        held = self._held.get(name)
        if held is None or held.numel() < rows * width:
            held = self._held[name] = torch.empty(rows * width)
        return held[: rows * width].view(rows, width)


def checked_scores(scores: Tensor) -> Tensor:
    """Return scores [R, C] whose first column may be anything; `DataError` if one is NaN or infinite."""
    if not bool(torch.isfinite(scores[:, PAD + 1 :].sum())):
        raise DataError("the model's scores are not finite; its training has diverged")
    return scores


def log_sum(logits: Tensor) -> Tensor:
    """Return log sum exp over items 1.. of logits [R, n_items + 1], float64 [R]; PAD is left out."""
    return torch.logsumexp(logits[:, PAD + 1 :], dim=1).double()
