"""Set losses as training losses: over the whole catalogue in chunks, or against drawn negatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid

from recsys.data.item_sets import ItemSets
from recsys.losses.contract import SetLoss
from recsys.losses.negatives import NegativeSampler
from recsys.losses.scores import set_member_scores
from recsys.losses.set_scores import NONE, SetScores, segment_sum
from recsys.losses.softmax import chunk_rows

SetForm = Callable[[SetScores], Tensor]
"""`multi_positive`, `any_of` or `plackett_luce_set`: the loss of each set from its packed scores."""


class FullSets(SetLoss):
    """A form of set loss with the whole catalogue as the rest; scores s_i = <q, v_i> / temperature.

    As `Softmax` does, logits exist for one chunk of tokens at a time, in at least float32, and the
    gradient is made in the forward pass. A form reads of the catalogue no more than the members'
    scores and the log-sum of the rest, so it costs hardly more than that softmax.
    """

    def __init__(
        self, form: SetForm, *, temperature: float = 1.0, memory_mb: float = 256.0
    ) -> None:
        super().__init__()
        self.form = form
        self.temperature = temperature
        self.memory_mb = memory_mb

    def forward(self, queries: Tensor, sets: ItemSets, table: Tensor) -> Tensor:
        """Return the mean loss; shapes as in `SetLoss.forward`."""
        if not torch.is_grad_enabled():  # then nothing of the gradient is computed
            queries, table = queries.detach(), table.detach()
        with torch.autocast(queries.device.type, enabled=False):
            loss: Tensor = _ChunkedSets.apply(  # type: ignore[no-untyped-call]
                queries,
                table,
                sets,
                self.form,
                self.temperature,
                chunk_rows(queries, table, self.memory_mb),
            )
        return loss


class SampledSets(SetLoss):
    """A form of set loss against drawn negatives J, for catalogues too large for the whole.

        log sum_{v not in S} exp(s_v)  ~  log sum over n with j_n not in S of exp(s_jn - log(N Q(jn)))

    N Q(i) is how often item i is expected among the negatives, so the sum (not its logarithm) is
    unbiased and the loss tends to `FullSets` as N grows. Draws of a member of the set are left out.
    Without `logq`, log(N Q) is replaced by 0.
    """

    def __init__(
        self,
        form: SetForm,
        sampler: NegativeSampler,
        *,
        logq: bool = True,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.form = form
        self.sampler = sampler
        self.logq = logq
        self.temperature = temperature

    def forward(self, queries: Tensor, sets: ItemSets, table: Tensor) -> Tensor:
        """Return the mean loss; shapes as in `SetLoss.forward`."""
        negatives, log_count = self.sampler.draw(len(queries), queries.device)
        inside, outside = set_member_scores(queries, sets, negatives, table, self.temperature)
        if self.logq:
            outside = outside - log_count.to(outside.dtype)
        outside = outside.masked_fill(is_member(negatives, sets, len(table)), NONE)  # [T, N]
        losses = self.form(SetScores(inside, sets.rows, outside.logsumexp(1)))
        return losses.sum() / max(1, len(losses))

    def reseed(self, seed: int) -> None:
        """Restart the negative sampler."""
        self.sampler.reseed(seed)


class SetBCE(SetLoss):
    """Binary cross-entropy of the members and N negatives: multi-hot BCE on a part of the catalogue.

    For a token with set S and negatives J (draws of members are left out):

        loss = -( sum_{y in S} log sigmoid(s_y) + sum_{j in J} log sigmoid(-s_j) ) / (|S| + |J|)

    With one member it is `BCE`. Tokens without a set cost 0.
    """

    def __init__(self, sampler: NegativeSampler, *, temperature: float = 1.0) -> None:
        super().__init__()
        self.sampler = sampler
        self.temperature = temperature

    def forward(self, queries: Tensor, sets: ItemSets, table: Tensor) -> Tensor:
        """Return the mean loss; shapes as in `SetLoss.forward`."""
        count = len(queries)
        negatives, _ = self.sampler.draw(count, queries.device)
        inside, outside = set_member_scores(queries, sets, negatives, table, self.temperature)
        kept = ~is_member(negatives, sets, len(table))  # [T, N]
        size = segment_sum(torch.ones_like(inside), sets.rows, count)
        total = segment_sum(logsigmoid(inside), sets.rows, count)
        total = total + (logsigmoid(-outside) * kept).sum(1)
        losses = torch.where(size > 0, -total / (size + kept.sum(1)).clamp(min=1), 0.0)
        return losses.sum() / max(1, count)

    def reseed(self, seed: int) -> None:
        """Restart the negative sampler."""
        self.sampler.reseed(seed)


def is_member(negatives: Tensor, sets: ItemSets, table_rows: int) -> Tensor:
    """Tell which negatives are in their token's set, bool [T, N].

    Args:
        negatives: int64 [T, N], or [N] for all tokens alike.
        sets: the T sets.
        table_rows: V + 1.
    """
    if negatives.dim() == 2:
        members = (sets.rows * table_rows + sets.items).sort().values
        members = torch.cat([members.new_full((1,), -1), members])  # never empty
        tokens = torch.arange(len(sets), device=negatives.device)[:, None]
        asked = tokens * table_rows + negatives  # [T, N]
        return members[torch.searchsorted(members, asked, right=True) - 1] == asked
    count = len(negatives)
    columns = torch.arange(count, device=negatives.device)
    # Of an item that was drawn several times, one draw (any) stands for all.
    drawn = torch.full((table_rows,), count, device=negatives.device)  # `count`: was not drawn
    drawn[negatives] = columns
    found = torch.zeros(len(sets), count + 1, dtype=torch.bool, device=negatives.device)
    found[sets.rows, drawn[sets.items]] = True
    return found[:, drawn[negatives]]


class _ChunkedSets(torch.autograd.Function):
    """Loss and gradients in one sweep over chunks of tokens."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,  # [T, D]
        table: Tensor,  # [V + 1, D]
        sets: ItemSets,
        form: SetForm,
        temperature: float,
        chunk: int,
    ) -> Tensor:
        dtype = torch.promote_types(torch.promote_types(queries.dtype, table.dtype), torch.float32)
        scaled = queries.to(dtype) / temperature  # [T, D]
        real = table.to(dtype)[1:]  # [V, D], PAD left out
        want_queries, want_table = ctx.needs_input_grad[:2]
        grad_queries = torch.empty_like(scaled) if want_queries else None
        grad_table = torch.zeros_like(table, dtype=dtype) if want_table else None
        losses = torch.empty(len(scaled), dtype=dtype, device=scaled.device)
        block = torch.empty(min(chunk, len(scaled)), len(real), dtype=dtype, device=scaled.device)
        for start in range(0, len(scaled), chunk):
            part = slice(start, start + chunk)
            query = scaled[part]  # [C, D]
            members = slice(*sets.offsets[[start, min(start + chunk, len(scaled))]].tolist())
            row, column = sets.rows[members] - start, sets.items[members] - 1  # [S]
            weights = torch.mm(query, real.T, out=block[: len(query)])  # [C, V] logits
            scores = weights[row, column]
            weights[row, column] = -torch.inf
            top = weights.amax(1, keepdim=True).clamp(min=NONE)
            total = weights.sub_(top).exp_().sum(1, keepdim=True)  # of the rest: exp(s - max) now
            log_rest = (total.log() + top).squeeze(1)
            losses[part], slope, rest_slope = _with_slopes(form, SetScores(scores, row, log_rest))
            share = rest_slope[:, None] / torch.where(total > 0, total, 1)  # [C, 1]
            if grad_queries is not None:
                torch.mm(weights, real, out=grad_queries[part]).mul_(share)
                grad_queries[part].index_add_(0, row, slope[:, None] * real[column])
            if grad_table is not None:
                grad_table[1:].addmm_(weights.T, query * share)
                grad_table[1:].index_add_(0, column, slope[:, None] * query[row])
        count = max(1, len(scaled))
        ctx.grads = (
            None
            if grad_queries is None
            else grad_queries.div_(count * temperature).to(queries.dtype),
            None if grad_table is None else grad_table.div_(count).to(table.dtype),
        )
        return losses.sum() / count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [None if g is None else g * grad for g in ctx.grads]
        return (*scaled, None, None, None, None)


def _with_slopes(form: SetForm, sets: SetScores) -> tuple[Tensor, Tensor, Tensor]:
    """Return `(losses [B], their gradients by the scores [S] and by log_rest [B])`."""
    with torch.enable_grad():
        scores = sets.scores.detach().requires_grad_()
        log_rest = sets.log_rest.detach().requires_grad_()
        losses = form(SetScores(scores, sets.rows, log_rest))
        slope, rest_slope = torch.autograd.grad(losses.sum(), (scores, log_rest))
    return losses.detach(), slope, rest_slope
