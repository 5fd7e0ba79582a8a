"""The encoder of Recformer: Longformer's layers on today's attention, from scratch or from a checkpoint.

    x0 = dropout(norm(word[id] + place[i] + type[type] + item_place[item position]))
    x  = norm(x + dropout(attention(x))), then norm(x + dropout(feed_forward(x)))    (post-norm)
    h  = x[CLS] of the last block, as it is: no pooler

Token i attends to the tokens j with |i - j| <= window / 2 and to CLS, in one softmax; CLS attends to all
tokens, by its own projections where they are `separate`. Without a window everything attends to all.

Source: Li et al. 2023 (arXiv 2305.13731), Beltagy et al. 2020 (arXiv 2004.05150). Differences: scaled dot
product attention with a mask instead of sliding chunks (exact; on a CPU not slower below a thousand
tokens), no dropout on attention weights, sequences of like length encoded together.

Shapes: B sequences, L tokens, D width, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from recsys.config.text_encoder import TextEncoderConfig
from recsys.data.item_sentences import SentenceBatch

TYPES = 4


class Attention(nn.Module):
    """Attention over a sequence whose first token sees, and is seen by, all others."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.global_query: nn.Linear | None = None
        if config.global_projections == "separate":
            self.global_query, self.global_key, self.global_value = (
                nn.Linear(width, width) for _ in range(3)
            )
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None, real: Tensor | None) -> Tensor:
        """Return float [B, L, D].

        Args:
            x: float [B, L, D].
            mask: bool [B, 1, 1 or L, L], what each token sees; None for all.
            real: bool [B, 1, 1, L], which places hold tokens; None if all do.
        """
        q, k, v = (self._split(part(x)) for part in (self.query, self.key, self.value))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # [B, H, L, D / H]
        if self.global_query is not None:
            q = self._split(self.global_query(x[:, :1]))
            k, v = (self._split(part(x)) for part in (self.global_key, self.global_value))
            first = F.scaled_dot_product_attention(q, k, v, attn_mask=real)  # [B, H, 1, D / H]
            y = torch.cat([first, y[:, :, 1:]], dim=2)
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))  # [B, L, D]
        return out

    def _split(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        return x.view(rows, length, self.heads, width // self.heads).transpose(
            1, 2
        )  # [B, H, L, D / H]


class Block(nn.Module):
    """Post-norm: norm(x + attention(x)), then norm(x + feed-forward(x))."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.norm1 = nn.LayerNorm(config.width, config.norm_eps)
        self.up = nn.Linear(config.width, config.inner)
        self.down = nn.Linear(config.inner, config.width)
        self.norm2 = nn.LayerNorm(config.width, config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor | None, real: Tensor | None) -> Tensor:
        """Return float [B, L, D]."""
        x = self.norm1(x + self.dropout(self.attention(x, mask, real)))
        out: Tensor = self.norm2(x + self.dropout(self.down(F.gelu(self.up(x)))))
        return out


class TextEncoder(nn.Module):
    """Encodes sequences of tokens; a history's (or an item's) vector is that of its CLS.

    Args:
        config: its shape.
        vocabulary: how many tokens there are.
    """

    def __init__(self, config: TextEncoderConfig, vocabulary: int) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.words = nn.Embedding(vocabulary, width)
        self.places = nn.Embedding(config.max_tokens, width)
        self.types = nn.Embedding(TYPES, width)
        self.item_places = nn.Embedding(config.max_items + 1, width)
        self.norm = nn.LayerNorm(width, config.norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.init_weights()
        self.learn()

    def learn(self, *, words: bool = True) -> None:
        """Let everything that takes part be trained, the vectors of words only if asked."""
        self.requires_grad_(True)
        self.words.weight.requires_grad_(words)
        for table in (self.types, self.item_places):
            table.requires_grad_(self.config.structure)

    def init_weights(self) -> None:
        """Draw linear maps and words with deviation 1 / sqrt(D), other tables with 0.02; no biases.

        So words outweigh places from the start, and CLS, which begins as the mean of what it sees, tells
        texts apart: with 0.02 throughout all cosines begin near 1, and thousands of steps are lost.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=self.config.width**-0.5)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        self._draw_words()

    def _draw_words(self) -> None:
        nn.init.normal_(self.words.weight, std=self.config.width**-0.5)

    def resize(self, vocabulary: int) -> None:
        """Draw a table of so many words, unless there are as many already."""
        if self.words.num_embeddings != vocabulary:
            device = self.words.weight.device
            self.words = nn.Embedding(vocabulary, self.config.width, device=device)
            self._draw_words()

    def forward(self, batch: SentenceBatch) -> Tensor:
        """Return the last block's vectors of all places, float [B, L, D]; those of padding are noise."""
        places = torch.arange(batch.ids.shape[1], device=batch.ids.device)
        x = self.words(batch.ids) + self.places(places)
        if self.config.structure:
            x = x + self.types(batch.types) + self.item_places(batch.item_positions)
        x = self.dropout(self.norm(x))  # [B, L, D]
        mask, real = self._masks(batch)
        for block in self.blocks:
            if self.config.checkpointing and self.training:
                x = checkpoint(block, x, mask, real, use_reentrant=False)
            else:
                x = block(x, mask, real)
        out: Tensor = x
        return out

    def encode(self, batch: SentenceBatch, *, cached: bool = False) -> Tensor:
        """Return the vectors of the sequences, float [B, D], those of like length computed together.

        With `cached` they are computed without a trace and, when their gradients are known, once more,
        bucket by bucket and with the same dropout. So memory is that of one bucket however many
        sequences there are, and the gradients are the same (GradCache, arXiv 2101.06983).
        """
        if len(batch) == 0:
            return self.words.weight.new_zeros(0, self.config.width)
        order = torch.argsort(batch.lengths, stable=True)
        parts = []
        for part in buckets(batch.lengths[order].tolist(), self.config.bucket_tokens):
            some = batch.select(order[part])
            if cached and torch.is_grad_enabled():
                parts.append(checkpoint(self._encode, some, use_reentrant=False))
            else:
                parts.append(self._encode(some))
        return torch.cat(parts)[torch.argsort(order)]  # [B, D]

    def _encode(self, batch: SentenceBatch) -> Tensor:
        vectors: Tensor = self(batch)[:, 0]
        return vectors

    def _masks(self, batch: SentenceBatch) -> tuple[Tensor | None, Tensor | None]:
        """Return what tokens see, and which places are real: each None where that is all."""
        length = batch.ids.shape[1]
        padded = bool((batch.lengths < length).any())
        real = batch.real[:, None, None] if padded else None  # [B, 1, 1, L]
        if self.config.window is None or length <= self.config.window // 2 + 1:
            return real, real
        at = torch.arange(length, device=batch.ids.device)
        seen = (at[:, None] - at).abs() <= self.config.window // 2  # [L, L]
        seen[:, 0] = True
        seen[0] |= self.config.global_projections == "tied"
        mask = seen[None, None] if real is None else seen & real  # [B, 1, L, L]
        return mask, real


def buckets(lengths: list[int], most: int) -> list[slice]:
    """Cut ascending lengths into runs that are cheap together.

    A run, padded to its longest, has at most `most` tokens (or is one sequence), and at most a quarter
    of them are padding, unless it is of fewer than 16 sequences.
    """
    found, begin, tokens = [], 0, 0
    for end, length in enumerate(lengths):
        size = (end + 1 - begin) * length
        wasteful = end - begin >= 16 and size - tokens - length > size // 4
        if end > begin and (size > most or wasteful):
            found.append(slice(begin, end))
            begin, tokens = end, 0
        tokens += length
    if begin < len(lengths):
        found.append(slice(begin, len(lengths)))
    return found
