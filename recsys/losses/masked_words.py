"""Masked language modelling: which words are hidden, and by what.

Whole words are hidden, an expected `share` of a sequence's real tokens (CLS and padding do not count):
words in random order until the budget is spent, the one that crosses it with the probability that makes
the expectation exact. Of the hidden tokens 80 % become the mask, 10 % a random token, 10 % stay. Source:
Devlin et al. 2019 (arXiv 1810.04805); Li et al. 2023 (arXiv 2305.13731), whose code counts the budget on
the padded length, and joins the last word of an attribute to the next one's first.

Shapes: B sequences, L tokens, M hidden tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from recsys.data.item_sentences import SentenceBatch

MASKED: Final = 0.8
RANDOM: Final = 0.1


@dataclass(frozen=True)
class MaskedWords:
    """A batch with hidden words.

    Attributes:
        batch: what the model reads.
        chosen: bool [B, L], which tokens are to be found.
        tokens: int64 [M], what they were, row by row.
    """

    batch: SentenceBatch
    chosen: Tensor
    tokens: Tensor


def hide_words(
    batch: SentenceBatch,
    share: float,
    mask_id: int,
    vocabulary: tuple[int, int],
    generator: torch.Generator,
) -> MaskedWords:
    """Return the batch with hidden words.

    Args:
        batch: sentences.
        share: expected share of the real tokens that are hidden.
        mask_id: the token that stands for a hidden one.
        vocabulary: `(first, end)` of the ids from which random tokens are drawn.
        generator: on the CPU; all draws come from it.
    """
    chosen = choose_words(batch, share, generator)
    ids = batch.ids
    draw = torch.rand(ids.shape, generator=generator).to(ids.device)
    other = torch.randint(*vocabulary, ids.shape, generator=generator).to(ids.device)
    shown = torch.where(draw < MASKED + RANDOM, other, ids)
    shown = torch.where(draw < MASKED, mask_id, shown)
    hidden = replace(batch, ids=torch.where(chosen, shown, ids))
    return MaskedWords(hidden, chosen, ids[chosen])


def choose_words(batch: SentenceBatch, share: float, generator: torch.Generator) -> Tensor:
    """Return which tokens are hidden, bool [B, L]: whole words, `share` of the real tokens expected."""
    real = batch.real
    real[:, 0] = False  # CLS
    starts = batch.word_starts & real
    starts[:, 1:2] |= real[:, 1:2]  # a cut sequence still begins with a word
    word = torch.where(real, starts.long().cumsum(1), 0)  # [B, L], 0 for what is no word
    n_words = int(word.max()) + 1 if word.numel() else 1
    sizes = torch.zeros(len(batch), n_words, device=word.device)
    sizes.scatter_add_(1, word, real.float())  # [B, words]
    draw = torch.rand(2, *sizes.shape, generator=generator).to(word.device)
    order = torch.where(sizes > 0, draw[0], torch.inf).argsort(dim=1)
    size = sizes.gather(1, order)
    before = size.cumsum(1) - size
    budget = share * sizes.sum(1, keepdim=True)
    taken = draw[1] < (budget - before) / size.clamp(min=1.0)
    taken = torch.zeros_like(taken).scatter_(1, order, taken & (size > 0))
    return taken.gather(1, word) & real
