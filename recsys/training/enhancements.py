"""UniRec's two enhancements as losses: irregular parts of regular histories, items made of neighbours.

Source: UniRec (CIKM 2024, arXiv 2406.18470) and its public code, whose defects are mended: statistics
are of training events (`TrainingStatistics`), the least irregular users are the regular ones, the
irregular part has its own times and mask, only its newest place is compared, the whole history is the
teacher, padding and items that a part does not concern cost nothing, weights are not negative and the
rare items' part does not train the map it uses. `mode: reference` keeps: the most irregular users, the
enhancement from the start and twice after its beginning, signed weights, min-max rarity, what is rare
for the irregular part (rarity of 1 and more), the trained map.

Shapes: R rows, L places, B sequences, D width, V items, U users, K neighbours.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.config import UniRecConfig
from recsys.data.batches import SequenceBatch
from recsys.data.statistics import TrainingStatistics
from recsys.errors import ArtifactError
from recsys.models.enhancement import ItemEnhancer
from recsys.models.unirec import UniRec
from recsys.training.schedules import BEGINS, frequent_weight, rare_weight, sequence_weight

NEWEST_KEPT = 2


class SequenceEnhancement(nn.Module):
    """0.2 mean over regular users of w_u mean_D (z' W - z)^2 at the newest place.

    z encodes the whole history (no gradient), z' its irregular part: the two newest events and all
    rare items, in order. Sequences that are their own irregular part cost nothing.
    """

    regular: Tensor  # bool [U]
    rare: Tensor  # bool [V + 1]

    def __init__(
        self, config: UniRecConfig, statistics: TrainingStatistics, regular: Tensor, rare: Tensor
    ) -> None:
        super().__init__()
        self.config = config
        size = config.width * (2 if config.block == "mixture" else 1)
        self.map = nn.Linear(size, size, bias=False)
        nn.init.normal_(self.map.weight, std=size**-0.5)
        self.register_buffer("regular", regular, persistent=False)
        self.register_buffer("rare", rare, persistent=False)

    def forward(
        self, model: UniRec, batch: SequenceBatch, whole: Tensor, progress: float
    ) -> Tensor:
        """Return the weighted loss; `whole` [R, L, size] is the first branch's encoding of the batch."""
        times = self._times(progress)
        if times == 0 or batch.users is None:
            return 0.0 * self.map.weight.sum()  # every process derives the same weights
        part, kept, length = irregular_part(batch, self.rare)
        concerned = self.regular[batch.users] & (kept < length) & (batch.last >= 0)  # [B]
        part, last = _rows_with(part, concerned)
        again = model.branches(part)[0].flatten(0, 1)[last.clamp(min=0)]  # z', [B, size]
        teacher = whole.detach().flatten(0, 1)[batch.last.clamp(min=0)]  # z, [B, size]
        errors = (self.map(again) - teacher).square().mean(1)  # [B]
        weights = sequence_weight(progress, kept.float(), self.config.max_length) * concerned
        total = (weights * errors).sum() / concerned.sum().clamp(min=1)
        loss: Tensor = times * self.config.sequence_weight * total
        return loss

    def _times(self, progress: float) -> int:
        late = progress >= BEGINS
        return 1 + late if self.config.mode == "reference" else int(late)


def irregular_part(batch: SequenceBatch, rare: Tensor) -> tuple[SequenceBatch, Tensor, Tensor]:
    """Return `(batch, kept [B], length [B])`: each sequence's two newest events and its rare items.

    The other places become padding (segment 0); places are counted anew and times stay, so that gaps
    are those between kept events.
    """
    segments, columns = batch.segments, batch.items.shape[1]
    # The newest two are followed by fewer than two events of their own sequence.
    later = F.pad(segments, (0, NEWEST_KEPT))[:, NEWEST_KEPT:]
    kept = (segments > 0) & (rare[batch.items] | (later != segments))
    count = kept.long().cumsum(1)  # [R, L]
    begin = torch.arange(columns, device=segments.device) - batch.positions  # [R, L]
    begin = begin.clamp(min=0)
    before = count.gather(1, begin) - kept.long().gather(1, begin)
    positions = torch.where(kept, count - before - 1, 0)
    last = batch.last.clamp(min=0)
    part = replace(batch, items=batch.items * kept, segments=segments * kept, positions=positions)
    return part, positions.flatten()[last] + 1, batch.positions.flatten()[last] + 1


def _rows_with(batch: SequenceBatch, concerned: Tensor) -> tuple[SequenceBatch, Tensor]:
    """Return the rows that hold a concerned sequence, and where each sequence's newest event is in them.

    On a GPU all rows: to choose them would mean to wait for it.
    """
    rows, length = batch.items.shape
    if batch.items.device.type != "cpu":
        return batch, batch.last
    row = batch.last.clamp(min=0) // length
    wanted = torch.zeros(rows, dtype=torch.bool)
    wanted[row[concerned]] = True
    wanted[:1] |= ~wanted.any()  # an encoder wants a row, and every weight a gradient
    number = wanted.long().cumsum(0) - 1  # the new number of a row
    some = replace(
        batch,
        **{
            name: value[wanted]
            for name in ("items", "segments", "positions", "times", "baskets")
            if (value := getattr(batch, name)) is not None
        },
    )
    last = torch.where(concerned, number[row] * length + batch.last % length, 0)
    return some, last


class ItemEnhancement(nn.Module):
    """IE_F + IE_L over the places of a batch, each item's neighbours drawn anew.

        IE_F = 0.3 mean over frequent items of w_i mean_D (G(i) - m_i)^2
        IE_L = 0.1 sin(pi/2 progress) mean over the others of mean_D (G(i) - m_i)^2

    with w_i from easy items to hard ones; G is not trained by the second.
    """

    frequent: Tensor  # bool [V + 1]
    rank: Tensor  # float [V + 1]
    neighbours: Tensor  # int64 [V + 1, K]

    def __init__(
        self,
        config: UniRecConfig,
        statistics: TrainingStatistics,
        frequent: Tensor,
        shared: ItemEnhancer | None,
    ) -> None:
        super().__init__()
        self.config = config
        self.enhancer = ItemEnhancer(config.width) if shared is None else None
        self._shared = [shared]  # in a list, for it is the model's and not of this module
        self.register_buffer("frequent", frequent, persistent=False)
        rank = torch.from_numpy(rarity(config, statistics)).float()
        self.register_buffer("rank", rank, persistent=False)
        near = torch.from_numpy(neighbours_of(config, statistics))
        self.register_buffer("neighbours", near, persistent=False)
        self.reseed(0)

    def reseed(self, seed: int) -> None:
        """Restart the stream of drawn neighbours."""
        self._seed = seed
        self._generator: torch.Generator | None = None

    def forward(self, model: UniRec, batch: SequenceBatch, progress: float) -> Tensor:
        """Return the weighted sum of both parts."""
        enhancer = self.enhancer if self.enhancer is not None else self._shared[0]
        assert enhancer is not None
        reference = self.config.mode == "reference"
        items = batch.items.flatten()  # [R L]
        own = model.item_table(items)  # [R L, D]
        near = model.item_table(self._draw(items))  # [R L, N, D]
        frequent = self.frequent[items]
        rare = (items > 0) & ~frequent
        errors = (enhancer(own, near) - own).square().mean(1)  # [R L]
        easy = frequent_weight(progress, self.rank[items], signed=reference)
        loss = self.config.frequent_weight * _mean(easy * errors, frequent)
        if not reference:
            errors = (enhancer(own, near, frozen=True) - own).square().mean(1)
        return loss + self.config.rare_weight * rare_weight(progress) * _mean(errors, rare)

    def _draw(self, items: Tensor) -> Tensor:
        """Return a seeded choice of each item's neighbours, int64 [R L, N]."""
        if self._generator is None or self._generator.device != items.device:
            self._generator = torch.Generator(items.device).manual_seed(self._seed)
        kept = self.neighbours.shape[1]
        shape = (len(items), kept)
        keys = torch.rand(shape, generator=self._generator, device=items.device)
        chosen = keys.topk(min(self.config.drawn_neighbours, kept), dim=1).indices
        return self.neighbours[items].gather(1, chosen)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return (values * where).sum() / where.sum().clamp(min=1)


def frequent_items(config: UniRecConfig, statistics: TrainingStatistics) -> Tensor:
    """Return which items are frequent, bool [V + 1]."""
    return torch.from_numpy(statistics.frequent_items(config.frequent_share, config.frequency_by))


def regular_users(config: UniRecConfig, statistics: TrainingStatistics) -> Tensor:
    """Return whose histories are regular, bool [U]; the most irregular by `mode: reference`."""
    if config.mode == "corrected":
        return torch.from_numpy(statistics.uniform_users(config.uniform_share))
    variance = statistics.user_gap_variance
    if variance is None:
        raise ArtifactError(
            "this data set's clock carries no gaps; switch the sequence enhancement off"
        )
    order = np.argsort(-np.nan_to_num(variance, nan=0.0), kind="stable")
    chosen = np.zeros(len(variance), dtype=np.bool_)
    chosen[order[: int(config.uniform_share * len(variance))]] = True
    return torch.from_numpy(chosen)


def rarity(config: UniRecConfig, statistics: TrainingStatistics) -> np.ndarray:
    """Return the rarity of every item, float64 [V + 1], 0 to 100: a percentile rank.

    By `mode: reference` the gap variance between the least (0) and the greatest (100) of them; items
    of an undefined one have 0 as theirs. PAD is 100.
    """
    variance = statistics.item_gap_variance
    if config.mode == "corrected" or variance is None:
        return statistics.frequency_rank(config.frequency_by)
    values = np.nan_to_num(variance[1:], nan=0.0)
    span = max(float(np.ptp(values)), 1e-12) if len(values) else 1.0
    return np.concatenate([[100.0], 100.0 * (values - values.min(initial=np.inf)) / span])


def neighbours_of(config: UniRecConfig, statistics: TrainingStatistics) -> np.ndarray:
    """Return the neighbours of every item, int64 [V + 1, K], filled up with the item itself."""
    if statistics.neighbours is None:
        raise ArtifactError(
            "the training statistics hold no neighbours, which item_enhancement and inject_tail read; "
            "run the features stage again with neighbours, or switch both off"
        )
    found = np.asarray(statistics.neighbours[:, : config.kept_neighbours], dtype=np.int64)
    missing = config.kept_neighbours - found.shape[1]
    own = np.arange(len(found), dtype=np.int64)[:, None]
    return np.concatenate([found, np.repeat(own, missing, axis=1)], axis=1)
