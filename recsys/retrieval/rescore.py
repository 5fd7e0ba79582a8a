"""Shortlist and rescoring, for models whose score is more than one inner product.

An index finds the items of largest product; those that the model says it lifts most join them. What the
score has beyond the product is added to this shortlist, which is ordered again. Any other item whose
product alone is too small for the shortlist is missed: how often is measured against full ranking by
`rescored_recall` and kept with the index.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from recsys.data.batches import SequenceBatch
from recsys.models.contract import EncoderModel
from recsys.retrieval.exclusion import Exclusion, Histories
from recsys.retrieval.index import Index
from recsys.retrieval.topk import topk_rows

LISTS_LONG = 4
"""A shortlist holds at least this many times the list."""


def shortlist_length(index: Index, k: int) -> int:
    """Return how many candidates are scored again for a list of k."""
    return min(index.n_items, max(index.config.shortlist, LISTS_LONG * k))


def search_rescored(
    index: Index,
    model: EncoderModel,
    batch: SequenceBatch,
    queries: Tensor,
    k: int,
    exclusion: Exclusion,
    histories: Histories,
) -> tuple[Tensor, Tensor]:
    """Return `(items int64 [B, k], scores float32 [B, k])` as `Index.search` does, by the whole score.

    Args:
        batch: the B histories, on the model's device.
        queries: their vectors, float [B, D].
    """
    length = shortlist_length(index, k)
    items, scores = index.search(queries, length, exclusion, histories)
    lifted = model.lifted(batch, length)
    if lifted is not None:
        joining = joined(items, lifted.cpu(), exclusion, histories)  # [B, M]
        vectors = index.vectors[joining.clamp(min=0)]  # [B, M, D]
        products = (vectors @ queries.float().cpu()[:, :, None])[..., 0]
        items = torch.cat([items, joining], dim=1)  # [B, length + M]
        scores = torch.cat([scores, products], dim=1)
    more = model.beyond_product(
        batch, items.clamp(min=0).to(batch.items.device)
    )  # [B, length or more]
    scores = (scores + more.float().cpu()).masked_fill(items < 0, -torch.inf)
    items, order = items.sort(dim=1)  # so that equal scores fall to the smaller item index
    best, places = scores.gather(1, order).sort(dim=1, descending=True, stable=True)
    items = items.gather(1, places).masked_fill(best == -torch.inf, -1)
    return items[:, :k], best[:, :k]


def joined(items: Tensor, lifted: Tensor, exclusion: Exclusion, histories: Histories) -> Tensor:
    """Return the `lifted` items [B, M] that are permitted and not among `items` [B, L]; else -1."""
    fresh = ~(lifted[:, :, None] == items[:, None, :]).any(-1)
    fresh &= torch.from_numpy(exclusion.permitted(lifted.numpy(), histories))
    return torch.where(fresh, lifted, -1)


def rescored_recall(
    index: Index, model: EncoderModel, batches: Iterable[SequenceBatch], k: int
) -> dict[str, float]:
    """Return `{"k", "queries", "shortlist", "recall"}` against full ranking; kept in `index.rescored`.

    Recall is the mean over queries of (returned items whose score reaches the true k-th best score)
    / min(k, n_items); a tie with the k-th counts as found.
    """
    k = min(k, index.n_items)
    hits, queries = 0.0, 0
    for batch in batches:
        everything = Histories.from_lists([[]] * len(batch))
        asked = model.encode_sequences(batch).float().cpu()
        rule = Exclusion(seen=False)
        _, found = search_rescored(index, model, batch, asked, k, rule, everything)
        whole = model.score(batch).float().cpu()
        _, truth = topk_rows(rule.mask_(whole, everything), k)
        tolerance = 1e-5 * truth.abs().amax(1, keepdim=True)  # two summation orders of one product
        hits += float((found >= truth[:, -1:] - tolerance).float().mean(1).sum())
        queries += len(batch)
    recall = hits / queries if queries else float("nan")
    length = shortlist_length(index, k)
    index.rescored = {"k": k, "queries": queries, "shortlist": length, "recall": recall}
    return index.rescored
