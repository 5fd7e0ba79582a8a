"""SASRec: causal self-attention over the event sequence with a tied item table.

Source: Kang and McAuley 2018 (arXiv 1808.09781), by today's recipe: every place predicts what comes
after it (shifted targets), pre-norm or LiGR blocks instead of post-norm, any loss of `recsys.losses`
instead of one-negative BCE. Differences from the paper: sequences are packed several to a row; places
are counted from the oldest kept event; baskets may be sets (events of one basket share a place and
see one another, so that no order is invented among them); tables and linear maps alike are drawn with
standard deviation 0.02 and item vectors are not multiplied by sqrt(D); attention weights and the
inner layer of the feed-forward have no dropout.

Shapes: R rows, L places, D width, H heads, V items.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.config import SASRecConfig
from recsys.data.batches import SequenceBatch
from recsys.models.contract import EncoderModel
from recsys.models.layers import LiGRBlock, PreNormBlock
from recsys.models.order import mean_of_newest_basket, order_of
from recsys.schema import PAD


class SASRec(EncoderModel):
    """A causal transformer over item vectors; the same table embeds the history and is scored."""

    def __init__(self, config: SASRecConfig, n_items: int) -> None:
        super().__init__(n_items, config.width)
        self.max_length = config.max_length
        self.normalise = config.normalise
        self.reads_baskets = config.baskets == "set"
        self.item_table = nn.Embedding(n_items + 1, config.width, padding_idx=PAD)
        self.position_table = (
            nn.Embedding(config.max_length, config.width) if config.positions == "learned" else None
        )
        block = LiGRBlock if config.block == "ligr" else PreNormBlock
        inner = round(config.ffn * config.width)
        self.blocks = nn.ModuleList(
            block(config.width, config.heads, inner, config.dropout) for _ in range(config.blocks)
        )
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.init_weights()

    def init_weights(self) -> None:
        """Draw every table and linear map from N(0, 0.02^2); biases, and the PAD vector, are zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        with torch.no_grad():
            self.item_table.weight[PAD].zero_()

    def hidden(self, batch: SequenceBatch) -> Tensor:
        """Return a query vector for every place, float [R, L, D]."""
        x = self.item_table(batch.items)  # [R, L, D]
        positions, mask = order_of(batch, self.reads_baskets)
        if self.position_table is not None:
            x = x + self.position_table(positions)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x)
        return F.normalize(x, dim=-1) if self.normalise else x

    def encode_sequences(self, batch: SequenceBatch) -> Tensor:
        """Return one vector per sequence, float [B, D]; an empty one gets `default_query`.

        With baskets as sets it is the mean over the places of the newest basket: which of them comes
        last is an accident.
        """
        if not self.reads_baskets or batch.baskets is None or batch.items.numel() == 0:
            return super().encode_sequences(batch)
        queries = mean_of_newest_basket(self.hidden(batch), batch)  # [B, D]
        queries = F.normalize(queries, dim=-1) if self.normalise else queries
        return torch.where(batch.last[:, None] < 0, self.default_query, queries)

    def encode_items(self, items: Tensor | None = None) -> Tensor:
        """Return rows of the item table, float [C, D]."""
        table = self.item_table.weight if items is None else self.item_table(items)
        return F.normalize(table, dim=-1) if self.normalise else table
