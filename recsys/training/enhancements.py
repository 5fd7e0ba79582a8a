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

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recsys.config import UniRecConfig
from recsys.data.batches import SequenceBatch, pack_histories
from recsys.data.sequences import Int64, SequenceStore
from recsys.data.statistics import Bools, Float64, TrainingStatistics
from recsys.errors import ArtifactError
from recsys.models.enhancement import ItemEnhancer
from recsys.models.unirec import UniRec
from recsys.training.schedules import BEGINS, frequent_weight, rare_weight, sequence_weight

NEWEST_KEPT = 2

Predict = Callable[[Tensor, Tensor], Tensor]


class SequenceEnhancement(nn.Module):
    """0.2 mean over regular users of w_u mean_D (z' W - z)^2 at the newest place.

    z encodes the whole history (no gradient), z' its irregular part: the two newest events and all
    rare items, in order. Sequences that are their own irregular part cost nothing.

    W is never used to rank, so z' may differ from z as W likes. With `sequence_teacher: target` there
    is none: the part predicts the item that follows the whole, by the base loss, from the first epoch.

    Args:
        regular: bool [U], whose histories are regular.
        rare: bool [V + 1], which items stay in the part.
    """

    def __init__(self, config: UniRecConfig, regular: Bools, rare: Bools) -> None:
        super().__init__()
        self.config = config
        self.regular = regular
        self.rare = rare
        size = config.width * (2 if config.block == "mixture" else 1)
        self.map: nn.Linear | None = None
        if config.sequence_teacher == "encoding":
            self.map = nn.Linear(size, size, bias=False)
            nn.init.normal_(self.map.weight, std=size**-0.5)

    def forward(
        self, model: UniRec, batch: SequenceBatch, whole: Tensor, progress: float, predict: Predict
    ) -> Tensor:
        """Return the weighted loss.

        Args:
            model: the model.
            batch: what it is trained on.
            whole: float [R, L, size], the first branch's encoding of the batch.
            progress: of the training, 0 to 1.
            predict: returns the base loss of a branch's encodings [T, size] and their targets [T].
        """
        times = self._times(progress)
        part = None if times == 0 else irregular_parts(batch, self.regular, self.rare)
        if part is None:  # every process derives the same weights
            return whole.new_zeros(()) if self.map is None else 0.0 * self.map.weight.sum()
        branches = model.branches(part.batch)
        if self.map is None:
            return times * self.config.sequence_weight * _predicted(branches, part, batch, predict)
        again = branches[0].flatten(0, 1)[part.batch.last]  # z', [S, size]
        teacher = whole.detach().flatten(0, 1)[part.newest]  # z, [S, size]
        errors = (self.map(again) - teacher).square().mean(1)  # [S]
        kept = part.batch.positions.flatten()[part.batch.last] + 1
        weights = sequence_weight(progress, kept, self.config.max_length)
        loss: Tensor = times * self.config.sequence_weight * (weights * errors).mean()
        return loss

    def _times(self, progress: float) -> int:
        if self.map is None:
            return 1
        late = progress >= BEGINS
        return 1 + late if self.config.mode == "reference" else int(late)


def _predicted(
    branches: list[Tensor], part: IrregularParts, batch: SequenceBatch, predict: Predict
) -> Tensor:
    """Return the base loss of the parts' newest places, for the targets that the whole has there."""
    assert batch.targets is not None
    targets = batch.targets.flatten()[part.newest]  # [S]
    real = targets > 0
    last = part.batch.last[real]
    losses = [predict(branch.flatten(0, 1)[last], targets[real]) for branch in branches]
    return torch.stack(losses).sum()


@dataclass(frozen=True)
class IrregularParts:
    """The irregular parts of S sequences of a batch, packed anew, with the times of their events.

    Attributes:
        batch: the parts.
        newest: int64 [S]; where the newest event of each sequence is in the batch they are of.
    """

    batch: SequenceBatch
    newest: Tensor


def irregular_parts(batch: SequenceBatch, regular: Bools, rare: Bools) -> IrregularParts | None:
    """Return the irregular parts of regular users' sequences; None if no sequence has a smaller one.

    A part is made of the two newest events and of the rare items. Parts are packed anew, which takes a
    quarter of the encoder's work for all rows; on a GPU it waits for a copy of the batch.
    """
    if batch.users is None or batch.items.numel() == 0:
        return None
    items, positions = (x.flatten().cpu().numpy() for x in (batch.items, batch.positions))
    last = batch.last.cpu().numpy()
    last = last[regular[batch.users.cpu().numpy()] & (last >= 0)]
    lengths = positions[last] + 1  # [S]
    ends = lengths.cumsum()
    events = np.repeat(last + 1 - ends, lengths) + np.arange(lengths.sum())  # places, [E]
    newest = np.repeat(lengths, lengths) - positions[events] <= NEWEST_KEPT
    kept = rare[items[events]] | newest
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    smaller = np.bincount(sequence[kept], minlength=len(lengths)) < lengths
    kept &= smaller[sequence]
    if not kept.any():
        return None
    part = _pack(batch, events[kept], sequence[kept])
    return IrregularParts(part, torch.from_numpy(last[smaller]).to(batch.items.device))


def _pack(batch: SequenceBatch, places: Int64, sequence: Int64) -> SequenceBatch:
    """Return the events at flat `places` [E] as a batch of their own, one for each sequence number."""

    def chosen(values: Tensor | None) -> Int64 | None:
        return None if values is None else values.flatten().cpu().numpy()[places]

    items, baskets = chosen(batch.items), chosen(batch.baskets)
    assert items is not None
    begin = np.flatnonzero(np.diff(sequence, prepend=-1))
    store = SequenceStore(
        items=items.astype(np.int32),
        offsets=np.append(begin, len(items)).astype(np.int64),
        n_items=int(items.max()),
        timestamps=chosen(batch.times),
        baskets=None if baskets is None else baskets.astype(np.int32),
    )
    part = pack_histories(store, store.offsets[:-1], store.offsets[1:], batch.items.shape[1])
    return part.to(batch.items.device)


class ItemEnhancement(nn.Module):
    """IE_F + IE_L over the places of a batch, each item's neighbours drawn anew.

        IE_F = 0.3 mean over frequent items of w_i mean_D (G(i) - m_i)^2
        IE_L = 0.1 sin(pi/2 progress) mean over the others of mean_D (G(i) - m_i)^2

    with w_i from easy items to hard ones; G is not trained by the second.

    The G that returns m_i has no error, and frequent items teach it to be that. With
    `item_teacher: neighbours` G reads the neighbours alone, is no part of the model, and the error is
    1 - cos(G(i), m_i), which is as strong for short vectors as for long ones. An item of fewer neighbours
    than are kept is among its own and then still teaches the map to return it.
    """

    rare: Tensor  # bool [V + 1]
    rank: Tensor  # float [V + 1]
    neighbours: Tensor  # int64 [V + 1, K]

    def __init__(
        self,
        config: UniRecConfig,
        statistics: TrainingStatistics,
        shared: ItemEnhancer | None,
    ) -> None:
        super().__init__()
        self.config = config
        self.reads_own = config.item_teacher == "own_and_neighbours"
        self.enhancer: ItemEnhancer | None = None
        if shared is None or not self.reads_own:
            self.enhancer = ItemEnhancer(config.width, reads_own=self.reads_own)
        self._shared = [shared]  # in a list, for it is the model's and not of this module
        rare = torch.from_numpy(rare_items(config, statistics))
        self.register_buffer("rare", rare, persistent=False)
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
        rare = self.rare[items]
        frequent = (items > 0) & ~rare
        errors = self._errors(enhancer(own, near), own)  # [R L]
        easy = frequent_weight(progress, self.rank[items], signed=reference)
        loss = self.config.frequent_weight * _mean(easy * errors, frequent)
        if not reference:
            errors = self._errors(enhancer(own, near, frozen=True), own)
        return loss + self.config.rare_weight * rare_weight(progress) * _mean(errors, rare)

    def _errors(self, made: Tensor, own: Tensor) -> Tensor:
        """Return how far vectors [R L, D] are from what G makes of them, float [R L]."""
        if self.reads_own:
            return (made - own).square().mean(1)
        return 1.0 - F.cosine_similarity(made, own, dim=1)

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


def regular_users(config: UniRecConfig, statistics: TrainingStatistics) -> Bools:
    """Return whose histories are regular, bool [U]; the most irregular by `mode: reference`."""
    if config.mode == "corrected":
        return statistics.uniform_users(config.uniform_share)
    variance = statistics.user_gap_variance
    if variance is None:
        raise ArtifactError(
            "this data set's clock carries no gaps; switch the sequence enhancement off"
        )
    order = np.argsort(-np.nan_to_num(variance, nan=0.0), kind="stable")
    chosen = np.zeros(len(variance), dtype=np.bool_)
    chosen[order[: int(config.uniform_share * len(variance))]] = True
    return chosen


def rare_items(config: UniRecConfig, statistics: TrainingStatistics) -> Bools:
    """Return which items are not frequent, bool [V + 1]; never PAD."""
    rare = ~statistics.frequent_items(config.frequent_share, config.frequency_by)
    rare[0] = False
    return rare


def rare_in_parts(config: UniRecConfig, statistics: TrainingStatistics) -> Bools:
    """Return which items stay in an irregular part: the rare, by `mode: reference` of rarity >= 1."""
    if config.mode == "corrected":
        return rare_items(config, statistics)
    rare: Bools = rarity(config, statistics) >= 1
    rare[0] = False
    return rare


def rarity(config: UniRecConfig, statistics: TrainingStatistics) -> Float64:
    """Return the rarity of every item, float64 [V + 1], 0 to 100: a percentile rank.

    By `mode: reference`, unless counts say what is frequent, the gap variance between the least (0) and
    the greatest (100) of them; items of an undefined one have 0 as theirs. PAD and items without
    training events are 100.
    """
    variance = statistics.item_gap_variance
    if config.mode == "corrected" or config.frequency_by == "count" or variance is None:
        return statistics.frequency_rank(config.frequency_by)
    trained = statistics.item_counts > 0
    values = np.nan_to_num(variance[trained], nan=0.0)
    span = max(float(np.ptp(values)), 1e-12) if len(values) else 1.0
    rarities = np.full(len(variance), 100.0)
    rarities[trained] = 100.0 * (values - values.min(initial=np.inf)) / span
    return rarities


def neighbours_of(config: UniRecConfig, statistics: TrainingStatistics) -> Int64:
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
