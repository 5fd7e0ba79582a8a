"""Pre-training of Recformer's encoder: histories find their next items, hidden words are found again.

    loss = contrast(h_a, h_b) + weight (MLM(a) + MLM(b))

for pairs of a history a and the item b that follows it. Source: Li et al. 2023 (arXiv 2305.13731).
Differences: a batch is of one domain, equal texts do not compete, hidden words are found in a share of
the pairs, by a decoder whose words are the encoder's.

It is validated by what it is for: users of every domain are held out, and the item of their last
training event is ranked among all items of the domain.

Shapes: B pairs, D width, M hidden tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from recsys.config.pretrain import PretrainConfig
from recsys.data.batches import SequenceBatch
from recsys.data.domains import Domain, JoinedDomains, join_domains
from recsys.data.item_sentences import SentenceBatch, item_sentences
from recsys.data.pairs import PairBatches
from recsys.data.sequences import Targets
from recsys.errors import DataError
from recsys.evaluation.ranking import rank_targets
from recsys.losses.contrastive import in_batch_contrast
from recsys.losses.masked_words import hide_words
from recsys.models.contract import EncoderModel
from recsys.models.recformer.encoder import TextEncoder, buckets
from recsys.models.recformer.ranker import SentenceRanker
from recsys.runtime import derive_seed
from recsys.training.callbacks import METRIC, EpochEnd
from recsys.training.fit import FitPlan, train_epochs
from recsys.training.module import TrainingModule
from recsys.training.objective import Objective
from recsys.training.validation import means_by_user


class PairContrast(Objective):
    """The loss above. What finds the hidden words has weights of its own, which are left behind."""

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.config = config
        width = config.encoder.width
        self.dense = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, config.encoder.norm_eps)
        self.generator = torch.Generator()
        if config.mlm_weight == 0:
            self.requires_grad_(False)  # processes that train together wait for every gradient

    def forward(self, model: EncoderModel, batch: SequenceBatch, progress: float) -> Tensor:
        """Return the loss of a batch of pairs."""
        del progress
        assert isinstance(model, SentenceRanker)
        if batch.targets is None:
            raise ValueError("a training batch needs targets")
        config, device = self.config, model.default_query.device
        items = batch.targets.flatten()[batch.last].cpu().numpy()
        a = model.histories(batch, batch.last.cpu().numpy()).to(device)
        b = item_sentences(model.sentences, items, **config.encoder.limits).to(device)
        # Items with the same text have the same vector, and cannot compete.
        texts = torch.from_numpy(np.asarray(model.sentences.rows)[items].astype(np.int64))
        encoder, cached = model.encoder, config.cached
        loss = in_batch_contrast(
            encoder.encode(a, cached=cached),
            encoder.encode(b, cached=cached),
            texts.to(device),
            config.temperature,
        )
        if config.mlm_weight == 0:
            return loss
        some = torch.randperm(len(items), generator=self.generator)
        some = some[: max(1, round(config.mlm_share * len(items)))].to(device)
        masked = sum(self.masked_loss(model, side.select(some)) for side in (a, b))
        return loss + config.mlm_weight * masked

    def masked_loss(self, model: SentenceRanker, sentences: SentenceBatch) -> Tensor:
        """Return the mean cross-entropy of the hidden tokens, a scalar; 0 if none was hidden."""
        store, encoder = model.sentences, model.encoder
        first = 1 + max(store.pad_id, store.cls_id, store.mask_id, store.unknown_id)
        words = (first if first < store.vocabulary_size else 0, store.vocabulary_size)
        hidden = hide_words(sentences, self.config.masked, store.mask_id, words, self.generator)
        lengths = sentences.lengths
        order = torch.argsort(lengths, stable=True)
        total = encoder.words.weight.new_zeros(())
        for part in buckets(lengths[order].tolist(), encoder.config.bucket_tokens):
            rows = order[part]
            some, length = hidden.batch.select(rows), int(lengths[rows].max())
            chosen, tokens = hidden.chosen[rows, :length], sentences.ids[rows, :length]
            found = (encoder, some, chosen, tokens[chosen])
            if self.config.cached:
                total = total + checkpoint(self._sum, *found, use_reentrant=False)
            else:
                total = total + self._sum(*found)
        return total / max(1, len(hidden.tokens))

    def _sum(
        self, encoder: TextEncoder, batch: SentenceBatch, chosen: Tensor, tokens: Tensor
    ) -> Tensor:
        """Return the summed cross-entropy of the hidden tokens [M] of a bucket."""
        x = self.norm(F.gelu(self.dense(encoder(batch)[chosen])))  # [M, D]
        logits = F.linear(x, encoder.words.weight).float()  # [M, words]
        return F.cross_entropy(logits, tokens, reduction="sum")

    def reseed(self, seed: int) -> None:
        """Restart the choice of pairs and of hidden words."""
        self.generator.manual_seed(seed)


@dataclass(frozen=True)
class PretrainData:
    """Domains, those of their users who train, and what the others validate."""

    domains: Sequence[Domain]
    joined: JoinedDomains
    trains: npt.NDArray[np.bool_]
    validation: Sequence[Targets]


def hold_out(config: PretrainConfig, domains: Sequence[Domain]) -> PretrainData:
    """Return the domains as one, with a seeded share of each one's users held out.

    Raises:
        DataError: a domain has too few users with two training events.
    """
    trains, validation = [], []
    for number, domain in enumerate(domains):
        lengths = domain.data.lengths
        able = np.flatnonzero(lengths >= 2)
        count = min(round(config.held_out * len(able)), config.held_out_most)
        if count == 0:
            raise DataError(
                f"domain {domain.name} has {len(able)} users with two training events, and a share of "
                f"{config.held_out} of them is nobody; raise held_out or leave the domain out"
            )
        rng = np.random.default_rng(derive_seed(config.seed, number, 7))
        held = np.sort(rng.choice(able, count, replace=False))
        end = domain.data.train_end[held]
        validation.append(Targets(held.astype(np.int32), end - 1, end))
        some = np.ones(len(lengths), dtype=bool)
        some[held] = False
        trains.append(some)
    return PretrainData(domains, join_domains(domains), np.concatenate(trains), validation)


def pretrain(
    encoder: TextEncoder, config: PretrainConfig, data: PretrainData, plan: FitPlan
) -> EpochEnd:
    """Pre-train an encoder; its best weights are those of `encoder.*` in the plan's `BEST` file."""
    joined = data.joined
    model = SentenceRanker(encoder, joined.sentences.n_items, joined.sentences)
    encoder.words.weight.requires_grad_(config.train_words)
    batches = PairBatches(
        joined.data,
        encoder.config.max_items,
        config.training.batch_size,
        later_half=True,
        domains=joined.domains,
        trains=data.trains,
        seed=plan.seed,
        rank=plan.rank,
        world_size=plan.world_size,
    )
    if len(batches) == 0:
        raise DataError("no user of any domain has two training events; nothing can be learned")
    torch.manual_seed(derive_seed(plan.seed))
    module = TrainingModule(model, PairContrast(config), config.training, batches)
    return train_epochs(module, plan, lambda trained: validate_domains(trained, data, plan))


def validate_domains(module: TrainingModule, data: PretrainData, plan: FitPlan) -> dict[str, float]:
    """Return NDCG@10 of every domain's held-out users, and its mean over domains (`METRIC`)."""
    model = module.evaluated
    assert isinstance(model, SentenceRanker)
    was_training = model.training
    found = {}
    for domain, targets in zip(data.domains, data.validation, strict=True):
        ranker = SentenceRanker(model.encoder, domain.sentences.n_items, domain.sentences)
        ranked = rank_targets(
            ranker,
            domain.data.store,
            targets,
            plan.evaluation,
            list_length=10,
            device=module.device,
        )
        found[f"{METRIC}_{domain.name}"] = float(means_by_user(ranked)[:, 0].mean())
    model.train(was_training)
    return {METRIC: float(np.mean(list(found.values()))), **found}
