"""Lists that are made item by item or re-ranked: the strategies besides `top`, and continuations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import polars as pl
import torch
from torch import Tensor

from recsys.bundle import Bundle
from recsys.data.sequences import Int64
from recsys.decoding import Catalogue, ItemFacts, Lists, Quota, Rules, SearchSettings, search
from recsys.decoding.rerank import dpp, mmr
from recsys.errors import DataError
from recsys.evaluation.metrics import Float64
from recsys.models import EncoderModel
from recsys.recommender.likeness import Pair
from recsys.recommender.requests import STEPS, Continuation, Continue, ContinuedList
from recsys.recommender.resolve import Resolved, Resolver
from recsys.retrieval import Exclusion, Histories
from recsys.retrieval.rescore import search_rescored
from recsys.schema import PAD


class ListMaker:
    """Makes lists from the model, index and items of a bundle.

    Args:
        bundle: a loaded bundle.
        resolver: packs histories for its model.
        device: where the model is.
    """

    def __init__(self, bundle: Bundle, resolver: Resolver, device: torch.device) -> None:
        self.bundle = bundle
        self._resolver = resolver
        self._device = device
        self._ids: list[str] = ["", *bundle.item_ids.ids.to_list()]
        self._labels: dict[str, Int64] = {}

    @cached_property
    def catalogue(self) -> Catalogue:
        """The items as a search sees them; `DataError` for a model that makes no lists."""
        model = self.bundle.model
        if not isinstance(model, EncoderModel):
            raise DataError(
                f"the model of bundle {self.bundle.name} ({type(model).__name__}) ranks items, but makes "
                "no lists item by item; ask with strategy top, or publish a learned model"
            )
        return Catalogue(model, self.bundle.index)

    def merged(self, resolved: Sequence[Resolved], output: Tensor) -> Iterator[tuple[int, Pair]]:
        """Yield `(row, its list)` for the queries that do not ask for the top scores.

        `output` are the query vectors [B, D] of all queries.
        """
        for row, r in enumerate(resolved):
            match r.query.strategy:
                case "mmr" | "dpp":
                    yield row, self._reranked(r, output[row])
                case "top" | "beam" | "diverse":
                    continue
        for group in self._alike(resolved):
            some = [resolved[row] for row in group]
            yield from zip(group, self._searched(some), strict=True)

    def continued(
        self, requests: Sequence[Continue], resolved: Sequence[Resolved]
    ) -> list[Continuation]:
        """Answer requests for continuations, in order; those alike are searched together."""
        answers: dict[int, Continuation] = {}
        groups: dict[object, list[int]] = {}
        for row, (one, r) in enumerate(zip(requests, resolved, strict=True)):
            alone = None if r.rule.allowed is None else row
            limits = tuple(sorted(one.at_most.items()))
            key = (one.settings, one.steps, limits, one.label, one.gap, alone)
            groups.setdefault(key, []).append(row)
        for group in groups.values():
            first = requests[group[0]]
            rules = [self.rules_of(requests[row], resolved[row]) for row in group]
            labels = None if first.label is None else self._label(first.label)
            found = search(
                self.catalogue,
                self._resolver.batch([resolved[row] for row in group]).to(self._device),
                first.steps,
                first.settings,
                rules,
                facts=ItemFacts(labels=labels),
                gap=first.gap,
            )
            for place, row in enumerate(group):
                answers[row] = self._continuation(found, place, resolved[row])
        return [answers[row] for row in range(len(requests))]

    def check(self, one: Continue, r: Resolved) -> None:
        """Raise `DataError` for a request that `continued` would refuse."""
        if one.settings.dissimilarity == "category" and one.label is None:
            raise DataError("dissimilarity category needs the items' labels; name their attribute")
        if one.label is not None:
            self._label(one.label)
        rules = self.rules_of(one, r)
        rules.check(one.steps, self.catalogue.n_items, one.settings.repeats)

    def _alike(self, resolved: Sequence[Resolved]) -> list[list[int]]:
        """Return rows of beam searches that can share one: of equal settings, without allow-list."""
        groups: dict[object, list[int]] = {}
        for row, r in enumerate(resolved):
            if r.query.strategy in ("beam", "diverse"):
                alone = None if r.rule.allowed is None else row
                key = (r.query.strategy, r.query.settings, self._steps(r), r.query.k, alone)
                groups.setdefault(key, []).append(row)
        return list(groups.values())

    def _steps(self, r: Resolved) -> int:
        """Return how long the merged continuations are: no longer than there are items to show."""
        wanted = r.query.steps or min(r.query.k, STEPS)
        return min(wanted, self._room(r))

    def _room(self, r: Resolved) -> int:
        forbidden = r.rule.forbidden(r.history.seen)
        if r.rule.allowed is None:
            return self.bundle.model.n_items - len(forbidden)
        return len(np.setdiff1d(r.rule.allowed, forbidden))

    def _searched(self, some: Sequence[Resolved]) -> list[Pair]:
        """Search continuations for queries that are alike and merge each query's into one list."""
        query, steps = some[0].query, self._steps(some[0])
        if steps < 1:
            return [([], []) for _ in some]
        settings = query.settings
        settings = replace(settings, candidates=max(settings.candidates, query.k))
        if query.strategy == "beam":
            settings = replace(settings, groups=1, beams=settings.width, diversity=0.0)
        rules = [self._rules(r) for r in some]
        batch = self._resolver.batch(some).to(self._device)
        found = search(self.catalogue, batch, steps, settings, rules)
        return [_pair(*row) for row in zip(*found.merged(query.k), strict=True)]

    def _rules(
        self, r: Resolved, required: Int64 | None = None, quotas: tuple[Quota, ...] = ()
    ) -> Rules:
        """Return what a query's lists may hold."""
        needed = np.zeros(0, dtype=np.int64) if required is None else required
        return Rules(r.rule.forbidden(r.history.seen), r.rule.allowed, needed, quotas)

    def rules_of(self, one: Continue, r: Resolved) -> Rules:
        """Return what a request's lists may and must hold; `DataError` if that is not in the catalogue."""
        quotas = tuple(Quota(name, self._label(name), most) for name, most in one.at_most.items())
        return self._rules(r, self._required(one), quotas)

    def _required(self, one: Continue) -> Int64:
        items, unknown = self._resolver.translate(one.required)
        if unknown:
            raise DataError(
                f"required item {unknown[0]!r} is not in the catalogue; no list can hold it"
            )
        return items

    def _label(self, name: str) -> Int64:
        """Return each item's value of an attribute as a number, int64 [n_items + 1], -1 for none."""
        if name not in self._labels:
            items = self.bundle.items
            if name not in items.columns[2:]:
                known = ", ".join(items.columns[2:]) or "none"
                raise DataError(f"items have no attribute {name!r}; they have {known}")
            if isinstance(items[name].dtype, pl.List):
                raise DataError(f"{name} holds several values an item; a label is one value")
            ranked = items[name].rank("dense").cast(pl.Int64).fill_null(0).to_numpy() - 1
            self._labels[name] = np.concatenate([[-1], ranked]).astype(np.int64)
        return self._labels[name]

    def _continuation(self, found: Lists, row: int, r: Resolved) -> Continuation:
        beams = found.items.shape[1] // found.groups
        lists = []
        for at in found.order.tolist():
            items = [item for item in found.items[row, at].tolist() if item != PAD]
            if items:
                lists.append(
                    ContinuedList(
                        [self._ids[item] for item in items],
                        log_probability=float(found.log_probability[row, at]),
                        score=float(found.score[row, at]),
                        gains=found.gains[row, at, : len(items)].tolist(),
                        group=at // beams + 1,
                    )
                )
        return Continuation(lists, exact=found.exact, **r.about)

    def _reranked(self, r: Resolved, query: Tensor) -> Pair:
        """Re-rank a query's best candidates by MMR or DPP, with the cosine of item vectors."""
        index = self.bundle.index
        if index is None:
            raise DataError(
                f"strategy {r.query.strategy} compares item vectors, which bundle {self.bundle.name} "
                "has none of; ask with strategy top"
            )
        settings, k = r.query.settings, min(r.query.k, self.bundle.model.n_items)
        wanted = min(max(settings.candidates, k), self.bundle.model.n_items)
        closed = Histories.from_lists([r.rule.forbidden(r.history.seen)])
        rule = Exclusion(allowed=r.rule.allowed)
        model = self.bundle.model
        if isinstance(model, EncoderModel) and not model.is_inner_product:
            batch = self._resolver.batch([r]).to(self._device)
            found = search_rescored(index, model, batch, query[None], wanted, rule, closed)
        else:
            found = index.search(query[None], wanted, rule, closed)
        items, scores = found
        number = int((items >= 0).sum())
        if not number:
            return [], []
        items, scores = items[0, :number], scores[0, :number]
        unit = torch.nn.functional.normalize(index.vectors[items], dim=1).double()
        cosine = (unit @ unit.T).numpy()[None]
        order = _order(r.query.strategy, settings, scores.double().numpy(), cosine, k)
        order = order[order >= 0]
        return items[order].tolist(), scores[order].tolist()


def _order(
    strategy: str, settings: SearchSettings, scores: Float64, cosine: Float64, k: int
) -> Int64:
    """Return the chosen places of candidates, best first.

    Relevance is the score, scaled so that the best candidate has 1 and the worst 0. MMR has it against
    the cosine; DPP has quality exp(relevance * (1 - d) / (2 d)) and similarity (1 + cosine) / 2.
    """
    spread = scores.max() - scores.min()
    relevance = (scores - scores.min()) / (spread if spread > 0 else 1.0)
    if strategy == "mmr":
        chosen = mmr(relevance[None], cosine, k, balance=1.0 - settings.diversity)
        return chosen.ravel()
    if settings.diversity == 0:
        return np.arange(min(k, len(scores)))
    slope = (1.0 - settings.diversity) / (2.0 * settings.diversity)
    # Less the best one's: quality is then at most 1, and its square does not overflow.
    quality = np.exp(np.maximum(slope * (relevance - 1.0), -300.0))
    return dpp(quality[None], (1.0 + cosine) / 2.0, k).ravel()


def _pair(items: Int64, weights: Float64) -> Pair:
    known = items != PAD
    return items[known].tolist(), weights[known].tolist()
