"""What the endpoint accepts and answers: the request and response bodies, with their limits."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from serving.rules import (
    ALLOWED,
    MAX_ATTRIBUTES,
    MAX_CANDIDATES,
    MAX_DIVERSITY,
    MAX_IDS,
    MAX_K,
    MAX_LISTS,
    MAX_PREVIOUS,
    MAX_SIMILAR,
    MAX_STEPS,
    MAX_TEXT,
    MAX_TEXTS,
    MAX_TIME,
    AtOnce,
    Id,
    Ids,
    refusal,
)

MAX_HISTORY = 1000
"""Newest history events that the model reads; older ones are excluded, and counted in the answer."""
ID, EVENT, DESCRIBED = "id", "event", "described"


class Body(BaseModel):
    """The base of what clients send: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Event(Body):
    """A history event with its time."""

    item: Id
    time: Annotated[int, Field(strict=True, ge=-MAX_TIME, le=MAX_TIME)] = Field(
        description="Seconds since 1970; the history is sorted by it."
    )


class Described(Body):
    """An item of a history by its texts, for models that read them."""

    text: Annotated[
        dict[
            Annotated[str, Field(min_length=1, max_length=MAX_TEXT)],
            Annotated[str, Field(max_length=MAX_TEXT)],
        ],
        Field(min_length=1, max_length=MAX_ATTRIBUTES),
    ] = Field(description="Attributes of the catalogue, such as its title.")
    time: Annotated[int, Field(strict=True, ge=-MAX_TIME, le=MAX_TIME)] | None = Field(
        None, description="Seconds since 1970; given if the other items have times."
    )


def _kind(value: object) -> str:
    if isinstance(value, Described) or (isinstance(value, dict) and "text" in value):
        return DESCRIBED
    return EVENT if isinstance(value, dict | Event) else ID


HistoryItem = Annotated[
    Annotated[Id, Tag(ID)] | Annotated[Event, Tag(EVENT)] | Annotated[Described, Tag(DESCRIBED)],
    Discriminator(_kind),
]


Diversity = Annotated[float, Field(strict=True, ge=0, le=MAX_DIVERSITY, allow_inf_nan=False)]
Width = Annotated[int, Field(strict=True, ge=1, le=MAX_LISTS)]
Candidates = Annotated[int, Field(strict=True, ge=1, le=MAX_CANDIDATES)]


def check_width(groups: int, beams: int, candidates: int) -> None:
    """Refuse a search that is too wide."""
    if not 1 <= groups * beams <= min(MAX_LISTS, candidates):
        raise refusal(
            f"has {groups} groups of {beams} beams and {candidates} candidates",
            f"at most {MAX_LISTS} lists in all, and no more than candidates",
            "send fewer groups or beams, or more candidates",
        )


HistoryEvent = str | Event | Described


class HistoryBody(Body):
    """The part of a request that says for whom, and what must not be in a list."""

    history: Annotated[list[HistoryItem], Field(max_length=MAX_IDS), AtOnce] | None = Field(
        None,
        description=(
            "Item ids, oldest first, or items with times, which all must have where the model reads "
            f"times (`reads.times` of /v1/model). The model reads the newest {MAX_HISTORY} "
            "at most; what is excluded as seen goes by all of them. An item that the catalogue does not "
            f"hold may be a text, at most {MAX_TEXTS} of them, for a model that knows items by texts. "
            "`texts` says what each was taken as: itself, or the item most like it."
        ),
    )
    baskets: Ids | None = Field(
        None,
        description=(
            "A label for each item of the history, equal for items that were one basket; read by "
            "models of baskets as sets only, which otherwise go by the times, if there are any."
        ),
    )
    previous: Annotated[list[Ids], Field(max_length=MAX_PREVIOUS)] | None = Field(
        None,
        description=(
            "The lists that came before this one, oldest first, each of item ids; read by models that "
            "learned from them, of which /v1/model says how many lists they read. Others leave them "
            "unread, and `dropped_previous` says so. None of their items is excluded. Without it the "
            "list is taken to begin right after what the model learned from."
        ),
    )
    user_id: Id | None = Field(None, description="A user whose events are in the bundle.")
    exclude: Ids = Field(default=[], description="Items never wanted.")
    allow: Ids | None = Field(None, description="Recommend among these items only.")
    exclude_seen: Annotated[bool, Field(strict=True)] | None = Field(
        None,
        description=(
            "Leave out the items of the history, or let them come again. Without it, as the model "
            "was evaluated (`info.exclude` of /v1/model)."
        ),
    )
    repeat_window: Annotated[int, Field(strict=True, ge=1)] | None = Field(
        None,
        description=(
            "Leave out the items of the newest so many events; older ones may come again. Not "
            "together with `exclude_seen: false`."
        ),
    )

    @field_validator("history")
    @classmethod
    def _all_alike(cls, history: list[HistoryEvent] | None) -> list[HistoryEvent] | None:
        texts = sum(isinstance(event, Described) for event in history or [])
        if texts > MAX_TEXTS:
            problem = f"has {texts} items given by their texts"
            raise refusal(problem, ALLOWED["history"], "leave the oldest out, or send their ids")
        timed = sum(not isinstance(e, str) and e.time is not None for e in history or [])
        if history is not None and 0 < timed < len(history):
            problem = f"has times for {timed} of {len(history)} items"
            raise refusal(problem, ALLOWED["history"], "give times for all items, or for none")
        return history

    @field_validator("previous")
    @classmethod
    def _lists_with_items(cls, previous: list[list[str]] | None) -> list[list[str]] | None:
        for number, one in enumerate(previous or []):
            if not one:
                problem = f"has no ids in list {number} (from 0)"
                raise refusal(problem, ALLOWED["previous"], "leave empty lists out")
        if (total := sum(map(len, previous or []))) > MAX_IDS:
            problem = f"has {total} ids in all"
            raise refusal(problem, ALLOWED["previous"], "leave the oldest lists out")
        return previous

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.history is None) == (self.user_id is None):
            found = "neither" if self.history is None else "both"
            raise refusal(
                f"has {found} of history and user_id",
                "exactly one of history and user_id",
                "send history, or user_id for a user of the bundle; an empty history has a list too",
            )
        return self

    @model_validator(mode="after")
    def _a_basket_for_each_item(self) -> Self:
        if self.baskets is None:
            return self
        if self.history is None:
            problem = "has baskets, but no history they belong to"
            fix = "leave baskets out: a user of the bundle has its own"
            raise refusal(problem, "baskets together with history", fix)
        if len(self.baskets) != len(self.history):
            problem = f"has {len(self.baskets)} baskets for a history of {len(self.history)} items"
            fix = "give one label for each item, or leave baskets out"
            raise refusal(problem, ALLOWED["baskets"], fix)
        return self

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.repeat_window is not None and self.exclude_seen is False:
            raise refusal(
                "has repeat_window and exclude_seen: false, which contradict each other",
                "one of the two, or repeat_window with exclude_seen: true",
                "leave exclude_seen out to exclude the newest events, or repeat_window to repeat all",
            )
        return self


class RecommendRequest(HistoryBody):
    """Ask for a list: exactly one of `history` and `user_id`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"history": ["318", "296", "593"], "k": 5},
                {"history": [{"item": "318", "time": 1767225600}], "exclude": ["593"]},
                {"history": ["318", "296", "593"], "baskets": ["may", "may", "june"]},
                {"history": ["318", {"text": {"title": "Heat 2"}}, "593"], "k": 5},
                {"history": ["318"], "previous": [["296", "593"], ["50", "260"]], "k": 5},
                {"user_id": "15", "k": 20, "exclude_seen": False},
                {"user_id": "15", "repeat_window": 50},
                {"user_id": "15", "strategy": "mmr", "diversity": 0.3},
                {"history": ["318", "296"], "strategy": "diverse", "groups": 4, "beams": 2},
            ]
        }
    )

    k: Annotated[int, Field(strict=True, ge=1, le=MAX_K)] = 10
    strategy: Literal["top", "beam", "diverse", "mmr", "dpp"] = Field(
        "top",
        description=(
            "`top`: the items of highest score. `mmr`, `dpp`: likely ones that are unlike each other. "
            "`beam`, `diverse`: one list made of many continuations, in `diverse` of groups that avoid "
            "each other. All but `top` need a learned model."
        ),
    )
    diversity: Diversity = 0.5
    groups: Width = 4
    beams: Width = 2
    candidates: Candidates = 500
    steps: Annotated[int, Field(strict=True, ge=1, le=MAX_STEPS)] | None = Field(
        None, description="Items of each continuation of `beam` and `diverse`; by default 10."
    )

    @model_validator(mode="after")
    def _a_search_that_fits(self) -> Self:
        check_width(self.groups, self.beams, self.candidates)
        if self.strategy in ("mmr", "dpp") and self.diversity > 1:
            raise refusal(
                f"has diversity {self.diversity:g}, which {self.strategy} does not know",
                "with mmr and dpp a number from 0 to 1",
                "send a smaller diversity, or leave it out",
            )
        return self


class SimilarRequest(Body):
    """Ask for the items most like each of some items."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"items": ["318", "296"], "k": 5}]})

    items: Annotated[list[Id], Field(min_length=1, max_length=MAX_SIMILAR)]
    k: Annotated[int, Field(strict=True, ge=1, le=MAX_K)] = 10


class ModelVersion(BaseModel):
    """Which model answered."""

    name: str
    version: str = Field(description="Content hash of its bundle.")


class RankedItem(BaseModel):
    """One place of a list."""

    item_id: str
    score: float
    rank: int = Field(description="From 1.")
    title: str | None = Field(None, description="Present where the catalogue has titles.")


Source = Annotated[
    Literal["model", "item_to_item", "popular_in_segment", "popular"],
    Field(description="What made the list: the model, or what stands in for one that failed."),
]


class TextBody(BaseModel):
    """What a text of the history was read as."""

    place: int = Field(description="Where it stands in the history, from 0.")
    taken_as: Literal["text", "item", "nothing"] = Field(
        description="Itself, if the model reads texts; the item most like it; or nothing, as there was "
        "nothing to read, or nothing that could."
    )
    read_as: str | None = Field(description="That item; null in the other two cases.")


class RecommendResponse(BaseModel):
    """A ranked list and what had to be done to make it."""

    request_id: str = Field(description="Name of this answer; events may refer to it.")
    model: ModelVersion
    strategy: str
    source: Source
    history_source: Literal["request", "bundle", "feature_store", "live_events", "none"] = Field(
        description="Where the history comes from; live events are in all but the first."
    )
    items: list[RankedItem]
    unknown: list[str] = Field(description="History ids that the catalogue does not hold.")
    unknown_allowed: list[str] = Field(description="The same for `allow`.")
    unknown_excluded: list[str] = Field(description="The same for `exclude`.")
    unknown_previous: list[str] = Field(description="The same for the lists of `previous` read.")
    dropped_history: int = Field(
        description=f"Oldest events before the newest {MAX_HISTORY}: excluded, but not read."
    )
    dropped_previous: int = Field(
        description="Oldest lists of `previous` that were not read; all, if what answered reads none."
    )
    texts: list[TextBody] = Field(description="What each text of the history was read as.")
    fallback: Literal["empty_history", "unknown_history", "unknown_user"] | None = Field(
        description="Why this is the default list of an empty history, or null."
    )


class SimilarList(BaseModel):
    """The items most like one item."""

    item_id: str
    items: list[RankedItem]


class SimilarResponse(BaseModel):
    """One list for every known item, in the order asked."""

    request_id: str
    model: ModelVersion
    source: Source
    lists: list[SimilarList]
    unknown: list[str]


class Problem(BaseModel):
    """One thing wrong with a request."""

    place: str = Field(description="Where, as in body.history.3.")
    problem: str
    got: str | None = Field(None, description="The beginning of the value there, as JSON.")
    allowed: str
    fix: str = Field(description="What to do.")


class ErrorResponse(BaseModel):
    """Why a request was not answered."""

    error: str
    problems: list[Problem] = []
