"""What a request body must hold to: the rules of single values, and what is said when one is broken.

Every refusal names what is wrong, what is allowed and what to do; `serving.problems` adds the place
and the value.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    Field,
    PlainValidator,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

MAX_K = 1000
MAX_IDS = 10_000
"""Ids in one list of a request."""
MAX_PREVIOUS = 100
"""Lists that came before a history."""
MAX_ID = 512
"""Characters of an id."""
MAX_SIMILAR = 100
MAX_TIME = 2**53
MAX_EVENTS = 1000
MAX_LISTS = 32
"""Lists of one search: groups x beams."""
MAX_STEPS = 50
MAX_CANDIDATES = 2000
MAX_DIVERSITY = 100
MAX_REQUIRED = 50
MAX_GAP = 10**9
MAX_LIKE = 100
MAX_ATTRIBUTES = 50
MAX_TEXT = 2000
"""Characters of an item's text."""
MAX_TEXTS = 20
"""Items of a history that are given by their texts."""
MAX_VECTOR = 4096
MAX_NUMBER = 10**6
"""Largest number in a vector, far from what its products could overflow at."""

REFUSAL = "recsys_rule"
"""The type of errors made by `refusal`."""

ONE_ID = f"a text of 1 to {MAX_ID} characters, or a whole number"
IDS = f"a list of at most {MAX_IDS} ids, each {ONE_ID}"
YES_NO = "true, false or null, which follows the rule the model was evaluated by"
NUMBER = f"from {-MAX_NUMBER} to {MAX_NUMBER}"
NEW_EVENT = '{"user_id": "u", "item": "a", "time": 1767225600}'
EVENT = '{"item": "a", "time": 1767225600}'
TEXT = '{"text": {"title": "b"}}'

ALLOWED = {
    "history": f"{IDS}; or a list of events, each like {EVENT}; at most {MAX_TEXTS} of them may be "
    f"texts, each like {TEXT}",
    "text": f"an object of 1 to {MAX_ATTRIBUTES} texts of at most {MAX_TEXT} characters",
    "item": ONE_ID,
    "time": f"seconds since 1970, a whole number from {-MAX_TIME} to {MAX_TIME}",
    "baskets": f"one label for each item of the history, each {ONE_ID}",
    "previous": f"a list of at most {MAX_PREVIOUS} lists, oldest first, each of 1 or more ids, "
    f"{MAX_IDS} ids in all",
    "user_id": ONE_ID,
    "k": f"a whole number from 1 to {MAX_K}",
    "exclude": IDS,
    "allow": IDS,
    "exclude_seen": YES_NO,
    "repeat_window": "a number of events, a whole number from 1",
    "items": f"a list of 1 to {MAX_SIMILAR} ids, each {ONE_ID}",
    "events": f"a list of 1 to {MAX_EVENTS} events, each like {NEW_EVENT}",
    "event_id": f"{ONE_ID}; or null",
    "request_id": f"the request_id of an answer, {ONE_ID}; or null",
    "item_id": ONE_ID,
    "attributes": f"an object of at most {MAX_ATTRIBUTES} texts of at most {MAX_TEXT} characters",
    "like": f"a list of at most {MAX_LIKE} ids, each {ONE_ID}",
    "vector": f"a list of at most {MAX_VECTOR} numbers, not all zero, each {NUMBER}",
    "strategy": "top, beam, diverse, mmr, dpp",
    "diversity": f"a number from 0 to {MAX_DIVERSITY}",
    "groups": f"a whole number from 1 to {MAX_LISTS}",
    "beams": f"a whole number from 1 to {MAX_LISTS}",
    "candidates": f"a whole number from 1 to {MAX_CANDIDATES}",
    "steps": f"a whole number from 1 to {MAX_STEPS}",
    "dissimilarity": "hamming, presence, cumulative, ngram, vector, category",
    "required": f"a list of at most {MAX_REQUIRED} ids, each {ONE_ID}",
    "at_most": 'an object of whole numbers from 1, as {"artist": 2}',
    "label": "the name of an attribute of the items; or null",
    "gap": f"seconds, a number from 0 to {MAX_GAP}; or null",
    "playlist": f"the name of a published playlist, {ONE_ID}; or null",
    "holding": "any, without, with",
    "q": f"words, at most {MAX_TEXT} characters",
}
"""What every key of a body may hold."""

ALLOWED_INSIDE = {
    "history": f"{ONE_ID}; or an event like {EVENT}; or a text like {TEXT}",
    "previous": f"a list of 1 or more ids, each {ONE_ID}",
    **dict.fromkeys(("baskets", "exclude", "allow", "items", "like", "required"), ONE_ID),
    "events": f"an event like {NEW_EVENT}",
    "vector": NUMBER,
}
"""What the places of those that are lists may hold."""


def refusal(problem: str, allowed: str, fix: str) -> PydanticCustomError:
    """Return the error of a broken rule, to be raised by a validator."""
    context = {"problem": problem, "allowed": allowed, "fix": fix}
    return PydanticCustomError("recsys_rule", "{problem}", context)


def _external_id(value: object) -> str:
    """Return an id as text; a whole number is taken as its decimal text."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise refusal("is no id", ONE_ID, "send such an id, or leave it out")
    text = str(value)
    if not 1 <= len(text) <= MAX_ID:
        problem = f"is an id of {len(text)} characters"
        raise refusal(problem, ONE_ID, "send the id as it is in the catalogue")
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        fix = "send a surrogate together with its other half, or leave the id out"
        raise refusal("is an id with half a character", ONE_ID, fix)
    return text


Id = Annotated[
    str,
    PlainValidator(_external_id),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "minLength": 1, "maxLength": MAX_ID}, {"type": "integer"}]}
    ),
]
"""An external id; a whole number is taken as its decimal text."""


def _at_once(value: object, one_by_one: ValidatorFunctionWrapHandler) -> Any:
    """Pass a list of valid texts, which most are, whole; look at any other value by value."""
    return value if _valid_texts(value) else one_by_one(value)


def _valid_texts(value: object) -> bool:
    if not isinstance(value, list) or len(value) > MAX_IDS:
        return False
    if not all(type(text) is str and 0 < len(text) <= MAX_ID for text in value):
        return False
    try:
        "".join(value).encode()
    except UnicodeEncodeError:  # half a character; which one is said by the slow way
        return False
    return True


AtOnce = WrapValidator(_at_once)
"""Makes it quick to check a list of up to `MAX_IDS` ids."""
Ids = Annotated[list[Id], Field(max_length=MAX_IDS), AtOnce]
