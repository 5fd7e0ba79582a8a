"""Bags of tokens as a table of a model: histories as bags, and their products with all items' bags.

Shapes: B sequences, H events, V items, T tokens of the vocabulary.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from recsys.models.votes import Csr, count_votes

with warnings.catch_warnings():
    # Torch warns once in a process, at the first one, that packed rows are in beta; all that is used of
    # them here is a product.
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 0], [], [], (1, 1))


def history_bags(recent: Tensor, decay: float, bags: Csr, n_tokens: int) -> Tensor:
    """Return sum over the newest events j at distance d of decay^(d - 1) w_j, float32 [B, T].

    Args:
        recent: int64 [B, H], items newest first, 0-filled.
        decay: weight of each step into the past.
        bags: w, one row an item; `indices` are tokens.
        n_tokens: T.
    """
    weight = decay ** torch.arange(recent.shape[1], device=recent.device)  # [H]
    return count_votes(recent, weight, bags, torch.arange(n_tokens, device=recent.device), n_tokens)


def bag_products(queries: Tensor, bags: Csr) -> Tensor:
    """Return the products of histories' bags [B, T] with those of all items, float32 [B, V + 1]."""
    indptr, indices, weights = bags
    shape = (len(indptr) - 1, queries.shape[1])
    table = torch.sparse_csr_tensor(
        indptr.to(indices.dtype), indices, weights, shape, check_invariants=False
    )
    products: Tensor = (table @ queries.T).T  # [B, V + 1]
    return products
