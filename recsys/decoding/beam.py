"""Beam search and Diverse Beam Search over a catalogue, in lockstep.

Source: Vijayakumar et al. 2016 (arXiv 1610.02424). In every step the groups choose one after another;
each keeps the best of all extensions of its lists, less a penalty for being like what the groups before
it have chosen. The first group has none, so it is a plain beam search of its width; one group is plain
beam search; groups without diversity are equal. What differs from the paper: candidates come from a
shortlist of each list, scored exactly, where the catalogue is large; penalties are subtracted (see
`dissimilarity`) and may count in their own step only; finished lists are kept by group.

Ties go to the earlier list, then the smaller item. A list with nothing left to choose is dead: its score
is -inf, never NaN.

Shapes: N requests, G groups of b lists, B = G * b, R = N * B rows, C candidates, T steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from recsys.data.batches import SequenceBatch
from recsys.data.sequences import Int64
from recsys.decoding.choice import Choice, choose, signature, unless_required
from recsys.decoding.dissimilarity import ItemFacts, penalty
from recsys.decoding.finished import Finished
from recsys.decoding.lists import Lists
from recsys.decoding.normaliser import exact_log_z
from recsys.decoding.rules import Rules, RulesOfLists
from recsys.decoding.scout import Scout
from recsys.decoding.settings import SearchSettings
from recsys.decoding.shortlist import Catalogue, Float32, Shortlist
from recsys.decoding.trie import Trie
from recsys.errors import DataError
from recsys.evaluation.metrics import Float64
from recsys.models.generation import GenerationState
from recsys.schema import PAD


def search(
    catalogue: Catalogue,
    batch: SequenceBatch,
    steps: int,
    settings: SearchSettings,
    rules: Sequence[Rules] | None = None,
    *,
    facts: ItemFacts | None = None,
    trie: Trie | None = None,
    gap: float | None = None,
) -> Lists:
    """Return lists of `steps` items for every history of a batch.

    Args:
        catalogue: the items and the model that chooses.
        batch: N histories.
        steps: items of a list (at most, with `settings.end`).
        settings: groups, beams, diversity, ...
        rules: of each request; by default nothing is forbidden. All share allow-list and quotas.
        facts: item vectors or labels, for the dissimilarities that need them. The catalogue's own
            vectors are used where none are given.
        trie: the codes that lists may spell, where items are codes.
        gap: seconds between chosen items, for models that read times; see `EncoderModel.start`.

    Raises:
        DataError: the rules of a request leave no list of `steps` items, or settings and data do not
            fit together.
    """
    rules = [Rules()] * len(batch) if rules is None else rules
    _check(catalogue, batch, steps, settings, rules, trie)
    facts = _facts(catalogue, settings, facts or ItemFacts())
    state = catalogue.model.start(batch, gap)
    return _Search(catalogue, settings, rules, steps, facts, trie).run(state)


@dataclass
class _Lists:
    """All lists while they grow."""

    items: Int64  # [N, B, S]
    gains: Float64  # [N, B, S]
    score: Float64  # [N, B], penalties of all steps inside
    pure: Float64  # [N, B]
    queries: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, n: int, settings: SearchSettings) -> _Lists:
        """Start with one live list a group: more would be copies of it."""
        score = np.full((n, settings.width), -np.inf)
        score[:, :: settings.beams] = 0.0
        nothing = np.zeros((n, settings.width, 0))
        return cls(nothing.astype(np.int64), nothing, score, score.copy())

    @property
    def rows(self) -> Int64:
        """The items as rows, int64 [R, S]."""
        n, lists, steps = self.items.shape
        return self.items.reshape(n * lists, steps)


class _Search:
    """One call of `search`."""

    def __init__(
        self,
        catalogue: Catalogue,
        settings: SearchSettings,
        rules: Sequence[Rules],
        steps: int,
        facts: ItemFacts,
        trie: Trie | None,
    ) -> None:
        self.settings, self.steps, self.facts, self.trie = settings, steps, facts, trie
        self.model = catalogue.model
        self.rules = RulesOfLists(rules, settings.width, steps, settings.repeats)
        self.required = self.rules.required[:: settings.width]  # [N, Q]
        exact = settings.exact(catalogue.n_items)
        # With one list a group no step compares lists: log Z can wait until the end.
        self.late = exact and settings.beams == 1 and settings.end is None
        self.late = self.late and catalogue.table is not None
        self.exact = exact
        # What a list holds already takes places among its candidates, unless it may come again.
        every = settings.candidates + (0 if settings.repeats else steps)
        every = catalogue.n_items if trie is not None else every
        self.scout = Scout(catalogue, settings, rules, every, normalise=not self.late)
        self.catalogue = catalogue
        self.finished = Finished(settings) if settings.end is not None else None

    def run(self, state: GenerationState) -> Lists:
        """Run all steps."""
        n, width = len(state), self.settings.width
        grown = _Lists.of(n, self.settings)
        home = np.repeat(np.arange(n), width)  # the state's row of every list
        first = np.zeros((n, 0), dtype=np.int64)
        for step in range(self.steps):
            found = self.scout.look(state, step, home)
            if step == 0:
                first = _best_first(found.shortlist, width)
            gains = self._open(found.gains, found.shortlist, grown)
            while not found.shortlist.complete and self._starved(gains, grown):
                found = self.scout.wider(state, home)
                gains = self._open(found.gains, found.shortlist, grown)
            parents = self._advance(grown, gains, found.shortlist)
            if self.late:
                grown.queries.append(state.query[torch.from_numpy(home)])
            if step + 1 == self.steps or np.isneginf(grown.score).all():
                break
            rows = home.reshape(n, width)[np.arange(n)[:, None], parents]
            rows, items, home = _distinct(rows, grown)
            state = self.model.step(*self._moved(state, rows, items))
            self.scout.follow(rows)
        return self._lists(grown, first)

    def _open(self, gains: Float32, shortlist: Shortlist, grown: _Lists) -> Float32:
        """Return the log-probabilities [R, C] of what may come next, -inf for the rest."""
        values = gains.copy()
        self.rules.close(values, shortlist, grown.rows)
        if self.trie is not None:
            values[~self.trie.permits(grown.rows, shortlist.known)] = -np.inf
        return values

    def _starved(self, gains: Float32, grown: _Lists) -> bool:
        """Tell whether a live group may find fewer extensions than it has lists."""
        groups = (-1, self.settings.groups, self.settings.beams)
        live = ~np.isneginf(grown.score)
        number = np.isfinite(gains).sum(1).reshape(live.shape)
        most = np.where(live, number, -1).reshape(groups).max(2)
        return bool(((most >= 0) & (most < self.settings.beams)).any())

    def _advance(self, grown: _Lists, gains: Float32, shortlist: Shortlist) -> Int64:
        """Let every group choose; grow the lists and return where each comes from, int64 [N, B]."""
        n, width, before = grown.items.shape
        beams, values = self.settings.beams, gains.reshape(n, width, -1)
        ids = shortlist.ids.reshape(values.shape)
        base = grown.score if self.settings.accumulate else grown.pure
        chosen: list[Choice] = []
        later = np.zeros((n, 0, before + 1), dtype=np.int64)  # the earlier groups' grown lists
        for low in range(0, width, beams):
            part = slice(low, low + beams)
            own = grown.items[:, part]
            steps = values[:, part]
            if low and self.settings.diversity > 0:
                rows = (np.arange(n)[:, None] * width + np.arange(width)[part]).ravel()
                alike = penalty(self.settings, shortlist.select(rows), own, later, self.facts)
                steps = steps - np.float32(self.settings.diversity) * alike
            if low and self.settings.distinct and self.settings.end is None:
                steps = self._without_copies(steps, ids[:, part], own, later)
            group = choose(self.settings, base[:, part], steps, ids[:, part], own, self.required)
            if self.finished is not None:
                group = self.finished.take(
                    low // beams, group, own, grown.gains[:, part], values[:, part]
                )
            chosen.append(group)
            row = np.arange(n)[:, None]
            new = np.concatenate([own[row, group.parent], group.item[:, :, None]], axis=2)
            later = np.concatenate([later, new], axis=1)
        return self._grow(grown, chosen, values, later)

    def _without_copies(self, steps: Float32, ids: Int64, own: Int64, later: Int64) -> Float32:
        """Close what would make a list the copy of an earlier group's.

        That is settled with the last item that is free: after it all that is still required follows.
        """
        n, beams, before = own.shape
        open_ = self.rules.missing(own.reshape(n * beams, -1)).reshape(n, beams)
        settled = before + 1 + open_ == self.steps  # [N, b]
        if not settled.any():
            return steps
        free = unless_required(ids, self.required)  # [N, b, C]
        sets = self.settings.sets
        ours, theirs = (unless_required(x, self.required) if sets else x for x in (own, later))
        grown = signature(free[..., None], sets, signature(ours, sets)[:, :, None])  # [N, b, C]
        copies = (grown[..., None] == signature(theirs, sets)[:, None, None]).any(3)
        return np.where(copies & settled[:, :, None] & (free != PAD), -np.inf, steps)

    def _grow(self, grown: _Lists, chosen: list[Choice], values: Float32, items: Int64) -> Int64:
        n, width, _ = grown.items.shape
        first = np.repeat(np.arange(0, width, self.settings.beams), self.settings.beams)
        parent = np.concatenate([c.parent for c in chosen], axis=1) + first
        column = np.concatenate([c.column for c in chosen], axis=1)
        score = np.concatenate([c.score for c in chosen], axis=1)
        row = np.arange(n)[:, None]
        live = ~np.isneginf(score)
        gain = np.where(live, values[row, parent, column], 0.0).astype(np.float64)
        grown.pure = np.where(live, grown.pure[row, parent] + gain, -np.inf)
        grown.gains = np.concatenate([grown.gains[row, parent], gain[:, :, None]], axis=2)
        grown.score, grown.items = score, items
        return parent

    def _moved(
        self, state: GenerationState, rows: Int64, items: Int64
    ) -> tuple[GenerationState, Tensor]:
        device = state.query.device
        chosen = torch.from_numpy(items).to(device)
        return state.select(torch.from_numpy(rows).to(device)), chosen

    def _lists(self, grown: _Lists, first: Int64) -> Lists:
        n, width, _ = grown.items.shape
        score, gains, items = grown.score, grown.gains, grown.items
        if self.late:
            sums = exact_log_z(self.catalogue, torch.cat(grown.queries))
            log_z = sums.view(len(grown.queries), n, width).permute(1, 2, 0).numpy()
            gains = np.where(items == PAD, 0.0, gains - log_z)
            score = score - np.where(items == PAD, 0.0, log_z).sum(2)
        if self.finished is not None:
            items, gains, score = self.finished.join(items, gains, score)
        rest = (n, width, self.steps - items.shape[2])  # of lists that have all ended before
        items = np.concatenate([items, np.full(rest, PAD)], axis=2)
        gains = np.concatenate([gains, np.zeros(rest)], axis=2)
        items = np.where(np.isneginf(score)[:, :, None], PAD, items)
        gains = np.where(items == PAD, 0.0, gains)
        return Lists(items, gains, score, self.settings.groups, first, self.exact)


def _distinct(parents: Int64, grown: _Lists) -> tuple[Int64, Int64, Int64]:
    """Return `(parent [R'], item [R'], home [R])`: the distinct lists of all requests, and which each is.

    Groups often agree for a while, and what a model makes of equal lists is equal: it is asked once. Every
    request has as many rows as the one with most distinct lists, repeats of its first where it has fewer.
    `parents` int64 [N, B] are rows of the state that the lists come from.
    """
    dead, items = np.isneginf(grown.score), grown.items[:, :, -1]
    parents = np.where(dead, parents[:, :1], parents)
    items = np.where(dead, items[:, :1], items)
    key = parents * (int(items.max(initial=0)) + 1) + items  # [N, B]
    row, order = np.arange(len(key))[:, None], np.argsort(key, axis=1, kind="stable")
    ranked = key[row, order]
    new = np.concatenate([np.zeros_like(dead[:, :1]), ranked[:, 1:] != ranked[:, :-1]], axis=1)
    which = np.empty_like(key)
    which[row, order] = np.cumsum(new, axis=1)  # [N, B] which of its request's distinct lists
    most = int(which.max(initial=0)) + 1
    shape = (len(key), most)
    from_, chosen = (np.broadcast_to(x[:, :1], shape).copy() for x in (parents, items))
    from_[row, which], chosen[row, which] = parents, items
    return from_.ravel(), chosen.ravel(), (row * most + which).ravel()


def _best_first(shortlist: Shortlist, lists: int) -> Int64:
    """Return each request's candidates of the first place, best first, PAD at the end; ties by item."""
    known, scores = shortlist.known[::lists], shortlist.scores[::lists]
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(known, order, axis=1)


def _check(
    catalogue: Catalogue,
    batch: SequenceBatch,
    steps: int,
    settings: SearchSettings,
    rules: Sequence[Rules],
    trie: Trie | None,
) -> None:
    if steps < 1:
        raise DataError(f"lists of {steps} items were asked for; they hold at least 1")
    if len(rules) != len(batch):
        raise DataError(f"{len(batch)} histories, but rules for {len(rules)}")
    if trie is not None:
        if steps != trie.depth:
            raise DataError(f"codes have {trie.depth} tokens, so steps must be that, not {steps}")
        if not len(trie.codes):
            raise DataError("the trie holds no item; nothing can be spelled")
        return
    for number, one in enumerate(rules):
        name = "the request" if len(rules) == 1 else f"request {number + 1} of {len(rules)}"
        one.check(
            1 if settings.end is not None else steps, catalogue.n_items, settings.repeats, name
        )


def _facts(catalogue: Catalogue, settings: SearchSettings, facts: ItemFacts) -> ItemFacts:
    """Return what the dissimilarity needs, or say what is missing."""
    if settings.dissimilarity == "vector" and facts.vectors is None:
        if catalogue.vectors is None:
            raise DataError("dissimilarity vector needs item vectors, and there is no index of any")
        return ItemFacts(catalogue.vectors, facts.labels)
    if settings.dissimilarity == "category" and facts.labels is None:
        raise DataError("dissimilarity category needs the items' labels; name their attribute")
    return facts
