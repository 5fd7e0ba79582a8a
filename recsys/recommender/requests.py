"""What a recommender is asked and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from recsys.decoding.settings import SearchSettings
from recsys.errors import DataError
from recsys.recommender.item_texts import ItemText, ReadText

EMPTY_HISTORY = "empty_history"
UNKNOWN_HISTORY = "unknown_history"
UNKNOWN_USER = "unknown_user"

Strategy = Literal["top", "beam", "diverse", "mmr", "dpp"]
DEFAULT_SETTINGS = SearchSettings()
STEPS = 10
"""Places of the lists that a list of k is merged from, unless a query says otherwise."""


@dataclass(frozen=True)
class Query:
    """One request for a list. Exactly one of `history` and `user_id` is given.

    Attributes:
        history: external item ids, oldest first; unknown ones are skipped and reported. An `ItemText`
            among them is read as it is by a model that reads texts (`reads_texts` of it), and as the
            known item most like it for any other with item vectors of texts.
        times: seconds of the history's events, needed where the model reads times (`reads_times` of it);
            the history is then sorted by them (stably).
        baskets: a label for each item of the history, equal for items that were one basket, which then
            stands at the place of its first. Only a model of baskets as sets reads them. Without
            labels it takes items for one basket whose times lie in the same `data.basket_minutes` of
            the data it learned from, or are equal if that had none; without times each item is one.
        user_id: a user whose newest events travel in the bundle.
        k: length of the list.
        exclude: items never wanted; unknown ones are reported.
        allow: only these items, if given; unknown ones are reported.
        exclude_seen: leave out the items of the history (True) or none of them (False); None follows
            the rule by which the model was evaluated, which is in the bundle.
        repeat_window: leave out the items of the newest so many events of the history, at least 1, and
            let older ones come again; unknown items count as events. Not together with
            `exclude_seen=False`.
        before: items of events before those of the history, oldest first, which the model does not read;
            they are excluded as the history is.
        previous: the lists that came before the history, oldest first, each of external item ids, none
            empty; read by models that learned from the lists before a list (`reads_previous` of them),
            for all others without effect. They are not excluded. None: they are not known, and the model
            has a default; an empty sequence says that there were none.
        strategy: how the list comes about: the `top` scores; one list merged from many continuations,
            of one `beam` search or of a `diverse` one; or the candidates of highest score re-ranked by
            `mmr` or `dpp`.
        settings: of every strategy but `top`. `beam` searches groups x beams lists in one group; `mmr`
            and `dpp` read `candidates` and `diversity`, there a number from 0 (by score) to 1.
        steps: items of each continuation that `beam` and `diverse` merge; the lesser of k and 10 by
            default.
    """

    history: Sequence[str | ItemText] | None = None
    times: Sequence[int] | None = None
    baskets: Sequence[str | int] | None = None
    user_id: str | None = None
    k: int = 10
    exclude: Sequence[str] = ()
    allow: Sequence[str] | None = None
    exclude_seen: bool | None = None
    repeat_window: int | None = None
    before: Sequence[str] = ()
    previous: Sequence[Sequence[str]] | None = None
    strategy: Strategy = "top"
    settings: SearchSettings = DEFAULT_SETTINGS
    steps: int | None = None

    def check(self) -> None:
        """Raise `DataError` for settings that are none."""
        if self.strategy not in get_args(Strategy):
            allowed = ", ".join(get_args(Strategy))
            raise DataError(f"strategy is {self.strategy!r}; allowed are {allowed}")
        if self.strategy in ("mmr", "dpp") and self.settings.diversity > 1:
            raise DataError(
                f"diversity is {self.settings.diversity}; with {self.strategy} it is between 0 and 1"
            )
        if self.steps is not None and self.steps < 1:
            raise DataError(f"steps is {self.steps}; a continuation has at least 1 item")


@dataclass(frozen=True)
class Recommendation:
    """A ranked list: best first, ties by ascending item id; full whenever enough items are allowed.

    Attributes:
        items: external item ids.
        scores: the model's scores, descending with `top` only; with `beam` and `diverse` the weights of
            the merge, descending (see `recsys.decoding.Lists.merged`).
        unknown: history ids that the catalogue does not hold, in order, each once.
        unknown_allowed: the same for `allow`.
        unknown_excluded: the same for `exclude`.
        unknown_previous: the same for the lists of `previous` that were read.
        dropped_previous: oldest lists of `previous` that were not read; all, if the model reads none.
        texts: what each text of the history was read as.
        fallback: why the list is the default one of an empty history, or None: `empty_history`,
            `unknown_history` (no id was known), `unknown_user` (nor were events of the user).
    """

    items: list[str]
    scores: list[float]
    unknown: list[str] = field(default_factory=list)
    unknown_allowed: list[str] = field(default_factory=list)
    unknown_excluded: list[str] = field(default_factory=list)
    unknown_previous: list[str] = field(default_factory=list)
    dropped_previous: int = 0
    texts: list[ReadText] = field(default_factory=list)
    fallback: str | None = None

    def rows(self) -> list[dict[str, Any]]:
        """Return the list as plain mappings: `item_id`, `score` and `rank`, which counts from 1."""
        return [
            {"item_id": item, "score": score, "rank": rank}
            for rank, (item, score) in enumerate(zip(self.items, self.scores, strict=True), 1)
        ]


@dataclass(frozen=True)
class Continue:
    """One request for continuations: several lists that may follow a history.

    Attributes:
        steps: items of each list.
        settings: groups, beams of each group, diversity, candidates, ...; `groups=1` is plain beam
            search.
        required: items that every list must hold.
        at_most: how many items of one value of an attribute a list may hold, as `{"artist": 2}`; items
            without a value are not limited, nor does the history count.
        label: the attribute by which dissimilarity `category` tells items apart.
        gap: seconds between the items of a list, for models that read times; by default the median gap
            of the history.

    The others are those of a `Query`.
    """

    history: Sequence[str | ItemText] | None = None
    times: Sequence[int] | None = None
    baskets: Sequence[str | int] | None = None
    user_id: str | None = None
    steps: int = STEPS
    settings: SearchSettings = DEFAULT_SETTINGS
    exclude: Sequence[str] = ()
    allow: Sequence[str] | None = None
    exclude_seen: bool | None = None
    repeat_window: int | None = None
    before: Sequence[str] = ()
    previous: Sequence[Sequence[str]] | None = None
    required: Sequence[str] = ()
    at_most: Mapping[str, int] = field(default_factory=dict)
    label: str | None = None
    gap: float | None = None

    def query(self) -> Query:
        """Return the part that a query has, too."""
        return Query(
            history=self.history,
            times=self.times,
            baskets=self.baskets,
            user_id=self.user_id,
            exclude=self.exclude,
            allow=self.allow,
            exclude_seen=self.exclude_seen,
            repeat_window=self.repeat_window,
            before=self.before,
            previous=self.previous,
            steps=self.steps,
        )


@dataclass(frozen=True)
class ContinuedList:
    """One list that may follow.

    Attributes:
        items: external item ids, in order.
        log_probability: of the whole list, penalties not counted; None, as the next two, for a list that
            no model made.
        score: what the search ranked by: the log-probability less penalties.
        gains: each item's log-probability given the history and the items before it.
        group: the group that found it, from 1; the first group is not penalised.
    """

    items: list[str]
    log_probability: float | None
    score: float | None
    gains: Sequence[float | None]
    group: int


@dataclass(frozen=True)
class Continuation:
    """The lists of one request: the best of every group, then the second of every group, and so on.

    Attributes:
        lists: as many as were found; fewer than asked for where the rules leave fewer.
        exact: log-probabilities are normalised over the whole catalogue; otherwise by an estimate.
        unknown: history ids that the catalogue does not hold, in order, each once.
        unknown_allowed: the same for `allow`.
        unknown_excluded: the same for `exclude`.
        unknown_previous, dropped_previous, texts: as in a `Recommendation`.
        fallback: why the model was asked for an empty history, or None; see `Recommendation`.
    """

    lists: list[ContinuedList]
    exact: bool
    unknown: list[str] = field(default_factory=list)
    unknown_allowed: list[str] = field(default_factory=list)
    unknown_excluded: list[str] = field(default_factory=list)
    unknown_previous: list[str] = field(default_factory=list)
    dropped_previous: int = 0
    texts: list[ReadText] = field(default_factory=list)
    fallback: str | None = None
